-- name: ping()$
-- Whether Postgres answers, and the schema is there.
SELECT count(*) FROM alembic_version;

-- name: schema_version()$
-- The newest migration that the database has seen.
SELECT max(version_num) FROM alembic_version;

-- name: time()$
-- Postgres' clock, seconds since 1970.
SELECT extract(epoch FROM clock_timestamp());

-- name: plan_anew(most_ms)$
-- Until the transaction ends, each statement is planned for the values that it is given, and is ended when it takes
-- longer than that.
SELECT set_config('plan_cache_mode', 'force_custom_plan', true) || set_config('statement_timeout', :most_ms, true);

-- name: follow_trace(traceparent)!
-- What this transaction changes belongs to a trace, with which whoever publishes it goes on.
SELECT set_config('quotagate.traceparent', :traceparent, true);

-- name: backend()$
-- The server process that answers.
SELECT pg_backend_pid();

-- name: place()^
-- Which database of which server this is, and whether it can be written.
SELECT system_identifier, current_database()::text AS database, pg_is_in_recovery() AS in_recovery
FROM pg_control_system();
