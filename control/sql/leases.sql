-- Leases are advisory locks of the session, with two keys: 1902605175 ("qgww") and 0 is held, shared, by every writer;
-- 1902605171 ("qgws") and the shard by the one that works on it. pg_locks shows both, with the sessions that hold them.

-- name: join(idle)!
-- This session is a writer from now on. One that is silent for longer than `idle` (with its unit) is ended by Postgres:
-- its process hangs, or its machine is gone.
SELECT set_config('idle_session_timeout', :idle, false), pg_try_advisory_lock_shared(1902605175, 0);

-- name: holders()
-- The writers, shard null, and who holds which shard.
SELECT CASE WHEN classid = 1902605171 THEN objid::int END AS shard, pid, pid = pg_backend_pid() AS own
FROM pg_locks
WHERE locktype = 'advisory' AND objsubid = 2 AND granted AND classid IN (1902605175, 1902605171)
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database());

-- name: take(shards)
-- Those of the shards that nobody else was faster to take.
SELECT shard FROM unnest(:shards::int[]) AS shard WHERE pg_try_advisory_lock(1902605171, shard);

-- name: give(shards)!
-- Hands shards over to whoever takes them.
SELECT pg_advisory_unlock(1902605171, shard) FROM unnest(:shards::int[]) AS shard;
