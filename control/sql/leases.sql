-- Leases are advisory locks of the session, with two keys: 1902605175 ("qgww") and the region is held, shared, by every
-- writer of it; 1902605171 ("qgws") and the shard, as PostgreSQL numbers it, by the one that works on it. pg_locks shows
-- both, with the sessions that hold them.

-- name: join(region, idle)!
-- This session is a writer from now on. One that is silent for longer than `idle` (with its unit) is ended by Postgres:
-- its process hangs, or its machine is gone.
SELECT set_config('idle_session_timeout', :idle, false), pg_try_advisory_lock_shared(1902605175, :region);

-- name: holders(region)
-- The writers of a region, shard null, and who holds which shard.
SELECT CASE WHEN classid = 1902605171 THEN (objid::bigint % 100)::int END AS shard, pid, pid = pg_backend_pid() AS own
FROM pg_locks
WHERE locktype = 'advisory' AND objsubid = 2 AND granted
    AND (classid = 1902605175 AND objid::bigint = :region::integer
        OR classid = 1902605171 AND objid::bigint / 100 = :region::integer)
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database());

-- name: take(shards)
-- Those of the shards that nobody else was faster to take.
SELECT shard % 100 AS shard FROM unnest(:shards::int[]) AS shard WHERE pg_try_advisory_lock(1902605171, shard);

-- name: give(shards)!
-- Hands shards over to whoever takes them.
SELECT pg_advisory_unlock(1902605171, shard) FROM unnest(:shards::int[]) AS shard;
