-- name: insert(id, organization_id, meter, units, expires_at, reason, idempotency_key, created_at)!
-- A grant that an organization receives.
INSERT INTO "grant" (id, organization_id, meter, units, expires_at, reason, idempotency_key, created_at)
VALUES (:id, :organization_id, :meter, :units, :expires_at, :reason, :idempotency_key, :created_at);

-- name: by_idempotency_key(organization_id, idempotency_key)^
-- The grant that an earlier request with this key created.
SELECT id, organization_id, meter, units, expires_at, reason, created_at, revoked_at FROM "grant"
WHERE organization_id = :organization_id AND idempotency_key = :idempotency_key;

-- name: live(organization_id, at)$
-- How many grants are published for an organization: each lengthens what every take reads.
SELECT count(*) FROM "grant"
WHERE organization_id = :organization_id AND revoked_at IS NULL AND expires_at > :at;

-- name: of_organization(organization_id, before, limit_rows)
-- One page of an organization's grants with what Postgres knows to be used of each, the newest first.
SELECT g.id, g.meter, g.units, g.expires_at, g.reason, g.created_at, g.revoked_at, coalesce(c.used, 0) AS used
FROM "grant" g
LEFT JOIN grant_counter c ON c.organization_id = g.organization_id AND c.grant_id = g.id::text
WHERE g.organization_id = :organization_id AND (:before::uuid IS NULL OR g.id < :before)
ORDER BY g.id DESC
LIMIT :limit_rows;

-- name: revoke(organization_id, id, at)^
-- What is left of the grant is void from now on; nothing where it is revoked already.
UPDATE "grant" SET revoked_at = :at
WHERE organization_id = :organization_id AND id = :id AND revoked_at IS NULL
RETURNING id, meter, units, expires_at, reason;

-- name: find(organization_id, id)^
-- One grant of an organization.
SELECT id, meter, units, expires_at, reason, created_at, revoked_at FROM "grant"
WHERE organization_id = :organization_id AND id = :id;
