-- name: lock_migration(key)$
-- Those who migrate take turns, until the transaction ends.
SELECT pg_advisory_xact_lock(:key::bigint);

-- name: has_version()$
-- Whether the database was ever migrated.
SELECT to_regclass('alembic_version') IS NOT NULL;

-- name: create_version()!
-- The table that tells the newest migration. Its name and its form are those of Alembic, by which releases before this
-- one migrated: both can go on from what the other left.
CREATE TABLE alembic_version (
    version_num varchar(32) NOT NULL,
    CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);

-- name: set_version(version)!
-- The migration that the database has seen last.
WITH before AS (UPDATE alembic_version SET version_num = :version::text RETURNING version_num)
INSERT INTO alembic_version (version_num) SELECT :version WHERE NOT EXISTS (SELECT FROM before);
