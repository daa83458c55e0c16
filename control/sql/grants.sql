-- name: insert(id, org, meter, units, expires_at, reason, idempotency_key, created_at)^
-- A grant that an organization receives, as it is stored.
INSERT INTO "grant" (id, org, meter, units, expires_at, reason, idempotency_key, created_at)
VALUES (:id, :org, :meter, :units, :expires_at, :reason, :idempotency_key, :created_at)
RETURNING id, meter, units, expires_at, reason, created_at, revoked_at;

-- name: by_idempotency_key(org, idempotency_key)^
-- The grant that an earlier request with this key created.
SELECT id, meter, units, expires_at, reason, created_at, revoked_at FROM "grant"
WHERE org = :org AND idempotency_key = :idempotency_key;

-- name: live(org, at)$
-- How many grants are published for an organization: each lengthens what every take reads.
SELECT count(*) FROM "grant"
WHERE org = :org AND revoked_at IS NULL AND expires_at > :at;

-- name: of_organization(org, before, limit_rows)
-- One page of an organization's grants with what Postgres knows to be used of each, the newest first.
SELECT g.id, g.meter, g.units, g.expires_at, g.reason, g.created_at, g.revoked_at, coalesce(c.used, 0) AS used
FROM "grant" g
LEFT JOIN grant_counter c ON c.org = g.org AND c.grant_id = g.id::text
WHERE g.org = :org AND (:before::uuid IS NULL OR g.id < :before)
ORDER BY g.id DESC
LIMIT :limit_rows;

-- name: revoke(org, id, at)^
-- What is left of the grant is void from now on; nothing where it is revoked already.
UPDATE "grant" SET revoked_at = :at
WHERE org = :org AND id = :id AND revoked_at IS NULL
RETURNING id, meter, units, expires_at, reason, created_at, revoked_at;

-- name: find(org, id)^
-- One grant of an organization.
SELECT id, meter, units, expires_at, reason, created_at, revoked_at FROM "grant"
WHERE org = :org AND id = :id;
