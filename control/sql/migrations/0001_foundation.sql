-- Times are UTC. Units are whole numbers of a meter. Money is in minor units of the plan's currency.

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% cannot be changed: % refused', TG_TABLE_NAME, TG_OP USING ERRCODE = 'insufficient_privilege';
END
$$;
COMMENT ON FUNCTION refuse_change IS
    'Makes a table append-only for everyone, the superuser of the embedded server included.';


-- Who is billed -------------------------------------------------------------------------------------------------------

CREATE TABLE organization (
    id         text PRIMARY KEY,   -- what the token's organization claim says
    name       text NOT NULL,
    created_at timestamptz NOT NULL
);


-- What is sold: versions of plans, which never change once they are there --------------------------------------------

CREATE TABLE plan (
    id            uuid PRIMARY KEY,
    code          text NOT NULL,
    version       integer NOT NULL CHECK (version > 0),
    name          text NOT NULL,
    policy        text NOT NULL CHECK (policy IN ('HARD_STOP', 'METERED')),
    currency      text NOT NULL CHECK (currency ~ '^[a-z]{3}$'),
    rate_requests integer CHECK (rate_requests > 0),          -- NULL: no rate limit
    rate_seconds  double precision,
    rate_burst    integer,
    contact       boolean NOT NULL,                           -- sold by people, without a price
    demo          boolean NOT NULL,                           -- for trying out, not for sale
    created_at    timestamptz NOT NULL,
    superseded_at timestamptz,                                -- by the next version
    archived_at   timestamptz,                                -- no longer in the catalogue, still in force where it is
    UNIQUE (code, version),
    CHECK (num_nulls(rate_requests, rate_seconds, rate_burst) IN (0, 3))
);
CREATE UNIQUE INDEX plan_current ON plan (code) WHERE superseded_at IS NULL;
CREATE TRIGGER plan_version_is_immutable
    BEFORE UPDATE OF id, code, version, name, policy, currency, rate_requests, rate_seconds, rate_burst, contact, demo
    ON plan FOR EACH ROW EXECUTE FUNCTION refuse_change();

CREATE TABLE plan_meter (
    plan_id              uuid NOT NULL REFERENCES plan,
    meter                text NOT NULL,
    allowance            bigint NOT NULL CHECK (allowance >= 0),   -- units included in a period
    overage_max          bigint CHECK (overage_max >= 0),          -- units that METERED may sell beyond; NULL: no cap
    overage_amount_minor bigint CHECK (overage_amount_minor >= 0), -- the price of overage_units; NULL: not for sale
    overage_units        bigint CHECK (overage_units > 0),
    PRIMARY KEY (plan_id, meter),
    CHECK (num_nulls(overage_amount_minor, overage_units) IN (0, 2))
);
CREATE TRIGGER plan_meter_is_immutable
    BEFORE UPDATE OR DELETE ON plan_meter FOR EACH ROW EXECUTE FUNCTION refuse_change();

CREATE TABLE plan_price (
    plan_id          uuid NOT NULL REFERENCES plan,
    billing_interval text NOT NULL CHECK (billing_interval IN ('month', 'year')),
    amount_minor     bigint NOT NULL CHECK (amount_minor >= 0),
    PRIMARY KEY (plan_id, billing_interval)
);
CREATE TRIGGER plan_price_is_immutable
    BEFORE UPDATE OR DELETE ON plan_price FOR EACH ROW EXECUTE FUNCTION refuse_change();


-- Who may use what ----------------------------------------------------------------------------------------------------

CREATE TABLE entitlement (
    id              uuid PRIMARY KEY,
    org             text NOT NULL REFERENCES organization,
    plan_id         uuid NOT NULL REFERENCES plan,            -- one version of it
    status          text NOT NULL CHECK (status IN ('active', 'trialing', 'grace', 'suspended')),
    policy          text CHECK (policy IN ('HARD_STOP', 'METERED')), -- NULL: the plan's
    allowances      jsonb NOT NULL,                           -- {meter: units} in place of the plan's
    overage_max     jsonb NOT NULL,                           -- {meter: units} in place of the plan's
    rate_requests   integer CHECK (rate_requests > 0),        -- NULL: the plan's
    rate_seconds    double precision,
    rate_burst      integer,
    period_anchor   timestamptz NOT NULL,                     -- periods are counted from here
    effective_from  timestamptz NOT NULL,
    effective_to    timestamptz CHECK (effective_to >= effective_from), -- exclusive; NULL: until further notice
    CHECK (num_nulls(rate_requests, rate_seconds, rate_burst) IN (0, 3))
);
CREATE UNIQUE INDEX entitlement_open ON entitlement (org) WHERE effective_to IS NULL;
CREATE INDEX entitlement_history ON entitlement (org, effective_from);
CREATE INDEX entitlement_of_plan ON entitlement (plan_id) WHERE effective_to IS NULL;

CREATE TABLE "grant" (
    id              uuid PRIMARY KEY,
    org             text NOT NULL REFERENCES organization,
    meter           text NOT NULL,
    units           bigint NOT NULL CHECK (units > 0),
    expires_at      timestamptz NOT NULL,
    reason          text NOT NULL,
    idempotency_key text,
    created_at      timestamptz NOT NULL,
    revoked_at      timestamptz,
    UNIQUE (org, idempotency_key)
);
CREATE INDEX grant_of_organization ON "grant" (org, expires_at) WHERE revoked_at IS NULL;

CREATE SEQUENCE publication_version;

CREATE TABLE publication (
    org               text PRIMARY KEY REFERENCES organization,
    version           bigint NOT NULL,             -- drawn anew with every change of what is to be published
    published_version bigint NOT NULL DEFAULT 0,   -- what Redis is known to hold; less than version: to be published
    published_at      timestamptz,
    renew_at          timestamptz                  -- when time alone changes what is to be published: a period is over
);
COMMENT ON TABLE publication IS 'The outbox between Postgres and Redis: a crash between the two leaves a row that differs.';
CREATE INDEX publication_pending ON publication (version) WHERE version > published_version;
CREATE INDEX publication_due ON publication (renew_at) WHERE renew_at IS NOT NULL;


-- What was used -------------------------------------------------------------------------------------------------------

-- One row for each meter of each event. There is no foreign key on purpose: an event that happened is written, whoever
-- it belongs to. The key serves the reads by organization and time, and makes a second copy of an event impossible.
CREATE TABLE usage_event (
    org             text NOT NULL,
    occurred_at     timestamptz NOT NULL,   -- Redis time, to the millisecond: that of the stream's id
    stream_seq      integer NOT NULL,
    meter           text NOT NULL,
    shard           smallint NOT NULL,
    stream_ms       bigint NOT NULL,
    kind            text NOT NULL CHECK (kind IN ('take', 'settle')),
    request_id      text NOT NULL,
    period_start    timestamptz NOT NULL,
    units           bigint NOT NULL,        -- negative where a settlement gave back
    overage         bigint NOT NULL,        -- of units, sold beyond allowance and grants
    burnt           jsonb,                  -- of units, {grant id: units}
    PRIMARY KEY (org, occurred_at, stream_seq, meter)
) PARTITION BY RANGE (occurred_at);
CREATE TABLE usage_event_other PARTITION OF usage_event DEFAULT;
COMMENT ON TABLE usage_event_other IS 'Events of days that have no partition: normally empty.';
CREATE TRIGGER usage_event_is_append_only
    BEFORE UPDATE OR DELETE ON usage_event FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER usage_event_is_not_truncated
    BEFORE TRUNCATE ON usage_event FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER usage_event_is_not_truncated
    BEFORE TRUNCATE ON usage_event_other FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

CREATE FUNCTION create_usage_event_day(day date) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    partition text := format('usage_event_%s', to_char(day, 'YYYYMMDD'));
    starts timestamptz := day::timestamp AT TIME ZONE 'UTC';
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('create_usage_event_day'));
    IF to_regclass(partition) IS NULL THEN
        EXECUTE format('CREATE TABLE %I PARTITION OF usage_event FOR VALUES FROM (%L) TO (%L)',
            partition, starts, (day + 1)::timestamp AT TIME ZONE 'UTC');
        EXECUTE format('CREATE TRIGGER usage_event_is_not_truncated BEFORE TRUNCATE ON %I '
            'FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()', partition);
    END IF;
EXCEPTION WHEN check_violation THEN
    -- usage_event_other holds events of that day already: they are safe there, and so are those to come.
    RAISE WARNING 'no partition for %: usage_event_other holds events of that day', day;
END
$$;

CREATE TABLE usage_counter (
    org             text NOT NULL,
    period_start    timestamptz NOT NULL,
    meter           text NOT NULL,
    used            bigint NOT NULL,
    burnt           bigint NOT NULL,        -- of used, paid for by grants
    overage         bigint NOT NULL,        -- of used, sold beyond allowance and grants
    PRIMARY KEY (org, period_start, meter)
) WITH (fillfactor = 70);                   -- room for updates in place: the same rows are counted up again and again

CREATE TABLE grant_counter (
    org             text NOT NULL,
    grant_id        text NOT NULL,
    used            bigint NOT NULL,
    PRIMARY KEY (org, grant_id)
) WITH (fillfactor = 70);

CREATE TABLE usage_watermark (
    shard        smallint PRIMARY KEY,
    stream_ms    bigint NOT NULL,           -- the last stream entry that is in usage_event, and in the counters
    stream_seq   bigint NOT NULL,
    committed_at timestamptz NOT NULL
);

CREATE TABLE usage_quarantine (
    shard          smallint NOT NULL,
    stream_ms      bigint NOT NULL,
    stream_seq     bigint NOT NULL,
    entry          bytea NOT NULL,          -- as it was read
    reason         text NOT NULL,
    quarantined_at timestamptz NOT NULL,
    PRIMARY KEY (shard, stream_ms, stream_seq)
);
COMMENT ON TABLE usage_quarantine IS 'Stream entries that are no usage events: somebody must look at them.';


-- Who changed what ----------------------------------------------------------------------------------------------------

CREATE TABLE audit_journal (
    id              uuid PRIMARY KEY,       -- sorts by time
    at              timestamptz NOT NULL,
    actor           text NOT NULL,
    action          text NOT NULL,
    org             text,                   -- NULL: it concerns all, such as a plan
    before          jsonb,
    after           jsonb,
    correlation_id  text NOT NULL
);
CREATE INDEX audit_journal_of_organization ON audit_journal (org, id);
CREATE TRIGGER audit_journal_is_append_only
    BEFORE UPDATE OR DELETE ON audit_journal FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER audit_journal_is_not_truncated
    BEFORE TRUNCATE ON audit_journal FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
