-- name: file_bootstrap(id, hash, at)<!
-- Files the token of the settings, or its new value; nothing where it is filed, where it was revoked, or where another
-- service token has this value.
INSERT INTO service_token AS t (id, name, hash, role, created_at, created_by)
SELECT :id::uuid, 'bootstrap', :hash::bytea, 'admin', :at::timestamptz, 'settings'
WHERE NOT EXISTS (SELECT 1 FROM service_token WHERE hash = :hash)
ON CONFLICT (name) WHERE name = 'bootstrap' DO UPDATE SET hash = excluded.hash, last_used_at = NULL
WHERE t.revoked_at IS NULL
RETURNING id;

-- name: insert(id, name, hash, org, role, permissions, created_at, created_by, expires_at)<!
-- A new token; nothing where a live one has this name.
INSERT INTO service_token (id, name, hash, org, role, permissions, created_at, created_by, expires_at)
VALUES (:id, :name, :hash, :org, :role, :permissions, :created_at, :created_by, :expires_at)
ON CONFLICT (name) WHERE revoked_at IS NULL DO NOTHING
RETURNING id;

-- name: live(hash)^
-- The token with this hash, unless it was revoked, or its organization was deleted.
SELECT t.id, t.name, t.org, t.role, t.permissions, t.expires_at, t.last_used_at
FROM service_token t LEFT JOIN organization o ON o.id = t.org
WHERE t.hash = :hash AND t.revoked_at IS NULL AND o.deleted_at IS NULL;

-- name: named(name, at)^
-- The token of this name that reaches all organizations, unless it was revoked or has expired.
SELECT id, name, org, role, permissions, expires_at, last_used_at FROM service_token
WHERE name = :name AND org IS NULL AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > :at);

-- name: mark_used(id, at)!
-- The minute in which it was used the last time.
UPDATE service_token SET last_used_at = :at WHERE id = :id AND (last_used_at IS NULL OR last_used_at < :at);

-- name: lock_all(at)
-- All live tokens that reach all organizations, held until the transaction ends.
SELECT id, name, org, role, permissions, expires_at, last_used_at FROM service_token
WHERE org IS NULL AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > :at)
ORDER BY id
FOR UPDATE;

-- name: revoke(id, at)!
-- Refuses it from now on.
UPDATE service_token SET revoked_at = :at WHERE id = :id AND revoked_at IS NULL;

-- name: find(id)^
-- One token, as lists show it.
SELECT id, name, org, role, permissions, created_at, created_by, expires_at, last_used_at, revoked_at
FROM service_token WHERE id = :id;

-- name: page(before, limit_rows)
-- One page of all tokens, the newest first.
SELECT id, name, org, role, permissions, created_at, created_by, expires_at, last_used_at, revoked_at
FROM service_token
WHERE :before::uuid IS NULL OR id < :before
ORDER BY id DESC
LIMIT :limit_rows;
