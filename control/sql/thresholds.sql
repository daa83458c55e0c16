-- name: terms(orgs, period_starts, meters, at)
-- What counters stand at, with the terms that were in force in their periods until now, the newest first; one row with
-- no terms where there were none.
SELECT k.n - 1 AS n, c.used, e.period_anchor, e.period_every, e.period_unit,
    e.period_bounds, e.period_starts_at, laid.effective_from,
    coalesce(a.percents, '{}') AS own_percents,
    coalesce((laid.allowances ->> k.meter)::bigint, (e.prorated ->> k.meter)::bigint, m.allowance * e.quantity, 0) AS allowance
FROM unnest(:orgs::text[], :period_starts::timestamptz[], :meters::text[])
    WITH ORDINALITY AS k (org, period_start, meter, n)
JOIN usage_counter c ON c.org = k.org AND c.period_start = k.period_start AND c.meter = k.meter
LEFT JOIN organization_alert a ON a.org = k.org
LEFT JOIN entitlement e ON e.org = k.org AND e.effective_from <= :at
    AND (e.effective_to IS NULL OR e.effective_to > k.period_start)
LEFT JOIN LATERAL (  -- what was laid over them: nothing at first, then one after the other
    SELECT greatest(e.effective_from, v.effective_from) AS effective_from, v.allowances
    FROM (
        SELECT o.effective_from, o.allowances,
            coalesce(lead(o.effective_from) OVER (ORDER BY o.effective_from), 'infinity') AS effective_to
        FROM (
            SELECT '-infinity'::timestamptz AS effective_from, '{}'::jsonb AS allowances
            UNION ALL
            SELECT r.effective_from, r.allowances FROM entitlement_override r WHERE r.org = e.org
        ) o
    ) v
    WHERE v.effective_from <= :at AND v.effective_from < coalesce(e.effective_to, 'infinity')
        AND v.effective_to > e.effective_from
) laid ON true
LEFT JOIN plan_meter m ON m.plan_id = e.plan_id AND m.meter = k.meter
ORDER BY k.n, laid.effective_from DESC, e.id DESC;

-- name: reach(orgs, meters, period_starts, percents, allowances, used, at)
-- Thresholds that are reached; those that were reached before in the period are left as they are, and not returned.
INSERT INTO threshold_event (org, meter, period_start, percent, allowance, used, reached_at)
SELECT r.*, :at FROM unnest(:orgs::text[], :meters::text[], :period_starts::timestamptz[], :percents::integer[],
    :allowances::bigint[], :used::bigint[]) AS r
ON CONFLICT DO NOTHING
RETURNING org, meter, period_start, percent;

-- name: move_notices(orgs, period_starts, meters, notice_at)!
-- From where on counters are looked at again.
UPDATE usage_counter c SET notice_at = k.notice_at
FROM unnest(:orgs::text[], :period_starts::timestamptz[], :meters::text[], :notice_at::bigint[])
    AS k (org, period_start, meter, notice_at)
WHERE c.org = k.org AND c.period_start = k.period_start AND c.meter = k.meter AND c.notice_at <> k.notice_at;

-- name: due_reviews(at, limit_rows)
-- Organizations whose terms were replaced, held until the transaction ends.
SELECT id, org FROM threshold_review
WHERE from_at <= :at
ORDER BY from_at, id
LIMIT :limit_rows
FOR UPDATE SKIP LOCKED;

-- name: counters(orgs, since)
-- Counters of organizations that may be of a period that is not over.
SELECT org, period_start, meter FROM usage_counter
WHERE org = ANY(:orgs::text[]) AND period_start > :since
ORDER BY org, period_start, meter;

-- name: end_reviews(ids)!
-- They were looked at.
DELETE FROM threshold_review WHERE id = ANY(:ids::bigint[]);

-- name: alerts(org)$
-- The percentages that an organization has chosen itself; nothing where it has never chosen any.
SELECT percents FROM organization_alert WHERE org = :org;

-- name: set_alerts(org, percents)!
-- Chooses others.
INSERT INTO organization_alert (org, percents) VALUES (:org, :percents::integer[])
ON CONFLICT (org) DO UPDATE SET percents = excluded.percents;

-- name: review(org, at)!
-- Its counters are looked at again: their next notice was computed from other percentages.
INSERT INTO threshold_review (org, from_at) VALUES (:org, :at);

-- name: reached_last(org, limit_rows)
-- The thresholds that an organization reached last.
SELECT meter, period_start, percent, allowance, used, reached_at FROM threshold_event
WHERE org = :org
ORDER BY reached_at DESC, meter, percent DESC
LIMIT :limit_rows;
