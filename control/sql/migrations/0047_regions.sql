-- Several regions have a Redis each, and share this database (docs/decisions/0059). Shard s of region n is 100 n + s here.
-- All that is here already is of region 0. What follows is empty where there is one region.


-- Counters ------------------------------------------------------------------------------------------------------------

-- `usage_counter`, `grant_counter` and `key_counter` have the sums of all regions. Here is which part of them each region
-- has counted; that of region 0 is what remains.

CREATE TABLE region_usage (
    region       smallint NOT NULL CHECK (region > 0),
    org          text NOT NULL,
    period_start timestamptz NOT NULL,
    meter        text NOT NULL,
    used         bigint NOT NULL,
    burnt        bigint NOT NULL,
    overage      bigint NOT NULL,
    PRIMARY KEY (org, period_start, meter, region)
) WITH (fillfactor = 70);

CREATE TABLE region_grant_usage (
    region   smallint NOT NULL CHECK (region > 0),
    org      text NOT NULL,
    grant_id text NOT NULL,
    used     bigint NOT NULL,
    PRIMARY KEY (org, grant_id, region)
) WITH (fillfactor = 70);

CREATE TABLE region_key_usage (
    region       smallint NOT NULL CHECK (region > 0),
    org          text NOT NULL,
    key_id       text NOT NULL,
    meter        text NOT NULL,
    period_start timestamptz NOT NULL,
    hour         timestamptz NOT NULL,
    used         bigint NOT NULL,
    PRIMARY KEY (org, key_id, meter, period_start, hour, region)
) WITH (fillfactor = 70);
CREATE INDEX region_key_usage_hour ON region_key_usage USING brin (hour);

-- What adds up to the counters of each region.
CREATE VIEW usage_by_region AS
    SELECT 0::smallint AS region, org, period_start, meter, used, burnt, overage FROM usage_counter
    UNION ALL
    SELECT 0::smallint, org, period_start, meter, -used, -burnt, -overage FROM region_usage
    UNION ALL
    SELECT region, org, period_start, meter, used, burnt, overage FROM region_usage;

CREATE VIEW grant_usage_by_region AS
    SELECT 0::smallint AS region, org, grant_id, used FROM grant_counter
    UNION ALL
    SELECT 0::smallint, org, grant_id, -used FROM region_grant_usage
    UNION ALL
    SELECT region, org, grant_id, used FROM region_grant_usage;

CREATE VIEW key_usage_by_region AS
    SELECT 0::smallint AS region, org, key_id, meter, period_start, hour, used FROM key_counter
    UNION ALL
    SELECT 0::smallint, org, key_id, meter, period_start, hour, -used FROM region_key_usage
    UNION ALL
    SELECT region, org, key_id, meter, period_start, hour, used FROM region_key_usage;


-- Publication ---------------------------------------------------------------------------------------------------------

CREATE TABLE region (
    number     smallint PRIMARY KEY,
    name       text NOT NULL UNIQUE,
    checks_ms  bigint NOT NULL DEFAULT 0,   -- as `check_time_position`, of a region other than number 0
    checks_seq bigint NOT NULL DEFAULT 0
);

-- As `publication`, of the regions other than number 0: each of them has a Redis that must be told.
CREATE TABLE region_publication (
    region            smallint NOT NULL REFERENCES region,
    org               text NOT NULL REFERENCES organization,
    version           bigint NOT NULL,             -- that of `publication`
    published_version bigint NOT NULL DEFAULT 0,
    published_at      timestamptz,
    renew_at          timestamptz,                 -- by the region's own clock
    traceparent       text,                        -- that of `publication`
    PRIMARY KEY (region, org)
);
CREATE INDEX region_publication_pending ON region_publication (region, version) WHERE version > published_version;
CREATE INDEX region_publication_due ON region_publication (region, renew_at) WHERE renew_at IS NOT NULL;

CREATE VIEW publication_by_region AS
    SELECT 0::smallint AS region, org, version, published_version, published_at, renew_at, traceparent FROM publication
    UNION ALL
    SELECT region, org, version, published_version, published_at, renew_at, traceparent FROM region_publication;

CREATE FUNCTION publish_in_regions() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO region_publication (region, org, version, traceparent)
    SELECT number, NEW.org, NEW.version, NEW.traceparent FROM region WHERE number > 0
    ON CONFLICT (region, org) DO UPDATE SET version = excluded.version, traceparent = excluded.traceparent;
    RETURN NULL;
END
$$;
CREATE TRIGGER publication_in_regions AFTER INSERT OR UPDATE OF version ON publication
    FOR EACH ROW EXECUTE FUNCTION publish_in_regions();
