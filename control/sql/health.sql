-- name: ping()$
-- Whether Postgres answers, and the schema is there.
SELECT count(*) FROM alembic_version;

-- name: schema_version()$
-- The newest migration that the database has seen.
SELECT max(version_num) FROM alembic_version;

-- name: time()$
-- Postgres' clock, seconds since 1970.
SELECT extract(epoch FROM clock_timestamp());
