CREATE TABLE usage_archive (
    day         date PRIMARY KEY,
    file        text NOT NULL,              -- its name, where it was written
    events      bigint NOT NULL,            -- rows
    sha256      text NOT NULL,              -- of the file's content before compression
    archived_at timestamptz NOT NULL,
    restored_at timestamptz                 -- the day is here again
);
COMMENT ON TABLE usage_archive IS 'Days of usage_event that are in files.';

CREATE TABLE usage_archived_sum (
    day          date NOT NULL REFERENCES usage_archive ON DELETE CASCADE,
    org          text NOT NULL,
    period_start timestamptz NOT NULL,
    meter        text NOT NULL,
    used         bigint NOT NULL,
    burnt        bigint NOT NULL,
    overage      bigint NOT NULL,
    PRIMARY KEY (day, org, period_start, meter)
);
COMMENT ON TABLE usage_archived_sum IS 'What the events of an archived day add up to, so that counters can still be recomputed.';
