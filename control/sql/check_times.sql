-- name: lock_position()^
-- The last entry that is in the table; held, so that several take turns.
SELECT stream_ms, stream_seq FROM check_time_position FOR UPDATE;

-- name: move_position(stream_ms, stream_seq)!
-- In the transaction of the counts that it speaks of.
UPDATE check_time_position SET stream_ms = :stream_ms, stream_seq = :stream_seq;

-- name: lock_region_position(region)^
-- The same of a region other than number 0, whose Redis has a stream of its own.
SELECT checks_ms AS stream_ms, checks_seq AS stream_seq FROM region WHERE number = :region FOR NO KEY UPDATE;

-- name: move_region_position(region, stream_ms, stream_seq)!
-- The same.
UPDATE region SET checks_ms = :stream_ms, checks_seq = :stream_seq WHERE number = :region;

-- name: add_checks(minutes, buckets, checks)!
-- Counts of minutes.
INSERT INTO check_time AS c (minute, bucket, checks)
SELECT minute, bucket, sum(checks) FROM unnest(:minutes::timestamptz[], :buckets::smallint[], :checks::bigint[])
    AS t (minute, bucket, checks)
GROUP BY minute, bucket
ORDER BY minute, bucket -- so that two regions do not wait for each other
ON CONFLICT (minute, bucket) DO UPDATE SET checks = c.checks + excluded.checks;

-- name: drop_checks(before)!
-- Minutes that are kept no longer.
DELETE FROM check_time WHERE minute < :before;

-- name: checks(bucket_size, since, until)
-- How many takes took how long, by hour, day or month.
SELECT date_trunc(:bucket_size::text, minute, 'UTC') AS start, bucket, sum(checks)::bigint AS checks
FROM check_time WHERE minute >= :since AND minute < :until
GROUP BY 1, 2
ORDER BY 1, 2;
