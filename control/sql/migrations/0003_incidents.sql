-- What an admin must look at, until it is closed: by whoever opened it, or by the admin.

CREATE TABLE incident (
    id           uuid PRIMARY KEY,          -- sorts by time
    kind         text NOT NULL,             -- `usage_quarantined`
    key          text NOT NULL,             -- what it is about, among those of its kind
    org          text,                      -- NULL: it concerns no single organization
    content      jsonb NOT NULL,            -- of the last time
    count        bigint NOT NULL CHECK (count > 0),
    opened_at    timestamptz NOT NULL,
    last_seen_at timestamptz NOT NULL,
    closed_at    timestamptz                -- NULL: open
);
CREATE UNIQUE INDEX incident_open ON incident (kind, key) WHERE closed_at IS NULL;
CREATE INDEX incident_open_first ON incident ((closed_at IS NULL), id);
