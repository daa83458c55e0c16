-- What keys with quotas of their own have used. The writer moves it with the events, so that nobody adds up the events of a
-- whole period again and again to compare Redis with them.

CREATE TABLE key_counter (
    org             text NOT NULL,
    key_id          text NOT NULL,
    meter           text NOT NULL,
    period_start    timestamptz NOT NULL,
    hour            timestamptz NOT NULL,   -- of the takes; a correction belongs to the hour of its take
    used            bigint NOT NULL,
    PRIMARY KEY (org, key_id, meter, period_start, hour)
) WITH (fillfactor = 70);
CREATE INDEX key_counter_hour ON key_counter USING brin (hour);

INSERT INTO key_counter (org, key_id, meter, period_start, hour, used)
SELECT org, key_id, meter, period_start, date_trunc('hour', taken_at, 'UTC'), sum(units)
FROM usage_event WHERE taken_at IS NOT NULL AND key_id IS NOT NULL
GROUP BY 1, 2, 3, 4, 5;

-- A window that is added to a key begins to count at the key's next charge, and its events may say more.
ALTER TABLE api_key ADD COLUMN quotas_changed_at timestamptz;
-- Reconciliation asks for these of every organization, round after round.
CREATE INDEX api_key_limited ON api_key (org) WHERE dropped_at IS NULL AND quotas <> '[]';
