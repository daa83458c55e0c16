-- name: states(orgs, at)
-- All that `derive` needs of organizations, in one statement and so of one moment.
SELECT o.id, o.name,
    coalesce(p.version, 0) AS version,
    coalesce(p.entitled, false) AS entitled,
    p.renew_at,
    o.shadow AND o.deleted_at IS NULL AS shadow,
    e.*,
    laid.policy, coalesce(laid.allowances, '{}') AS allowances, coalesce(laid.overage_max, '{}') AS overage_max,
    laid.rate_requests, laid.rate_seconds, laid.rate_burst, laid.concurrent_max, coalesce(laid.held, false) AS held,
    least(e.effective_to, (
        SELECT min(later.effective_from) FROM entitlement later
        WHERE later.org = o.id AND later.effective_from > :at
    ), (
        SELECT min(later.effective_from) FROM entitlement_override later
        WHERE later.org = o.id AND later.effective_from > :at
    )) AS next_change_at,
    (
        SELECT coalesce(jsonb_agg(jsonb_build_array(g.id, g.meter, g.units, extract(epoch FROM g.expires_at)::bigint)
            ORDER BY g.expires_at, g.id), '[]')
        FROM "grant" g WHERE g.org = o.id AND g.revoked_at IS NULL AND g.expires_at > :at
    ) AS grants,
    (
        SELECT coalesce(jsonb_object_agg(c.meter, c.units) FILTER (WHERE c.units IS NOT NULL), '{}')
        FROM (
            SELECT DISTINCT ON (cap.meter) cap.meter, cap.units FROM overage_cap cap
            WHERE cap.org = o.id AND cap.effective_from <= :at
            ORDER BY cap.meter, cap.effective_from DESC
        ) c
    ) AS caps
FROM organization o
LEFT JOIN publication p ON p.org = o.id
LEFT JOIN LATERAL (
    SELECT e.id AS entitlement_id, e.status,
        e.period_anchor, e.period_every, e.period_unit, e.period_bounds, e.period_starts_at,
        e.effective_from, e.effective_to, e.subscription, e.quantity, e.prorated,
        plan.code AS plan_code, plan.version AS plan_version, plan.name AS plan_name, plan.policy AS plan_policy,
        plan.rate_requests AS plan_rate_requests, plan.rate_seconds AS plan_rate_seconds,
        plan.rate_burst AS plan_rate_burst, plan.concurrent_max AS plan_concurrent_max,
        (
            SELECT coalesce(jsonb_agg(jsonb_build_array(m.meter, m.allowance, m.overage_max) ORDER BY m.meter), '[]')
            FROM plan_meter m WHERE m.plan_id = plan.id
        ) AS plan_meters
    FROM entitlement e JOIN plan ON plan.id = e.plan_id
    WHERE e.org = o.id AND e.effective_from <= :at AND (e.effective_to IS NULL OR e.effective_to > :at)
    ORDER BY e.effective_from DESC, e.id DESC
    LIMIT 1
) e ON true
LEFT JOIN LATERAL (
    SELECT v.* FROM entitlement_override v
    WHERE v.org = o.id AND v.effective_from <= :at
    ORDER BY v.effective_from DESC
    LIMIT 1
) laid ON true
WHERE o.id = ANY(:orgs::text[]);

-- name: close_entitlement(org, at)^
-- Ends the entitlement in force and returns when it would have ended by itself, for its successor to end then.
WITH in_force AS (
    SELECT id, effective_to FROM entitlement
    WHERE org = :org AND effective_from <= :at
        AND (effective_to IS NULL OR effective_to > :at)
    ORDER BY effective_from DESC, id DESC
    LIMIT 1
)
UPDATE entitlement SET effective_to = :at
FROM in_force WHERE entitlement.id = in_force.id
RETURNING in_force.effective_to;

-- name: drop_scheduled(org, at)!
-- Entitlements that never came into force leave no history behind; the journal has who had scheduled them.
DELETE FROM entitlement WHERE org = :org AND effective_from > :at;

-- name: insert_entitlement(id, org, plan_id, status, period_anchor, period_every, period_unit, period_bounds, period_starts_at, effective_from, effective_to, subscription, quantity, prorated)!
-- A new entry of the organization's history.
INSERT INTO entitlement (id, org, plan_id, status, period_anchor, period_every, period_unit, period_bounds,
    period_starts_at, effective_from, effective_to, subscription, quantity, prorated)
VALUES (:id, :org, :plan_id, :status, :period_anchor, :period_every, :period_unit, :period_bounds,
    :period_starts_at, :effective_from, :effective_to, :subscription, :quantity, :prorated);

-- name: timeline(org, at)
-- The entitlement in force and those that are scheduled, in their order.
SELECT e.id, e.plan_id, e.status, e.period_anchor, e.period_every, e.period_unit, e.period_bounds, e.period_starts_at,
    e.effective_from, e.effective_to, e.subscription, e.quantity, e.prorated,
    plan.code AS plan_code, plan.version AS plan_version
FROM entitlement e JOIN plan ON plan.id = e.plan_id
WHERE e.org = :org AND (e.effective_to IS NULL OR e.effective_to > :at)
ORDER BY e.effective_from, e.id;

-- name: end_at(id, at)!
-- When an entitlement ends; NULL: not by itself.
UPDATE entitlement SET effective_to = :at WHERE id = :id;

-- name: set_overrides(org, at, policy, allowances, overage_max, rate_requests, rate_seconds, rate_burst, concurrent_max, held)!
-- What an admin lays over the organization's terms from then on, whatever these are and become.
INSERT INTO entitlement_override (org, effective_from, policy, allowances, overage_max, rate_requests, rate_seconds,
    rate_burst, concurrent_max, held)
VALUES (:org, :at, :policy, :allowances, :overage_max, :rate_requests, :rate_seconds, :rate_burst, :concurrent_max,
    :held)
ON CONFLICT (org, effective_from) DO UPDATE SET policy = excluded.policy, allowances = excluded.allowances,
    overage_max = excluded.overage_max, rate_requests = excluded.rate_requests, rate_seconds = excluded.rate_seconds,
    rate_burst = excluded.rate_burst, concurrent_max = excluded.concurrent_max, held = excluded.held;

-- name: is_admin_suspended(org, at)$
-- Whether an admin has suspended the organization.
SELECT coalesce((
    SELECT v.held FROM entitlement_override v
    WHERE v.org = :org AND v.effective_from <= :at
    ORDER BY v.effective_from DESC
    LIMIT 1
), false);

-- name: set_admin_suspended(org, at, held)!
-- Suspends the organization from then on, or ends that; what else is laid over its terms stays, and what will be.
WITH later AS (
    UPDATE entitlement_override SET held = :held WHERE org = :org AND effective_from > :at
)
INSERT INTO entitlement_override (org, effective_from, policy, allowances, overage_max, rate_requests, rate_seconds,
    rate_burst, concurrent_max, held)
SELECT :org, :at, v.policy, coalesce(v.allowances, '{}'), coalesce(v.overage_max, '{}'), v.rate_requests,
    v.rate_seconds, v.rate_burst, v.concurrent_max, :held
FROM (SELECT) AS one
LEFT JOIN LATERAL (
    SELECT * FROM entitlement_override v
    WHERE v.org = :org AND v.effective_from <= :at
    ORDER BY v.effective_from DESC
    LIMIT 1
) v ON true
ON CONFLICT (org, effective_from) DO UPDATE SET held = excluded.held;

-- name: changes_ahead(org, at)
-- When what the organization has will be another.
SELECT effective_from AS at FROM entitlement WHERE org = :org AND effective_from > :at
UNION
SELECT effective_from FROM entitlement_override WHERE org = :org AND effective_from > :at
UNION
SELECT effective_to FROM entitlement WHERE org = :org AND effective_to > :at
ORDER BY at;

-- name: is_scheduled(org, at)$
-- Whether an admin has scheduled something.
SELECT EXISTS (SELECT FROM entitlement WHERE org = :org AND effective_from > :at AND subscription IS NULL)
    OR EXISTS (SELECT FROM entitlement_override WHERE org = :org AND effective_from > :at);

-- name: drop_scheduled_by_admin(org, at)!
-- As `drop_scheduled`, but what follows from a subscription stays.
DELETE FROM entitlement WHERE org = :org AND effective_from > :at AND subscription IS NULL;

-- name: keep_in_force(org, at)!
-- What an admin gave ends no more by itself, where what was to take its place is dropped.
UPDATE entitlement SET effective_to = NULL
WHERE org = :org AND subscription IS NULL AND effective_from <= :at AND effective_to > :at
    AND NOT EXISTS (SELECT FROM entitlement later WHERE later.org = :org AND later.effective_from > :at);

-- name: drop_overrides(org, at)!
-- The terms are the plan's own from then on. Who is suspended stays so, until an admin says otherwise.
INSERT INTO entitlement_override (org, effective_from, held)
SELECT v.org, :at, v.held FROM entitlement_override v
WHERE v.org = :org AND v.effective_from <= :at
ORDER BY v.effective_from DESC
LIMIT 1
ON CONFLICT (org, effective_from) DO UPDATE SET policy = NULL, allowances = '{}', overage_max = '{}',
    rate_requests = NULL, rate_seconds = NULL, rate_burst = NULL, concurrent_max = NULL, held = excluded.held;

-- name: drop_scheduled_overrides(org, at)!
-- What was to be laid over the terms later.
DELETE FROM entitlement_override WHERE org = :org AND effective_from > :at;

-- name: open_publication(org)$
-- Draws the version of a changed entitlement: from here on the organization waits to be published.
-- Drawn behind the row's lock, so that versions of one organization grow in the order of their commits.
INSERT INTO publication (org, version, traceparent)
VALUES (:org, nextval('publication_version'), nullif(current_setting('quotagate.traceparent', true), ''))
ON CONFLICT (org) DO UPDATE
SET version = nextval('publication_version'), entitled = true, traceparent = excluded.traceparent
RETURNING version;

-- name: bump_publication(org)$
-- The same for an organization that has an entitlement, or had one; of others nothing is published.
UPDATE publication SET version = nextval('publication_version'),
    traceparent = nullif(current_setting('quotagate.traceparent', true), '')
WHERE org = :org
RETURNING version;

-- name: bump_due(region, org, at)!
-- Draws a version for an organization whose periods need renewal where a region has published them, once for however many
-- find it due there. As where a version is drawn, the organization's row is locked before those of regions.
WITH locked AS MATERIALIZED (
    SELECT org FROM publication WHERE org = :org AND :region::smallint > 0 FOR UPDATE
), due AS (
    UPDATE region_publication r SET renew_at = NULL FROM locked
    WHERE r.region = :region::smallint AND r.org = locked.org AND r.renew_at <= :at
    RETURNING r.org
)
UPDATE publication SET version = nextval('publication_version'),
    renew_at = CASE WHEN :region::smallint > 0 THEN renew_at END
WHERE org = :org AND CASE WHEN :region::smallint > 0 THEN EXISTS (SELECT FROM due) ELSE renew_at <= :at END;

-- name: overtake(org, version)!
-- Draws a version above one that this database does not know: it has gone back to an older state, and Redis has not.
UPDATE publication p SET version = (
    SELECT max(nextval('publication_version')) FROM generate_series(0, greatest(1, :version::bigint - p.version))
)
WHERE p.org = :org AND p.version < :version::bigint;

-- name: mark_published(region, org, version, renew_at)!
-- The region's Redis holds this version, or a newer one, whose own publication writes here too. Not waited for the disk:
-- what a crash of Postgres forgets of it is published once more.
WITH of_region AS (
    INSERT INTO region_publication AS r (region, org, version, published_version, published_at, renew_at)
    SELECT :region::smallint, p.org, p.version, :version, clock_timestamp(), :renew_at FROM publication p
    WHERE p.org = :org AND :region::smallint > 0
    ON CONFLICT (region, org) DO UPDATE SET published_version = excluded.published_version,
        published_at = excluded.published_at, renew_at = excluded.renew_at
    WHERE r.published_version <= excluded.published_version
)
UPDATE publication SET published_version = :version, renew_at = :renew_at,
    published_at = clock_timestamp()
FROM (SELECT set_config('synchronous_commit', 'off', true)) AS lax
WHERE org = :org AND published_version <= :version AND :region::smallint = 0;

-- name: pending_publications(region, limit_rows)
-- Organizations whose change is not known to be in the region's Redis, the oldest change first, each with the trace of its
-- change.
SELECT org, traceparent FROM publication_by_region
WHERE region = :region::smallint AND version > published_version
ORDER BY version LIMIT :limit_rows;

-- name: due_publications(region, at, limit_rows)
-- Organizations whose periods that the region has published need renewal.
SELECT org FROM publication_by_region
WHERE region = :region::smallint AND renew_at <= :at
ORDER BY renew_at LIMIT :limit_rows;

-- name: add_regions(numbers, names)!
-- From here on changes wait to be published in each of these, too.
INSERT INTO region (number, name) SELECT * FROM unnest(:numbers::smallint[], :names::text[]) ON CONFLICT DO NOTHING;

-- name: regions()
-- All that were ever here.
SELECT number, name FROM region ORDER BY number;

-- name: allowances(plan_ids)
-- What plan versions include.
SELECT plan_id, meter, allowance FROM plan_meter WHERE plan_id = ANY(:plan_ids::uuid[]);
