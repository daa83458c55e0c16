-- A recovery asks for the events of the last minutes, of all organizations: a day's rows were read for that, for each shard
-- that lacked some. Rows of a day lie in the order of time, so a few kB of ranges say where.
CREATE INDEX usage_event_occurred ON usage_event USING brin (occurred_at) WITH (autosummarize = on);
