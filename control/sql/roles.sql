-- name: role_exists(role)$
-- Whether the server knows the role.
SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = :role);

-- name: me()^
-- Who is connected, whether it may make roles, and whether the tables are its own.
SELECT r.rolname::text AS role, r.rolsuper OR r.rolcreaterole AS makes_roles,
    (SELECT pg_has_role(relowner, 'USAGE') FROM pg_class WHERE oid = 'audit_journal'::regclass) AS owns
FROM pg_roles r WHERE r.rolname = current_user;

-- name: create_role(role)$
-- The statement that makes a role which cannot log in. Login roles become members of it.
SELECT format('CREATE ROLE %I NOLOGIN', :role::text);

-- name: rights(role, append_only, read_only)
-- The statements that give the application role what it needs, and take what it should not have. They cover every table
-- of ours that is there, so they are run after each migration. Partitions have rights taken and none given: who reads or
-- writes them by way of their parent needs none of theirs.
WITH ours AS (
    SELECT c.oid, c.relname, c.relkind, c.relispartition FROM pg_class c
    WHERE c.relnamespace = current_schema()::regnamespace AND pg_has_role(c.relowner, 'USAGE')
)
SELECT statement FROM (
    SELECT 1 AS step, format('GRANT USAGE ON SCHEMA %I TO %I', current_schema(), :role::text) AS statement
    UNION ALL
    SELECT 2, format('REVOKE ALL ON %I FROM %I', relname, :role) FROM ours WHERE relkind IN ('r', 'p', 'v', 'm')
    UNION ALL
    SELECT 3, format('GRANT %s ON %I TO %I',
        CASE
            WHEN relname = ANY (:append_only::text[]) THEN 'SELECT, INSERT'
            WHEN relname = ANY (:read_only::text[]) OR relkind IN ('v', 'm') THEN 'SELECT'
            ELSE 'SELECT, INSERT, UPDATE, DELETE'
        END, relname, :role)
    FROM ours WHERE relkind IN ('r', 'p', 'v', 'm') AND NOT relispartition
    UNION ALL
    SELECT 4, format('GRANT USAGE ON SEQUENCE %I TO %I', relname, :role) FROM ours WHERE relkind = 'S'
    UNION ALL
    SELECT 5, format('GRANT EXECUTE ON FUNCTION %s TO %I', p.oid::regprocedure, :role)
    FROM pg_proc p
    WHERE p.pronamespace = current_schema()::regnamespace AND pg_has_role(p.proowner, 'USAGE') AND p.prosecdef
        AND p.prorettype <> 'trigger'::regtype
) AS steps
ORDER BY step;

-- name: standing(protected)^
-- Who is connected, and which of these tables, or of their partitions, it could change or empty, by a right of its own
-- or as a role that it may become.
SELECT current_user::text AS role, r.rolsuper AS superuser,
    ARRAY(
        SELECT DISTINCT t.relname::text
        FROM pg_class t
        JOIN (SELECT inhparent AS of, inhrelid AS oid FROM pg_inherits UNION ALL SELECT oid, oid FROM pg_class) AS part
            ON part.of = t.oid
        JOIN pg_class c ON c.oid = part.oid
        WHERE t.relname = ANY (:protected::text[]) AND t.relnamespace = current_schema()::regnamespace
            AND (pg_has_role(c.relowner, 'MEMBER')
                OR has_table_privilege(c.oid, 'UPDATE, DELETE, TRUNCATE, TRIGGER')
                OR has_any_column_privilege(c.oid, 'UPDATE'))
        ORDER BY 1
    ) AS may_change
FROM pg_roles r WHERE r.rolname = current_user;

-- name: hardening()^
-- What an attacker would look for: rights of the connected role beyond tables, secrets and keys that are old, and ids that say
-- who somebody is.
SELECT r.rolcreaterole AS makes_roles, r.rolcreatedb AS makes_databases, r.rolreplication AS replicates,
    (SELECT count(*) FROM service_token WHERE name = 'bootstrap' AND revoked_at IS NULL) AS bootstrap_tokens,
    (SELECT count(*) FROM service_token WHERE name <> 'bootstrap' AND revoked_at IS NULL
        AND coalesce(expires_at, 'infinity') > now() AND created_at < now() - interval '365 days') AS old_tokens,
    (SELECT count(*) FROM app_user WHERE deleted_at IS NULL AND id LIKE '%@%') AS ids_with_address,
    (SELECT (extract(epoch FROM now() - max(signs_from)) / 86400)::float8 FROM signing_key WHERE retired_at IS NULL)
        AS signing_key_days
FROM pg_roles r WHERE r.rolname = current_user;
