-- name: lock_position()^
-- The last entry that is in the table; held, so that several take turns.
SELECT stream_ms, stream_seq FROM check_time_position FOR UPDATE;

-- name: move_position(stream_ms, stream_seq)!
-- In the transaction of the counts that it speaks of.
UPDATE check_time_position SET stream_ms = :stream_ms, stream_seq = :stream_seq;

-- name: add_checks(minutes, buckets, checks)!
-- Counts of minutes.
INSERT INTO check_time AS c (minute, bucket, checks)
SELECT minute, bucket, sum(checks) FROM unnest(:minutes::timestamptz[], :buckets::smallint[], :checks::bigint[])
    AS t (minute, bucket, checks)
GROUP BY minute, bucket
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
