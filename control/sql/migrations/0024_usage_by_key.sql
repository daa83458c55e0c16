-- Usage by API key and by user. Events of before have neither.

ALTER TABLE usage_event
    ADD COLUMN key_id text,
    ADD COLUMN user_id text,
    ADD COLUMN taken_at timestamptz;        -- the second of the take, where it was charged to quotas of the key's own
-- From it the windows of a key's quotas are restored, exactly.
CREATE INDEX usage_event_limited ON usage_event (org, key_id, meter, taken_at) WHERE taken_at IS NOT NULL;

ALTER TABLE usage_archived_sum
    ADD COLUMN key_id text NOT NULL DEFAULT '',
    ADD COLUMN user_id text NOT NULL DEFAULT '',
    DROP CONSTRAINT usage_archived_sum_pkey,
    ADD PRIMARY KEY (day, org, period_start, meter, key_id, user_id);
