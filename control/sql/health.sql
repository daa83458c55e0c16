-- name: ping()$
-- Whether Postgres answers, and the schema is there.
SELECT count(*) FROM alembic_version;
