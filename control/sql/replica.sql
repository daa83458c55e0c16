-- name: primary()^
-- Which server this is, and how far its WAL is on its disk, in bytes; null: it is a standby.
SELECT system_identifier,
    CASE WHEN NOT pg_is_in_recovery() THEN (pg_current_wal_flush_lsn() - '0/0'::pg_lsn)::bigint END AS position
FROM pg_control_system();

-- name: standby()^
-- Which server this is, and how far it has replayed, in bytes; null: it is no standby.
SELECT system_identifier,
    CASE WHEN pg_is_in_recovery() THEN (pg_last_wal_replay_lsn() - '0/0'::pg_lsn)::bigint END AS position
FROM pg_control_system();
