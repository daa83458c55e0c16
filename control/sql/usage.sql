-- Shards are given as PostgreSQL numbers them (control/region.py), and returned as the region's ledger does.

-- name: create_watermarks(shards)!
-- A row for each shard, for the writers to lock. Those that are there stay.
INSERT INTO usage_watermark (shard, stream_ms, stream_seq, committed_at)
SELECT shard, 0, 0, now() FROM unnest(:shards::smallint[]) AS shard
ON CONFLICT (shard) DO NOTHING;

-- name: watermarks(region)
-- The last stream entry of each shard of a region that is written, and its fence.
SELECT shard % 100 AS shard, stream_ms, stream_seq, fence FROM usage_watermark
WHERE shard >= 100 * :region::integer AND shard < 100 * :region::integer + 100
ORDER BY shard;

-- name: lock_watermarks(shards)
-- The same for some shards, held until the transaction ends: only one writer at a time moves a shard on. Who hangs
-- while he holds them is ended by Postgres, so that another one can go on.
SELECT w.shard % 100 AS shard, stream_ms, stream_seq, fence
FROM usage_watermark w, (SELECT set_config('idle_in_transaction_session_timeout', '10s', true)) AS hangs_at_most
WHERE w.shard = ANY(:shards::smallint[])
ORDER BY w.shard
FOR UPDATE OF w;

-- name: lock_all_watermarks()
-- Those of all shards of all regions.
SELECT w.shard
FROM usage_watermark w, (SELECT set_config('idle_in_transaction_session_timeout', '10s', true)) AS hangs_at_most
ORDER BY w.shard
FOR UPDATE OF w;

-- name: raise_fences(shards)!
-- Of a recovery, once it has locked these: what writers read before is not written any more.
UPDATE usage_watermark SET fence = fence + 1 WHERE shard = ANY(:shards::smallint[]);

-- name: move_watermarks(shards, stream_ms, stream_seqs)!
-- In the transaction of the rows and counters that they speak of.
UPDATE usage_watermark w SET stream_ms = m.stream_ms, stream_seq = m.stream_seq, committed_at = clock_timestamp()
FROM unnest(:shards::smallint[], :stream_ms::bigint[], :stream_seqs::bigint[]) AS m (shard, stream_ms, stream_seq)
WHERE w.shard = m.shard;

-- name: add_usage(region, orgs, period_starts, meters, used, burnt, overage)
-- Moves the counters by what a batch of a region adds up to; those that are to be looked at for thresholds.
WITH of_region AS (
    INSERT INTO region_usage AS c (region, org, period_start, meter, used, burnt, overage)
    SELECT :region::smallint, k.* FROM unnest(:orgs::text[], :period_starts::timestamptz[], :meters::text[],
        :used::bigint[], :burnt::bigint[], :overage::bigint[]) AS k
    WHERE :region::smallint > 0
    ON CONFLICT (org, period_start, meter, region) DO UPDATE
    SET used = c.used + excluded.used, burnt = c.burnt + excluded.burnt, overage = c.overage + excluded.overage
), moved AS (
    INSERT INTO usage_counter AS c (org, period_start, meter, used, burnt, overage)
    SELECT * FROM unnest(:orgs::text[], :period_starts::timestamptz[], :meters::text[],
        :used::bigint[], :burnt::bigint[], :overage::bigint[])
    ON CONFLICT (org, period_start, meter) DO UPDATE
    SET used = c.used + excluded.used, burnt = c.burnt + excluded.burnt, overage = c.overage + excluded.overage
    RETURNING org, period_start, meter, used, notice_at
)
SELECT org, period_start, meter FROM moved WHERE used >= notice_at;

-- name: add_grant_usage(region, orgs, grant_ids, used)!
-- The same for grants.
WITH of_region AS (
    INSERT INTO region_grant_usage AS c (region, org, grant_id, used)
    SELECT :region::smallint, k.* FROM unnest(:orgs::text[], :grant_ids::text[], :used::bigint[]) AS k
    WHERE :region::smallint > 0
    ON CONFLICT (org, grant_id, region) DO UPDATE SET used = c.used + excluded.used
)
INSERT INTO grant_counter AS c (org, grant_id, used)
SELECT * FROM unnest(:orgs::text[], :grant_ids::text[], :used::bigint[])
ON CONFLICT (org, grant_id) DO UPDATE SET used = c.used + excluded.used;

-- name: quarantine(shard, stream_ms, stream_seq, entry, reason)*!
-- Puts a stream entry aside that is no usage event.
INSERT INTO usage_quarantine (shard, stream_ms, stream_seq, entry, reason, quarantined_at)
VALUES (:shard, :stream_ms, :stream_seq, :entry, :reason, clock_timestamp());

-- name: create_day(day)!
-- A partition of usage_event for a day; nothing where it is there.
SELECT create_usage_event_day(:day);

-- name: counters(region, orgs, shard, since)^
-- What a region has counted of organizations of one shard, in recent periods and of grants, and the entry of its stream
-- that this includes last: one statement, so that the three belong together.
SELECT w.stream_ms, w.stream_seq,
    (
        SELECT coalesce(jsonb_agg(jsonb_build_array(c.org, extract(epoch FROM c.period_start)::bigint, c.meter,
            c.used, c.burnt, c.overage)), '[]')
        FROM (
            SELECT org, period_start, meter, sum(used)::bigint AS used, sum(burnt)::bigint AS burnt,
                sum(overage)::bigint AS overage
            FROM usage_by_region
            WHERE region = :region::integer AND org = ANY(:orgs::text[]) AND period_start >= :since
            GROUP BY org, period_start, meter
        ) c
    ) AS usage,
    (
        SELECT coalesce(jsonb_agg(jsonb_build_array(g.org, g.grant_id, g.used)), '[]')
        FROM (
            SELECT org, grant_id, sum(used)::bigint AS used FROM grant_usage_by_region
            WHERE region = :region::integer AND org = ANY(:orgs::text[])
            GROUP BY org, grant_id
        ) g
    ) AS grant_used
FROM (SELECT 1) AS one
LEFT JOIN usage_watermark w ON w.shard = :shard;

-- name: counted_elsewhere(region, orgs, since)^
-- What all other regions have counted of organizations.
SELECT
    (
        SELECT coalesce(jsonb_agg(jsonb_build_array(c.org, extract(epoch FROM c.period_start)::bigint, c.meter,
            c.used, c.burnt, c.overage)), '[]')
        FROM (
            SELECT org, period_start, meter, sum(used)::bigint AS used, sum(burnt)::bigint AS burnt,
                sum(overage)::bigint AS overage
            FROM usage_by_region
            WHERE region <> :region::integer AND org = ANY(:orgs::text[]) AND period_start >= :since
            GROUP BY org, period_start, meter
        ) c
    ) AS usage,
    (
        SELECT coalesce(jsonb_agg(jsonb_build_array(g.org, g.grant_id, g.used)), '[]')
        FROM (
            SELECT org, grant_id, sum(used)::bigint AS used FROM grant_usage_by_region
            WHERE region <> :region::integer AND org = ANY(:orgs::text[])
            GROUP BY org, grant_id
        ) g
    ) AS grant_used;

-- name: add_key_usage(region, orgs, key_ids, meters, period_starts, hours, used)!
-- The same for keys with quotas of their own.
WITH of_region AS (
    INSERT INTO region_key_usage AS c (region, org, key_id, meter, period_start, hour, used)
    SELECT :region::smallint, k.* FROM unnest(:orgs::text[], :key_ids::text[], :meters::text[],
        :period_starts::timestamptz[], :hours::timestamptz[], :used::bigint[]) AS k
    WHERE :region::smallint > 0
    ON CONFLICT (org, key_id, meter, period_start, hour, region) DO UPDATE SET used = c.used + excluded.used
)
INSERT INTO key_counter AS c (org, key_id, meter, period_start, hour, used)
SELECT * FROM unnest(:orgs::text[], :key_ids::text[], :meters::text[], :period_starts::timestamptz[],
    :hours::timestamptz[], :used::bigint[])
ON CONFLICT (org, key_id, meter, period_start, hour) DO UPDATE SET used = c.used + excluded.used;

-- name: drop_key_usage(before)!
-- Hours that no window and no period can hold any more.
WITH of_regions AS (
    DELETE FROM region_key_usage WHERE hour < :before
)
DELETE FROM key_counter WHERE hour < :before;

-- name: node_usage(region, orgs, key_ids, meters, window_seconds, starts)
-- What keys with quotas of their own have used in these windows in a region, by the moment of the take. Of 0 seconds: in the
-- organization's period that begins then. Only the hours at both ends of a window that is not of whole hours are added up
-- from the events; is_exact: these events are all here, and none of them in a file.
SELECT q.org, q.key_id, q.meter, q.window_seconds, extract(epoch FROM q.start)::bigint AS start,
    CASE WHEN q.window_seconds = 0 THEN coalesce((
        SELECT sum(c.used) FROM key_usage_by_region c
        WHERE c.region = :region::integer AND c.org = q.org AND c.key_id = q.key_id AND c.meter = q.meter
            AND c.period_start = q.start
    ), 0) ELSE coalesce((
        SELECT sum(c.used) FROM key_usage_by_region c
        WHERE c.region = :region::integer AND c.org = q.org AND c.key_id = q.key_id AND c.meter = q.meter
            AND c.hour >= q.first AND c.hour < q.last
    ), 0) + coalesce((
        SELECT sum(e.units) FROM usage_event e
        WHERE e.org = q.org AND e.key_id = q.key_id AND e.meter = q.meter AND e.shard / 100 = :region::integer
            AND e.taken_at >= q.start
            AND e.taken_at < least(q.first, q.ends)
    ), 0) + coalesce((
        SELECT sum(e.units) FROM usage_event e
        WHERE e.org = q.org AND e.key_id = q.key_id AND e.meter = q.meter AND e.shard / 100 = :region::integer
            AND e.taken_at >= q.last
            AND e.taken_at < q.ends AND q.last >= q.first
    ), 0) END::bigint AS used,
    q.window_seconds = 0 OR q.first = q.start OR NOT EXISTS (
        SELECT FROM usage_archive a WHERE a.restored_at IS NULL AND a.day = (q.start AT TIME ZONE 'UTC')::date
    ) AS is_exact
FROM (
    SELECT w.*, w.start + w.window_seconds * interval '1 second' AS ends,
        date_trunc('hour', w.start + interval '3599 seconds', 'UTC') AS first,
        date_trunc('hour', w.start + w.window_seconds * interval '1 second', 'UTC') AS last
    FROM unnest(:orgs::text[], :key_ids::text[], :meters::text[], :window_seconds::integer[], :starts::timestamptz[])
        AS w (org, key_id, meter, window_seconds, start)
) AS q;

-- name: buckets_by(org, by_key, bucket, since, until, meter, limit_groups)
-- The same as `buckets`, apart for each key, or for each user: those who used the most. NULL: usage without one.
WITH found AS (
    SELECT CASE WHEN :by_key::boolean THEN key_id ELSE user_id END AS principal, meter,
        date_trunc(:bucket::text, occurred_at, 'UTC') AS start, sum(units) AS units, sum(overage) AS overage,
        sum(CASE WHEN burnt IS NULL THEN 0
            ELSE (SELECT sum(b.units::bigint) FROM jsonb_each_text(burnt) AS b (grant_id, units)) END) AS burnt,
        count(*) AS events
    FROM usage_event
    WHERE org = :org AND occurred_at >= :since AND occurred_at < :until AND (:meter::text IS NULL OR meter = :meter)
    GROUP BY 1, 2, 3
    UNION ALL
    SELECT nullif(CASE WHEN :by_key::boolean THEN key_id ELSE user_id END, ''), meter,
        date_trunc(:bucket::text, day::timestamp AT TIME ZONE 'UTC', 'UTC'), used, overage, burnt, NULL
    FROM usage_archived_sum
    WHERE org = :org AND :bucket::text <> 'hour' AND (:meter::text IS NULL OR meter = :meter)
        AND day::timestamp AT TIME ZONE 'UTC' >= :since AND (day + 1)::timestamp AT TIME ZONE 'UTC' <= :until
), most AS (
    SELECT principal, sum(units) AS total FROM found
    GROUP BY 1
    ORDER BY 2 DESC, 1
    LIMIT :limit_groups
)
SELECT f.principal, f.meter, f.start, sum(f.units)::bigint AS units, sum(f.overage)::bigint AS overage,
    sum(f.burnt)::bigint AS burnt,
    CASE WHEN bool_and(f.events IS NOT NULL) THEN sum(f.events)::bigint END AS events
FROM found f JOIN most ON most.principal IS NOT DISTINCT FROM f.principal
GROUP BY most.total, f.principal, f.meter, f.start
ORDER BY most.total DESC, f.principal, f.meter, f.start;

-- name: buckets(org, bucket, since, until, meter)
-- What an organization used in each hour, day or month (UTC) of a time, by meter. Of days that are in files the sums are
-- here, by day and without the number of events; hours of them are not.
SELECT meter, start, sum(units)::bigint AS units, sum(overage)::bigint AS overage, sum(burnt)::bigint AS burnt,
    CASE WHEN bool_and(events IS NOT NULL) THEN sum(events)::bigint END AS events
FROM (
    SELECT meter, date_trunc(:bucket::text, occurred_at, 'UTC') AS start, sum(units) AS units, sum(overage) AS overage,
        sum(CASE WHEN burnt IS NULL THEN 0
            ELSE (SELECT sum(b.units::bigint) FROM jsonb_each_text(burnt) AS b (grant_id, units)) END) AS burnt,
        count(*) AS events
    FROM usage_event
    WHERE org = :org AND occurred_at >= :since AND occurred_at < :until AND (:meter::text IS NULL OR meter = :meter)
    GROUP BY 1, 2
    UNION ALL
    SELECT meter, date_trunc(:bucket::text, day::timestamp AT TIME ZONE 'UTC', 'UTC'), used, overage, burnt, NULL
    FROM usage_archived_sum
    WHERE org = :org AND :bucket::text <> 'hour' AND (:meter::text IS NULL OR meter = :meter)
        AND day::timestamp AT TIME ZONE 'UTC' >= :since AND (day + 1)::timestamp AT TIME ZONE 'UTC' <= :until
) AS found
GROUP BY 1, 2
ORDER BY 1, 2;
