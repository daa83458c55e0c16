-- name: lock(org)^
-- The organization as it is, held until the transaction ends; nothing where it was deleted.
SELECT id, name, created_at, deleted_at, mirrored, shadow AND deleted_at IS NULL AS shadow
FROM organization WHERE id = :org AND deleted_at IS NULL FOR UPDATE;

-- name: lock_any(org)^
-- The same, also of a deleted one.
SELECT id, name, created_at, deleted_at, mirrored, shadow AND deleted_at IS NULL AS shadow
FROM organization WHERE id = :org FOR UPDATE;

-- name: insert(id, name, created_at)<!
-- A new organization and its id; nothing where it is there already.
INSERT INTO organization (id, name, created_at) VALUES (:id, :name, :created_at)
ON CONFLICT (id) DO NOTHING
RETURNING id;

-- name: rename(id, name)!
-- What people call it; its id is for ever.
UPDATE organization SET name = :name WHERE id = :id;

-- name: set_mirrored(id, mirrored)!
-- Whether its name and its members follow the identity provider from now on.
UPDATE organization SET mirrored = :mirrored WHERE id = :id;

-- name: set_shadow(id, shadow)!
-- Whether what gateways would refuse it is only recorded.
UPDATE organization SET shadow = :shadow WHERE id = :id;

-- name: set_deleted(id, deleted_at)!
-- Deletes it, or brings it back (NULL). Lists know it at once, as they know a new one.
WITH listed AS (
    UPDATE organization_summary SET is_deleted = :deleted_at::timestamptz IS NOT NULL WHERE org = :id
)
UPDATE organization SET deleted_at = :deleted_at WHERE id = :id;

-- name: find(org)^
-- One organization; nothing where it was deleted.
SELECT id, name, created_at, deleted_at, mirrored, shadow AND deleted_at IS NULL AS shadow
FROM organization WHERE id = :org AND deleted_at IS NULL;

-- name: find_any(org)^
-- The same, also a deleted one.
SELECT id, name, created_at, deleted_at, mirrored, shadow AND deleted_at IS NULL AS shadow
FROM organization WHERE id = :org;

-- name: mirrored(after, limit_rows)
-- Ids of organizations that are mirrored, one page.
SELECT id FROM organization WHERE mirrored AND deleted_at IS NULL AND id > :after ORDER BY id LIMIT :limit_rows;
