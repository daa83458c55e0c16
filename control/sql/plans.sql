-- name: lock_catalogue()$
-- Two that apply a catalogue at once take turns, until the transaction ends.
SELECT pg_advisory_xact_lock(hashtext('quotagate.catalogue'));

-- name: newest()
-- The newest version of every plan that ever was, the archived ones too.
SELECT p.id, p.code, p.version, p.name, p.policy, p.currency, p.rate_requests, p.rate_seconds, p.rate_burst,
    p.concurrent_max, p.contact, p.demo, p.archived_at,
    (
        SELECT coalesce(jsonb_object_agg(m.meter, jsonb_build_object('allowance', m.allowance,
            'overage_max', m.overage_max, 'overage', CASE WHEN m.overage_units IS NULL THEN NULL ELSE
                jsonb_build_object('amount_minor', m.overage_amount_minor, 'units', m.overage_units) END)), '{}')
        FROM plan_meter m WHERE m.plan_id = p.id
    ) AS meters,
    (
        SELECT coalesce(jsonb_object_agg(r.billing_interval, r.amount_minor), '{}')
        FROM plan_price r WHERE r.plan_id = p.id
    ) AS price_minor
FROM plan p
WHERE p.superseded_at IS NULL
ORDER BY p.code;

-- name: newest_of(code)^
-- The version of a plan that an organization is given now.
SELECT id, code, version, archived_at FROM plan WHERE code = :code AND superseded_at IS NULL;

-- name: version_of(code, version)^
-- One version of a plan.
SELECT id, code, version, archived_at FROM plan WHERE code = :code AND version = :version;

-- name: insert_plan(id, code, version, name, policy, currency, rate_requests, rate_seconds, rate_burst, concurrent_max, contact, demo, created_at)!
-- A new plan, or a new version of one.
INSERT INTO plan (id, code, version, name, policy, currency, rate_requests, rate_seconds, rate_burst,
    concurrent_max, contact, demo, created_at)
VALUES (:id, :code, :version, :name, :policy, :currency, :rate_requests, :rate_seconds, :rate_burst,
    :concurrent_max, :contact, :demo, :created_at);

-- name: insert_plan_meter(plan_id, meter, allowance, overage_max, overage_amount_minor, overage_units)*!
-- What a plan version includes.
INSERT INTO plan_meter (plan_id, meter, allowance, overage_max, overage_amount_minor, overage_units)
VALUES (:plan_id, :meter, :allowance, :overage_max, :overage_amount_minor, :overage_units);

-- name: insert_plan_price(plan_id, billing_interval, amount_minor)*!
-- What a plan version costs.
INSERT INTO plan_price (plan_id, billing_interval, amount_minor)
VALUES (:plan_id, :billing_interval, :amount_minor);

-- name: supersede(id, at)!
-- A newer version takes over.
UPDATE plan SET superseded_at = :at WHERE id = :id;

-- name: set_archived(id, at)!
-- The plan left the catalogue at that time, or (NULL) is back in it.
UPDATE plan SET archived_at = :at WHERE id = :id;

-- name: lock_outdated_organizations(at, limit_rows)
-- Organizations on a superseded version, held until the transaction ends. Those that pay for it by a subscription stay:
-- what they bought is what they get.
SELECT o.id FROM organization o
WHERE o.id IN (
    SELECT e.org FROM plan p JOIN entitlement e ON e.plan_id = p.id
    WHERE p.superseded_at IS NOT NULL AND e.subscription IS NULL AND (e.effective_to IS NULL OR e.effective_to > :at)
)
ORDER BY o.id
LIMIT :limit_rows
FOR UPDATE;

-- name: meters()
-- Every meter that a plan has or had.
SELECT DISTINCT meter FROM plan_meter ORDER BY meter;

-- name: count_outdated(at)$
-- How many organizations are on a superseded version, as `lock_outdated_organizations` finds them.
SELECT count(DISTINCT e.org) FROM plan p JOIN entitlement e ON e.plan_id = p.id
WHERE p.superseded_at IS NOT NULL AND e.subscription IS NULL AND (e.effective_to IS NULL OR e.effective_to > :at);

-- name: outdated_entitlements(orgs, at)
-- What these organizations hold on superseded versions, now or scheduled, and the version that takes its place.
-- Asked once the organizations are held: what was read before may have changed until then.
SELECT e.id, e.org, e.effective_to, old.code, old.version AS old_version,
    newest.id AS plan_id, newest.version
FROM entitlement e
JOIN plan old ON old.id = e.plan_id AND old.superseded_at IS NOT NULL
JOIN plan newest ON newest.code = old.code AND newest.superseded_at IS NULL
WHERE e.org = ANY(:orgs::text[]) AND e.subscription IS NULL AND (e.effective_to IS NULL OR e.effective_to > :at);

-- name: close_outdated(ids, at)!
-- These end now; scheduled ones end before they begin.
UPDATE entitlement SET effective_to = greatest(:at, effective_from) WHERE id = ANY(:ids::uuid[]);

-- name: insert_successors(old_ids, ids, plan_ids, effective_tos)!
-- The same terms on the newer plan version.
INSERT INTO entitlement (id, org, plan_id, status, period_anchor, period_every, period_unit, period_bounds,
    period_starts_at, effective_from, effective_to)
SELECT s.id, e.org, s.plan_id, e.status, e.period_anchor, e.period_every, e.period_unit,
    e.period_bounds, e.period_starts_at, e.effective_to, s.effective_to
FROM unnest(:old_ids::uuid[], :ids::uuid[], :plan_ids::uuid[], :effective_tos::timestamptz[])
    AS s (old_id, id, plan_id, effective_to)
JOIN entitlement e ON e.id = s.old_id;

-- name: bump_publications(orgs)!
-- Has the organizations derived and published anew.
UPDATE publication SET version = nextval('publication_version')
WHERE org = ANY(:orgs::text[]);
