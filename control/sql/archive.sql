-- name: days()
-- The days of usage_event that are here, with their size, and those that are in files.
SELECT p.day, NULL::text AS file, p.events, p.bytes, a.restored_at
FROM (
    SELECT to_date(right(c.relname, 8), 'YYYYMMDD') AS day, greatest(c.reltuples, 0)::bigint AS events,
        pg_total_relation_size(c.oid) AS bytes
    FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
    WHERE i.inhparent = 'usage_event'::regclass AND c.relname ~ '^usage_event_[0-9]{8}$'
) AS p
LEFT JOIN usage_archive a ON a.day = p.day
UNION ALL
SELECT day, file, events, NULL, NULL FROM usage_archive WHERE restored_at IS NULL
ORDER BY day;

-- name: lock_archive()$
-- Those who archive and restore take turns, until the transaction ends.
SELECT pg_advisory_xact_lock(hashtext('quotagate.archive'));

-- name: limit_lock_wait()!
-- Others queue behind who waits for a table, so nobody waits for long.
SET LOCAL lock_timeout = '2s';

-- name: archived(day)^
-- The file of a day, if it is in one.
SELECT day, file, events, sha256 FROM usage_archive WHERE day = :day AND restored_at IS NULL;

-- name: insert_archive(day, file, events, sha256, at)!
-- A day that is in a file from now on.
INSERT INTO usage_archive (day, file, events, sha256, archived_at) VALUES (:day, :file, :events, :sha256, :at)
ON CONFLICT (day) DO UPDATE SET file = excluded.file, events = excluded.events, sha256 = excluded.sha256,
    archived_at = excluded.archived_at, restored_at = NULL;

-- name: set_restored(day, at)!
-- The day is back.
UPDATE usage_archive SET restored_at = :at WHERE day = :day;

-- name: drop_sums(day)!
-- Its sums are those of its rows again.
DELETE FROM usage_archived_sum WHERE day = :day;

-- name: insert_sums(day, starts, ends)!
-- What the day's events add up to.
INSERT INTO usage_archived_sum (day, org, period_start, meter, key_id, user_id, used, burnt, overage)
SELECT :day, e.org, e.period_start, e.meter, coalesce(e.key_id, ''), coalesce(e.user_id, ''), sum(e.units),
    sum((SELECT coalesce(sum(b.value::bigint), 0) FROM jsonb_each_text(e.burnt) AS b)), sum(e.overage)
FROM usage_event e WHERE e.occurred_at >= :starts AND e.occurred_at < :ends
GROUP BY e.org, e.period_start, e.meter, coalesce(e.key_id, ''), coalesce(e.user_id, '');

-- name: may_move_days()$
-- Whether who is connected may take partitions out of usage_event and bring them back.
SELECT pg_has_role(relowner, 'USAGE') FROM pg_class WHERE oid = 'usage_event'::regclass;
