-- API keys, and marks by which a token, a session, a user, a site or an organization is refused. Both are published with
-- the organization's entitlement: each change draws a version, and is in Redis when the call that made it is answered.

CREATE TABLE api_key (
    id              text PRIMARY KEY CHECK (id ~ '^[A-Za-z0-9]{12}$'),
    number          bigint GENERATED ALWAYS AS IDENTITY, -- lists are in this order
    org             text NOT NULL REFERENCES organization,
    digest          bytea NOT NULL CHECK (octet_length(digest) = 32), -- SHA-256 of the key, which is nowhere
    starts_with     text NOT NULL,          -- for people: what the key begins with,
    last_four       text,                   -- and its last characters; NULL: imported without them
    name            text NOT NULL,
    environment     text NOT NULL,
    user_id         text,
    scopes          text[] NOT NULL,        -- empty: everything
    networks        text[] NOT NULL,        -- addresses that may use it; empty: all
    quotas          jsonb NOT NULL,         -- [[meter, units, window seconds], …]; 0 seconds: the organization's period
    rate_requests   integer CHECK (rate_requests > 0),
    rate_seconds    double precision,
    rate_burst      integer,
    state           text NOT NULL CHECK (state IN ('active', 'disabled', 'revoked')),
    imported        boolean NOT NULL,
    created_at      timestamptz NOT NULL,
    expires_at      timestamptz,
    revoked_at      timestamptz,
    rolled_from     text REFERENCES api_key,
    rolled_to       text REFERENCES api_key,
    changed_version bigint NOT NULL,        -- of the publication that has it as it is
    dropped_at      timestamptz,            -- over for so long that it is published no more
    CHECK (num_nulls(rate_requests, rate_seconds, rate_burst) IN (0, 3)),
    CHECK ((state = 'revoked') = (revoked_at IS NOT NULL))
);
-- Redis knows a key by these 16 bytes.
CREATE UNIQUE INDEX api_key_digest ON api_key (substring(digest FROM 1 FOR 16));
CREATE INDEX api_key_of_organization ON api_key (org, number);
CREATE INDEX api_key_changed ON api_key (org, changed_version);
CREATE INDEX api_key_over ON api_key (least(expires_at, revoked_at)) WHERE dropped_at IS NULL;

CREATE TABLE api_key_use (
    key_id  text PRIMARY KEY,
    used_at timestamptz NOT NULL            -- the minute of the last admitted request
) WITH (fillfactor = 70);
COMMENT ON TABLE api_key_use IS 'Apart from api_key: the writer moves it on, once a minute for each key.';

CREATE TABLE revocation (
    org             text NOT NULL REFERENCES organization,
    kind            text NOT NULL CHECK (kind IN ('token', 'session', 'user', 'site', 'organization')),
    subject         text NOT NULL,          -- the id that tokens carry; '' of kind organization
    issued_until    timestamptz,            -- refuses what was issued until then; NULL: whatever carries it
    reason          text,
    set_at          timestamptz NOT NULL,
    expires_at      timestamptz,            -- nothing that it refuses lives longer; NULL: until it is lifted
    lifted_at       timestamptz,            -- published no more
    changed_version bigint NOT NULL,
    PRIMARY KEY (org, kind, subject)
);
CREATE INDEX revocation_changed ON revocation (org, changed_version);
CREATE INDEX revocation_over ON revocation (expires_at) WHERE lifted_at IS NULL;

-- An organization that has keys or marks, and never had an entitlement, is published, too.
ALTER TABLE publication ADD COLUMN entitled boolean NOT NULL DEFAULT true;
COMMENT ON COLUMN publication.entitled IS 'false: the organization never had an entitlement, and was never suspended';
