-- Decisions that can be explained: what was published when, and what gateways refused.

CREATE TABLE published_entitlement (
    org          text NOT NULL,
    version      bigint NOT NULL,
    published_at timestamptz NOT NULL,   -- by Redis' clock
    terms        jsonb NOT NULL,         -- as the rules of a take read them, without the periods
    PRIMARY KEY (org, version)
);
COMMENT ON TABLE published_entitlement IS
    'What gateways decided by. A version that only renewed periods, or changed who may use it, has no row of its own.';

-- A batch may come twice, so the key makes a second copy impossible.
CREATE TABLE refusal (
    at          timestamptz NOT NULL,    -- by Redis' clock where the ledger decided, else by the gateway's
    request_id  text NOT NULL,
    correlation text,                    -- the client's own X-Request-Id, which its answer has in place of ours
    org         text,                    -- NULL: refused before one was known
    key_id      text,
    user_id     text,
    route       text NOT NULL,
    method      text NOT NULL,
    status      smallint NOT NULL,
    verdict     text NOT NULL,
    shadow      boolean NOT NULL,        -- it was only recorded, and the request went on
    detail      text NOT NULL,
    charges     jsonb NOT NULL,          -- [[meter, units], …] in the order of the request
    version     bigint,                  -- of the organization, as the take said it
    limits      text NOT NULL,           -- of the principal's own
    said        jsonb NOT NULL,          -- by the ledger; {}: it was not asked
    gateway     text NOT NULL,
    PRIMARY KEY (at, request_id)
) PARTITION BY RANGE (at);
CREATE INDEX refusal_of_request ON refusal (request_id);
CREATE INDEX refusal_of_correlation ON refusal (correlation) WHERE correlation IS NOT NULL;
CREATE INDEX refusal_of_organization ON refusal (org, at DESC, request_id DESC);
CREATE TABLE refusal_other PARTITION OF refusal DEFAULT;
COMMENT ON TABLE refusal_other IS 'Refusals of days that have no partition: of a gateway whose clock is wrong.';

CREATE TABLE refusal_count (
    minute  timestamptz NOT NULL,        -- in which the gateway told of them
    org     text NOT NULL,               -- '': no organization was known, or it was not told apart
    refused bigint NOT NULL,
    kept    bigint NOT NULL,             -- of them, in refusal
    PRIMARY KEY (minute, org)
);
CREATE INDEX refusal_count_of_organization ON refusal_count (org, minute);

CREATE TABLE refusal_source (
    source   text PRIMARY KEY,           -- a worker of a gateway
    gateway  text NOT NULL,
    sequence bigint NOT NULL,            -- of its last batch that is written
    refused  bigint NOT NULL,            -- by the worker since its start, as that batch says
    seen_at  timestamptz NOT NULL
);

CREATE FUNCTION create_refusal_day(day date) RETURNS void LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
    partition text := format('refusal_%s', to_char(day, 'YYYYMMDD'));
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('create_refusal_day'));
    IF to_regclass(partition) IS NULL THEN
        EXECUTE format('CREATE TABLE %I PARTITION OF refusal FOR VALUES FROM (%L) TO (%L)',
            partition, day::timestamp AT TIME ZONE 'UTC', (day + 1)::timestamp AT TIME ZONE 'UTC');
    END IF;
EXCEPTION WHEN check_violation THEN
    RAISE WARNING 'no partition for %: refusal_other holds refusals of that day', day;
END
$$;

CREATE FUNCTION drop_refusal_days(before date) RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
    partition text;
    dropped bigint := 0;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('create_refusal_day'));
    FOR partition IN
        SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
        WHERE i.inhparent = 'refusal'::regclass AND c.relname ~ '^refusal_[0-9]{8}$'
            AND to_date(right(c.relname, 8), 'YYYYMMDD') < before
    LOOP
        EXECUTE format('DROP TABLE %I', partition);
        dropped := dropped + 1;
    END LOOP;
    RETURN dropped;
END
$$;
REVOKE EXECUTE ON FUNCTION create_refusal_day, drop_refusal_days FROM PUBLIC;
DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['create_refusal_day', 'drop_refusal_days'] LOOP
        EXECUTE format('ALTER FUNCTION %I SET search_path = %I, pg_temp', name, current_schema());
    END LOOP;
END
$$;

-- A decision is asked for by the id of its request.
CREATE INDEX usage_event_of_request ON usage_event (request_id);
