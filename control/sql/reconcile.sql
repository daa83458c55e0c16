-- Shards are given as PostgreSQL numbers them (control/region.py), and returned as the region's ledger does.

-- name: organizations(region, after, limit_rows)
-- Organizations that were ever published in a region, in the order of their ids.
SELECT org FROM publication_by_region
WHERE region = :region::smallint AND org > :after AND published_version > 0
ORDER BY org LIMIT :limit_rows;

-- name: quarantined(shard)$
-- Entries of the shard that were put aside.
SELECT count(*) FROM usage_quarantine WHERE shard = :shard;

-- name: differing_counters(org)
-- Counters that are not the sum of their events: those in the table, and what the archived days add up to.
WITH summed AS (
    SELECT s.org, s.period_start, s.meter, sum(s.used)::bigint AS used, sum(s.overage)::bigint AS overage,
        sum(s.burnt)::bigint AS burnt
    FROM (
        SELECT e.org, e.period_start, e.meter, e.units AS used, e.overage,
            (SELECT coalesce(sum(b.value::bigint), 0) FROM jsonb_each_text(e.burnt) AS b) AS burnt
        FROM usage_event e
        UNION ALL
        SELECT a.org, a.period_start, a.meter, a.used, a.overage, a.burnt FROM usage_archived_sum a
    ) AS s
    WHERE :org::text IS NULL OR s.org = :org
    GROUP BY s.org, s.period_start, s.meter
), counted AS (
    SELECT c.org, c.period_start, c.meter, c.used, c.overage, c.burnt
    FROM usage_counter c WHERE :org::text IS NULL OR c.org = :org
)
SELECT org, period_start, meter,
    coalesce(c.used, 0) AS used, coalesce(c.burnt, 0) AS burnt, coalesce(c.overage, 0) AS overage,
    coalesce(s.used, 0) AS events_used, coalesce(s.burnt, 0) AS events_burnt, coalesce(s.overage, 0) AS events_overage
FROM counted c FULL JOIN summed s USING (org, period_start, meter)
WHERE (coalesce(c.used, 0), coalesce(c.burnt, 0), coalesce(c.overage, 0))
    <> (coalesce(s.used, 0), coalesce(s.burnt, 0), coalesce(s.overage, 0))
ORDER BY org, period_start, meter;

-- name: differing_region_counters(org)
-- What regions other than number 0 have counted, where it is not the sum of their events: in periods of which no day is in
-- a file, since the sums of such days are of all regions.
WITH summed AS (
    SELECT e.shard / 100 AS region, e.org, e.period_start, e.meter, sum(e.units)::bigint AS used,
        sum(e.overage)::bigint AS overage,
        sum((SELECT coalesce(sum(b.value::bigint), 0) FROM jsonb_each_text(e.burnt) AS b))::bigint AS burnt
    FROM usage_event e
    WHERE e.shard >= 100 AND (:org::text IS NULL OR e.org = :org)
    GROUP BY 1, 2, 3, 4
), counted AS (
    SELECT c.region::integer AS region, c.org, c.period_start, c.meter, c.used, c.overage, c.burnt
    FROM region_usage c WHERE :org::text IS NULL OR c.org = :org
)
SELECT org, period_start, meter,
    coalesce(c.used, 0) AS used, coalesce(c.burnt, 0) AS burnt, coalesce(c.overage, 0) AS overage,
    coalesce(s.used, 0) AS events_used, coalesce(s.burnt, 0) AS events_burnt, coalesce(s.overage, 0) AS events_overage, region
FROM counted c FULL JOIN summed s USING (region, org, period_start, meter)
WHERE (coalesce(c.used, 0), coalesce(c.burnt, 0), coalesce(c.overage, 0))
    <> (coalesce(s.used, 0), coalesce(s.burnt, 0), coalesce(s.overage, 0))
    AND NOT EXISTS (
        SELECT FROM usage_archive a
        WHERE a.restored_at IS NULL AND a.day >= (period_start AT TIME ZONE 'UTC')::date
    )
ORDER BY region, org, period_start, meter;

-- name: count_counters(org)$
-- How many counters that were.
SELECT (SELECT count(*) FROM usage_counter c WHERE :org::text IS NULL OR c.org = :org)
    + (SELECT count(*) FROM region_usage c WHERE :org::text IS NULL OR c.org = :org);

-- name: differing_key_counters(org, since)
-- Hours of keys with quotas of their own that are not the sum of their events, since the last day that is in a file: a
-- correction stands in a later day than its take.
WITH compared AS (
    SELECT greatest(:since::timestamptz, (
        SELECT (max(day) + 2)::timestamp AT TIME ZONE 'UTC' FROM usage_archive WHERE restored_at IS NULL
    )) AS since
), summed AS (
    SELECT e.org, e.key_id, e.meter, e.period_start, date_trunc('hour', e.taken_at, 'UTC') AS hour,
        sum(e.units)::bigint AS used
    FROM usage_event e, compared
    WHERE e.occurred_at >= compared.since AND e.taken_at >= compared.since AND e.key_id IS NOT NULL
        AND (:org::text IS NULL OR e.org = :org)
    GROUP BY 1, 2, 3, 4, 5
), counted AS (
    SELECT c.org, c.key_id, c.meter, c.period_start, c.hour, c.used FROM key_counter c, compared
    WHERE c.hour >= compared.since AND (:org::text IS NULL OR c.org = :org)
)
SELECT org, key_id, meter, period_start, hour, coalesce(c.used, 0) AS used, coalesce(s.used, 0) AS events_used
FROM counted c FULL JOIN summed s USING (org, key_id, meter, period_start, hour)
WHERE coalesce(c.used, 0) <> coalesce(s.used, 0)
ORDER BY org, key_id, meter, period_start, hour;

-- name: count_key_counters(org)$
-- How many hours of keys there are.
SELECT count(*) FROM key_counter c WHERE :org::text IS NULL OR c.org = :org;

-- name: written_after(shard, stream_ms, since)
-- Organizations of a shard with events after a stream's end: Redis went back to a time before them.
SELECT DISTINCT org FROM usage_event
WHERE occurred_at >= :since AND shard = :shard AND stream_ms >= :stream_ms;

-- name: settled_since(shards, since, org, request_id, limit_rows)
-- Requests of these shards whose charge was corrected since then, those after `org` and `request_id`, in their order.
SELECT DISTINCT org, request_id FROM usage_event
WHERE occurred_at >= :since AND shard = ANY(:shards::smallint[]) AND kind = 'settle'
    AND (org, request_id) > (:org::text, :request_id::text)
ORDER BY org, request_id LIMIT :limit_rows;

-- name: lock_recovery(region)$
-- Whether this control plane of the region has its turn, which lasts until the transaction ends.
SELECT pg_try_advisory_xact_lock(hashtext('quotagate.recovery') + :region::integer);

-- name: last_epochs(shards)
-- The newest of what was vouched for, of each shard that ever was.
SELECT s.shard % 100 AS shard, newest.epoch, newest.server
FROM unnest(:shards::integer[]) AS s (shard)
CROSS JOIN LATERAL (
    SELECT e.epoch, e.server FROM ledger_epoch e
    WHERE e.shards IS NULL AND s.shard < 100 OR s.shard = ANY(e.shards)
    ORDER BY e.epoch DESC LIMIT 1
) AS newest;

-- name: lock_epochs()$
-- Recoveries of several regions draw epochs one after the other, each in its transaction.
SELECT pg_advisory_xact_lock(hashtext('quotagate.epoch'));

-- name: vouch(server, above, shards)$
-- The next epoch, which is above `above`, too: a database that was restored may know less than Redis and the gateways.
-- It is that of these shards; NULL: of all of region 0.
INSERT INTO ledger_epoch (epoch, server, vouched_at, shards)
SELECT greatest(coalesce(max(epoch), 0), :above) + 1, :server, clock_timestamp(), :shards::integer[] FROM ledger_epoch
RETURNING epoch;

-- name: ended_at(epoch, shards)$
-- When another server was vouched for than in this epoch, for any of these shards; NULL: nobody knows, or none was. The
-- database may lack epochs, since it was restored: then the next one that it has says nothing.
SELECT e.vouched_at FROM ledger_epoch e
WHERE e.epoch = (
    SELECT min(n.epoch) FROM ledger_epoch n
    WHERE n.epoch > :epoch::bigint
        AND (n.shards IS NULL AND 100 > ANY(:shards::integer[]) OR n.shards && :shards::integer[])
) AND e.epoch - :epoch::bigint = (
    SELECT count(*) FROM ledger_epoch b WHERE b.epoch > :epoch::bigint AND b.epoch <= e.epoch
);

-- name: published_since(region, since, after, limit_rows)
-- What a region's Redis should hold of organizations that were published there since then, in the order of their ids.
SELECT org, published_version FROM publication_by_region
WHERE region = :region::smallint AND org > :after AND published_version > 0
    AND (:since::timestamptz IS NULL OR published_at >= :since)
ORDER BY org LIMIT :limit_rows;

-- name: recorded(region, orgs, request_ids, since)
-- Of these requests in a region, those whose takes and corrections are in Postgres.
SELECT DISTINCT kind, request_id FROM usage_event
WHERE org = ANY(:orgs::text[]) AND occurred_at >= :since AND request_id = ANY(:request_ids::text[])
    AND shard / 100 = :region::integer;

-- name: written_since(region, since)
-- Organizations with events in a region since then.
SELECT DISTINCT org FROM usage_event WHERE occurred_at >= :since AND shard / 100 = :region::integer;
