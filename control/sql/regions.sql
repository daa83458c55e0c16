-- name: lock_organizations(orgs)
-- Until the transaction ends, no other region of these organizations is answered. In the order of their names, so that two
-- regions never wait for each other. Those of which nothing was ever published are left out.
SELECT org FROM publication WHERE org = ANY(:orgs::text[]) ORDER BY org FOR NO KEY UPDATE;

-- name: now()$
-- The time by this database's clock.
SELECT extract(epoch FROM clock_timestamp())::float8;

-- name: leases(orgs)
-- What is reserved for each region of these organizations.
SELECT org, region, epoch, returns, number, reserved, drawn, waits FROM region_lease WHERE org = ANY(:orgs::text[]);

-- name: keep_leases(region, orgs, epochs, returns, numbers, reserved, drawn, waits, waiting, idle)!
-- What is reserved for a region from now on. `waiting`: seconds since 1970 until which it waits for units; 0: it does not.
INSERT INTO region_lease AS l (org, region, epoch, returns, number, reserved, drawn, waits, waits_until, idle, heard_at)
SELECT each.org, :region, each.epoch, each.returns, each.number, each.reserved, each.drawn, each.waits,
    CASE WHEN each.waiting > 0 THEN to_timestamp(each.waiting) END, each.idle, clock_timestamp()
FROM unnest(:orgs::text[], :epochs::bigint[], :returns::bigint[], :numbers::bigint[], :reserved::jsonb[], :drawn::jsonb[],
    :waits::jsonb[], :waiting::float8[], :idle::boolean[])
    AS each (org, epoch, returns, number, reserved, drawn, waits, waiting, idle)
ON CONFLICT (org, region) DO UPDATE
SET epoch = excluded.epoch, returns = excluded.returns, number = excluded.number, reserved = excluded.reserved,
    drawn = excluded.drawn, waits = excluded.waits, waits_until = excluded.waits_until, idle = excluded.idle,
    heard_at = excluded.heard_at;

-- name: waited_for(region, limit_rows)
-- Organizations of which this region holds units that it had not drawn, while another waits for some.
SELECT DISTINCT own.org FROM region_lease other JOIN region_lease own ON own.org = other.org AND own.region = :region
WHERE other.waits_until > clock_timestamp() AND other.region <> :region AND own.idle
ORDER BY own.org LIMIT :limit_rows;

-- name: hear(region)!
-- A control plane of this region is here.
INSERT INTO region_heard (region, heard_at) VALUES (:region, clock_timestamp())
ON CONFLICT (region) DO UPDATE SET heard_at = greatest(region_heard.heard_at, excluded.heard_at);

-- name: silent(seconds)
-- Regions that were here once, and not for so many seconds; how many that is.
SELECT region, extract(epoch FROM clock_timestamp() - heard_at)::float8 AS seconds FROM region_heard
WHERE heard_at < clock_timestamp() - make_interval(secs => :seconds::float8) ORDER BY region;
