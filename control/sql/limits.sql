-- name: watch(orgs, meters, period_starts, period_ends)!
-- Meters that have used all of their allowance.
INSERT INTO limit_watch (org, meter, period_start, period_end)
SELECT * FROM unnest(:orgs::text[], :meters::text[], :period_starts::timestamptz[], :period_ends::timestamptz[])
ON CONFLICT (org, meter, period_start) DO UPDATE SET looked_at = NULL;

-- name: due(before, limit_rows)
-- Watched meters that were not looked at since then, held until the transaction ends.
SELECT org, meter, period_start, period_end FROM limit_watch
WHERE looked_at IS NULL OR looked_at <= :before
ORDER BY looked_at NULLS FIRST, org, meter
LIMIT :limit_rows
FOR UPDATE SKIP LOCKED;

-- name: open_keys(kind, keys)
-- Of these keys, those with an open incident.
SELECT key FROM incident WHERE kind = :kind AND closed_at IS NULL AND key = ANY(:keys::text[]);

-- name: mark_looked_at(orgs, meters, period_starts, at)!
-- They were looked at.
UPDATE limit_watch w SET looked_at = :at
FROM unnest(:orgs::text[], :meters::text[], :period_starts::timestamptz[]) AS k (org, meter, period_start)
WHERE w.org = k.org AND w.meter = k.meter AND w.period_start = k.period_start;

-- name: unwatch(orgs, meters, period_starts)!
-- Their period is over.
DELETE FROM limit_watch w
USING unnest(:orgs::text[], :meters::text[], :period_starts::timestamptz[]) AS k (org, meter, period_start)
WHERE w.org = k.org AND w.meter = k.meter AND w.period_start = k.period_start;
