-- name: organizations(after, on_plan, limit_rows)
-- Organizations that have, or had, a plan; on_plan: those that have this one now. In the order of their ids.
SELECT o.id, o.name FROM organization o
WHERE o.deleted_at IS NULL AND o.id > :after AND EXISTS (
    SELECT 1 FROM entitlement e JOIN plan p ON p.id = e.plan_id
    WHERE e.org = o.id AND (:on_plan::text IS NULL OR (
        p.code = :on_plan AND e.effective_from <= now() AND (e.effective_to IS NULL OR e.effective_to > now())
    ))
)
ORDER BY o.id
LIMIT :limit_rows;

-- name: change_points(org, since, until)
-- When, inside of a time, what an organization may use became something else.
SELECT at FROM (
    SELECT effective_from AS at FROM entitlement WHERE org = :org
    UNION SELECT effective_to FROM entitlement WHERE org = :org
    UNION SELECT effective_from FROM entitlement_override WHERE org = :org
    UNION SELECT effective_from FROM overage_cap WHERE org = :org
    UNION SELECT created_at FROM "grant" WHERE org = :org
    UNION SELECT revoked_at FROM "grant" WHERE org = :org
) AS points
WHERE at > :since AND at < :until
ORDER BY at;

-- name: grants(org)
-- All grants of an organization, also those that are over.
SELECT id, meter, units, expires_at, created_at, revoked_at FROM "grant" WHERE org = :org ORDER BY expires_at, id;

-- name: recorded(org, since, until, limit_rows)
-- What was charged, in the order in which the ledger did.
SELECT occurred_at, stream_seq, request_id, kind, period_start, meter, units, overage, burnt, key_id, taken_at
FROM usage_event
WHERE org = :org AND occurred_at >= :since AND occurred_at < :until
ORDER BY occurred_at, stream_seq, meter
LIMIT :limit_rows;

-- name: refused(org, since, until, limit_rows)
-- What the ledger refused, as far as it is kept, in the order in which it did.
SELECT at, request_id, charges, key_id, said
FROM refusal
WHERE org = :org AND at >= :since AND at < :until AND NOT shadow
    AND said ->> 'is' IN ('exhausted', 'not_entitled', 'not_in_plan', 'rate_limited', 'concurrency_limited')
ORDER BY at, request_id
LIMIT :limit_rows;

-- name: states(org)
-- What the organization's subscriptions were, the oldest state first.
SELECT subscription, valid_from, valid_to, status, currency, plan, items, discounts
FROM subscription_history WHERE org = :org ORDER BY valid_from, subscription;

-- name: anchors(org)
-- From where the periods of its terms are counted, the oldest first.
SELECT effective_from, period_anchor, subscription FROM entitlement WHERE org = :org ORDER BY effective_from, id;

-- name: invoices(org, since, until)
-- Invoices of subscriptions that were made in a time, the oldest first.
SELECT id, number, subscription, status, billing_reason, currency, total_minor, created_at
FROM invoice_ref
WHERE org = :org AND subscription IS NOT NULL AND status <> 'draft' AND created_at >= :since AND created_at < :until
ORDER BY created_at, seq;

-- name: prices()
-- What the prices at Stripe stand for.
SELECT s.id, p.code, p.version, s.meter FROM stripe_price s JOIN plan p ON p.id = s.plan_id;

-- name: plans()
-- All versions of all plans, with what they include and cost; the newest version of each first.
SELECT p.code, p.version, p.name, p.policy, p.currency, p.archived_at, p.rate_requests, p.rate_seconds, p.rate_burst,
    p.concurrent_max,
    (
        SELECT coalesce(jsonb_object_agg(m.meter, jsonb_build_array(m.allowance, m.overage_max, m.overage_amount_minor,
            m.overage_units)), '{}')
        FROM plan_meter m WHERE m.plan_id = p.id
    ) AS meters,
    (
        SELECT coalesce(jsonb_object_agg(r.billing_interval, r.amount_minor), '{}') FROM plan_price r WHERE r.plan_id = p.id
    ) AS price_minor
FROM plan p
ORDER BY p.code, p.version DESC;

-- name: keys(org, ids)
-- The limits that these API keys have now.
SELECT id, quotas, rate_requests, rate_seconds, rate_burst FROM api_key WHERE org = :org AND id = ANY(:ids::text[]);

-- name: key_changes(org, ids)
-- What was changed of these API keys, the newest first, with what was before.
SELECT before ->> 'id' AS id, at, before FROM audit_journal
WHERE org = :org AND action = 'key.changed' AND before ->> 'id' = ANY(:ids::text[])
ORDER BY at DESC, audit_journal.id DESC;

-- name: key_windows(org, ids, seconds, starts, before)
-- What API keys used in windows of quotas of their own, from a window's start until that moment.
SELECT w.id, w.seconds, e.meter, sum(e.units)::bigint AS used
FROM unnest(:ids::text[], :seconds::bigint[], :starts::timestamptz[]) AS w (id, seconds, start)
JOIN usage_event e ON e.org = :org AND e.key_id = w.id AND e.taken_at >= w.start AND e.occurred_at >= w.start
    AND e.occurred_at < :before
GROUP BY w.id, w.seconds, e.meter;
