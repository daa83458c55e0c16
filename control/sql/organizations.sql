-- name: lock(org)^
-- The organization as it is, held until the transaction ends.
SELECT id, name, created_at FROM organization WHERE id = :org FOR UPDATE;

-- name: insert(id, name, created_at)<!
-- A new organization and its id; nothing where it is there already.
INSERT INTO organization (id, name, created_at) VALUES (:id, :name, :created_at)
ON CONFLICT (id) DO NOTHING
RETURNING id;

-- name: rename(id, name)!
-- What people call it; its id is for ever.
UPDATE organization SET name = :name WHERE id = :id;

-- name: find(org)^
-- One organization.
SELECT id, name, created_at FROM organization WHERE id = :org;

-- name: page(after, limit_rows)
-- Organizations in the order of their ids, beginning after one of them.
SELECT id, name, created_at FROM organization
WHERE :after::text IS NULL OR id > :after
ORDER BY id
LIMIT :limit_rows;
