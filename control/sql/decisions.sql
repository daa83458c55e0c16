-- name: keep_published(org, version, at, terms)!
-- What gateways decide by from then on, where it differs from what they decided by before.
INSERT INTO published_entitlement (org, version, published_at, terms)
SELECT :org, :version, :at, :terms::jsonb
WHERE (
    SELECT p.terms FROM published_entitlement p
    WHERE p.org = :org AND p.version <= :version
    ORDER BY p.version DESC
    LIMIT 1
) IS DISTINCT FROM :terms::jsonb
ON CONFLICT (org, version) DO NOTHING;

-- name: published_at(org, version, at)^
-- What gateways decided by at that moment, with that version if it is known.
SELECT version, published_at, terms FROM published_entitlement
WHERE org = :org AND version <= coalesce(:version::bigint, version)
    AND (:version::bigint IS NOT NULL OR published_at <= :at)
ORDER BY version DESC
LIMIT 1;

-- name: lock_source(source, gateway, at)^
-- How far a worker's batches are written, held until the transaction ends.
INSERT INTO refusal_source AS s (source, gateway, sequence, refused, seen_at)
VALUES (:source, :gateway, 0, 0, :at)
ON CONFLICT (source) DO UPDATE SET seen_at = excluded.seen_at
RETURNING sequence, refused;

-- name: move_source(source, sequence, refused)!
-- In the transaction of what the batch holds.
UPDATE refusal_source SET sequence = :sequence, refused = :refused WHERE source = :source;

-- name: insert_refusals(at, request_id, correlation, org, key_id, user_id, route, method, status, verdict, shadow, detail, charges, version, limits, said, gateway)*!
-- Refused requests; one that is there already stays.
INSERT INTO refusal (at, request_id, correlation, org, key_id, user_id, route, method, status, verdict, shadow, detail,
    charges, version, limits, said, gateway)
VALUES (:at, :request_id, :correlation, :org, :key_id, :user_id, :route, :method, :status, :verdict, :shadow, :detail,
    :charges, :version, :limits, :said, :gateway)
ON CONFLICT (at, request_id) DO NOTHING;

-- name: count_refusals(minute, orgs, refused, kept)!
-- How many there were, kept or not.
INSERT INTO refusal_count AS c (minute, org, refused, kept)
SELECT :minute, * FROM unnest(:orgs::text[], :refused::bigint[], :kept::bigint[])
ON CONFLICT (minute, org) DO UPDATE SET refused = c.refused + excluded.refused, kept = c.kept + excluded.kept;

-- name: create_day(day)!
-- A partition of refusal for a day; nothing where it is there.
SELECT create_refusal_day(:day);

-- name: drop_days(before)$
-- Days that are kept no longer; how many.
SELECT drop_refusal_days(:before);

-- name: drop_old(before)!
-- What is about those days, and was in no partition.
WITH counts AS (DELETE FROM refusal_count WHERE minute < :before),
    sources AS (DELETE FROM refusal_source WHERE seen_at < :before)
DELETE FROM refusal WHERE at < :before;

-- name: find_refusals(request_id, org, limit_rows)
-- Refusals by an id, ours or the client's own; the newest first. NULL: of whatever organization.
SELECT at, request_id, correlation, org, key_id, user_id, route, method, status, verdict, shadow, detail, charges, version,
    limits, said, gateway
FROM refusal
WHERE (request_id = :request_id OR correlation = :request_id) AND (:org::text IS NULL OR org = :org)
ORDER BY at DESC, request_id DESC
LIMIT :limit_rows;

-- name: page(org, verdict, key_id, user_id, route, since, until, before_at, before_id, limit_rows)
-- One page of refusals, the newest first.
SELECT at, request_id, correlation, org, key_id, user_id, route, method, status, verdict, shadow, detail, charges, version,
    limits, said, gateway
FROM refusal
WHERE (:org::text IS NULL OR org = :org)
    AND (:verdict::text IS NULL OR verdict = :verdict)
    AND (:key_id::text IS NULL OR key_id = :key_id)
    AND (:user_id::text IS NULL OR user_id = :user_id)
    AND (:route::text IS NULL OR route = :route)
    AND (:since::timestamptz IS NULL OR at >= :since)
    AND (:until::timestamptz IS NULL OR at < :until)
    AND (:before_at::timestamptz IS NULL OR (at, request_id) < (:before_at, :before_id::text))
ORDER BY at DESC, request_id DESC
LIMIT :limit_rows;

-- name: counted(org, since, until)^
-- How many were refused in a time, and how many of them are kept. NULL: of all organizations.
SELECT coalesce(sum(refused), 0)::bigint AS refused, coalesce(sum(kept), 0)::bigint AS kept
FROM refusal_count
WHERE (:org::text IS NULL OR org = :org) AND minute >= :since AND minute < :until;

-- name: events_of(request_id, org, limit_rows)
-- The charge of a request, and its correction. NULL: of whatever organization.
SELECT org, occurred_at, stream_seq, stream_ms, meter, kind, request_id, period_start, units, overage, burnt, key_id,
    user_id, taken_at
FROM usage_event
WHERE request_id = :request_id AND (:org::text IS NULL OR org = :org)
ORDER BY occurred_at, stream_seq, meter
LIMIT :limit_rows;

-- name: events_from(org, from_at, until_at, limit_rows)
-- The events of an organization of a moment, in their order.
SELECT org, occurred_at, stream_seq, stream_ms, meter, kind, request_id, period_start, units, overage, burnt, key_id,
    user_id, taken_at
FROM usage_event
WHERE org = :org AND occurred_at >= :from_at AND occurred_at < :until_at
ORDER BY occurred_at, stream_seq, meter
LIMIT :limit_rows;

-- name: usage_before(org, period_start, at)
-- The counters of a period as they were before a moment: what they are now, less what came since.
SELECT c.meter, (c.used - coalesce(s.units, 0))::bigint AS used, (c.burnt - coalesce(s.burnt, 0))::bigint AS burnt,
    (c.overage - coalesce(s.overage, 0))::bigint AS overage
FROM usage_counter c
LEFT JOIN (
    SELECT meter, sum(units) AS units, sum(overage) AS overage,
        sum(CASE WHEN burnt IS NULL THEN 0
            ELSE (SELECT sum(b.units::bigint) FROM jsonb_each_text(burnt) AS b (grant_id, units)) END) AS burnt
    FROM usage_event
    WHERE org = :org AND occurred_at >= :at AND period_start = :period_start
    GROUP BY meter
) s ON s.meter = c.meter
WHERE c.org = :org AND c.period_start = :period_start
ORDER BY c.meter;

-- name: grants_before(org, at)
-- The same of grants.
SELECT g.grant_id, (g.used - coalesce(s.burnt, 0))::bigint AS used
FROM grant_counter g
LEFT JOIN (
    SELECT b.grant_id, sum(b.units::bigint) AS burnt
    FROM usage_event e, jsonb_each_text(e.burnt) AS b (grant_id, units)
    WHERE e.org = :org AND e.occurred_at >= :at AND e.burnt IS NOT NULL
    GROUP BY b.grant_id
) s ON s.grant_id = g.grant_id
WHERE g.org = :org
ORDER BY g.grant_id;

-- name: key_usage_before(org, key_id, from_at, before)
-- What a key with quotas of its own was charged within a window, and corrected, before a moment.
SELECT meter, sum(units)::bigint AS used FROM usage_event
WHERE org = :org AND key_id = :key_id AND taken_at >= :from_at AND occurred_at >= :from_at AND occurred_at < :before
GROUP BY meter
ORDER BY meter;

-- name: is_written(shard, ms)$
-- Whether all events of a shard before that time are in the database.
SELECT coalesce((SELECT w.stream_ms >= :ms FROM usage_watermark w WHERE w.shard = :shard), false);

-- name: key_digest(org, key_id)^
-- By what Redis knows a key, and whether its text is of our form.
SELECT substring(digest FROM 1 FOR 16) AS digest, imported FROM api_key WHERE org = :org AND id = :key_id;
