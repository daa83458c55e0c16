-- name: page(after, limit_rows)
-- Ids of the organizations that are there, one page.
SELECT id FROM organization
WHERE deleted_at IS NULL AND (:after::text IS NULL OR id > :after)
ORDER BY id
LIMIT :limit_rows;

-- name: count()$
-- How many organizations are there.
SELECT count(*) FROM organization WHERE deleted_at IS NULL;

-- name: organizations(orgs, at)
-- Who they are, whether an admin has suspended them, and whether a subscription decides their status.
SELECT o.id, o.name, o.created_at, o.deleted_at, o.mirrored, o.shadow AND o.deleted_at IS NULL AS shadow,
    EXISTS (
        SELECT FROM subscription s
        WHERE s.org = o.id AND s.status NOT IN ('canceled', 'incomplete', 'incomplete_expired')
    ) AS follows_payments,
    coalesce((
        SELECT v.held FROM entitlement_override v
        WHERE v.org = o.id AND v.effective_from <= :at
        ORDER BY v.effective_from DESC
        LIMIT 1
    ), false) AS suspended
FROM organization o
WHERE o.id = ANY(:orgs::text[])
ORDER BY o.id;

-- name: grants(orgs, at)
-- The grants that are in force.
SELECT org, id, meter, units, expires_at, reason FROM "grant"
WHERE org = ANY(:orgs::text[]) AND revoked_at IS NULL AND expires_at > :at
ORDER BY org, expires_at, id;

-- name: alerts(orgs)
-- The percentages that organizations have chosen.
SELECT org, percents FROM organization_alert WHERE org = ANY(:orgs::text[]);

-- name: keys(orgs, keys_max)
-- The first keys of each organization that were not revoked.
SELECT k.id, k.org, k.starts_with, k.last_four, k.name, k.environment, k.user_id, k.scopes, k.networks, k.quotas,
    k.rate_requests, k.rate_seconds, k.rate_burst, k.state, k.imported, k.created_at, k.expires_at, k.revoked_at,
    k.rolled_from, k.rolled_to, k.dropped_at, u.used_at
FROM unnest(:orgs::text[]) AS o (org)
CROSS JOIN LATERAL (
    SELECT * FROM api_key WHERE api_key.org = o.org AND api_key.state <> 'revoked' ORDER BY number DESC LIMIT :keys_max
) k
LEFT JOIN api_key_use u ON u.key_id = k.id;
