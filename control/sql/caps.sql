-- name: latest(org)
-- The cap of each meter that ever had one, and what it was before the last change.
SELECT DISTINCT ON (meter) meter, units, effective_from, set_by, units_before
FROM overage_cap
WHERE org = :org
ORDER BY meter, effective_from DESC;

-- name: put(org, meter, at, units, set_by)!
-- Another cap from then on, or none. Never before the last one, however the clocks of two processes differ.
INSERT INTO overage_cap (org, meter, effective_from, units, units_before, set_by)
SELECT :org, :meter, greatest(:at, last.effective_from), :units, last.units, :set_by
FROM (SELECT) AS one
LEFT JOIN LATERAL (
    SELECT c.effective_from, c.units FROM overage_cap c
    WHERE c.org = :org AND c.meter = :meter
    ORDER BY c.effective_from DESC
    LIMIT 1
) last ON true
ON CONFLICT (org, meter, effective_from) DO UPDATE SET units = excluded.units, units_before = excluded.units_before,
    set_by = excluded.set_by;

-- name: prices(org, at)
-- What a unit beyond the allowance costs, by the plan that is in force.
SELECT m.meter, m.overage_amount_minor AS amount_minor, m.overage_units AS units, plan.currency
FROM entitlement e JOIN plan ON plan.id = e.plan_id JOIN plan_meter m ON m.plan_id = plan.id
WHERE e.org = :org AND e.effective_from <= :at AND (e.effective_to IS NULL OR e.effective_to > :at)
    AND m.overage_units IS NOT NULL
ORDER BY m.meter;
