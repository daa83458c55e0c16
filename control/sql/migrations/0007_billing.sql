-- Terms that follow a subscription -----------------------------------------------------------------------------------

ALTER TABLE entitlement
    ADD COLUMN subscription text,                             -- Stripe's id; NULL: an admin gave these terms
    ADD COLUMN quantity integer NOT NULL DEFAULT 1 CHECK (quantity > 0), -- seats: so many times the plan's allowances
    ADD COLUMN held boolean NOT NULL DEFAULT false;           -- an admin suspended it, whatever the subscription says


-- The catalogue, as Stripe has it ------------------------------------------------------------------------------------

CREATE TABLE stripe_price (
    id               text PRIMARY KEY,
    plan_id          uuid NOT NULL REFERENCES plan,           -- one version of it: a price never changes, nor does that
    billing_interval text NOT NULL CHECK (billing_interval IN ('month', 'year')),
    meter            text,                                    -- of overage; NULL: the plan's own price
    adopted          boolean NOT NULL DEFAULT false,          -- made by hand, for one customer
    created_at       timestamptz NOT NULL
);
CREATE UNIQUE INDEX stripe_price_of_plan ON stripe_price (plan_id, billing_interval, coalesce(meter, ''))
    WHERE NOT adopted;

CREATE TABLE stripe_meter (
    meter      text PRIMARY KEY,
    id         text NOT NULL,
    event_name text NOT NULL
);

CREATE TABLE stripe_setting (
    name  text PRIMARY KEY,                                   -- portal_configuration
    value text NOT NULL
);


-- Who pays -----------------------------------------------------------------------------------------------------------

CREATE TABLE stripe_customer (
    id         text PRIMARY KEY,
    org        text NOT NULL REFERENCES organization,
    linked_at  timestamptz NOT NULL,
    look       bigint NOT NULL DEFAULT 0,                     -- the last look at Stripe that was applied
    deleted_at timestamptz
);
CREATE SEQUENCE stripe_look;
CREATE UNIQUE INDEX stripe_customer_of_organization ON stripe_customer (org) WHERE deleted_at IS NULL;

CREATE TABLE subscription (
    id         text PRIMARY KEY,
    org        text NOT NULL REFERENCES organization,
    customer   text NOT NULL,
    status     text NOT NULL,                                 -- Stripe's word
    content    jsonb NOT NULL,                                -- what of it matters here
    updated_at timestamptz NOT NULL
);
CREATE INDEX subscription_of_organization ON subscription (org);

CREATE TABLE invoice_ref (
    id                     text PRIMARY KEY,
    org                    text NOT NULL REFERENCES organization,
    customer               text NOT NULL,
    subscription           text,
    number                 text,
    status                 text NOT NULL,
    billing_reason         text,
    currency               text NOT NULL,
    total_minor            bigint NOT NULL,
    amount_paid_minor      bigint NOT NULL,
    amount_remaining_minor bigint NOT NULL,
    period_start           timestamptz NOT NULL,
    period_end             timestamptz NOT NULL,
    created_at             timestamptz NOT NULL,
    finalized_at           timestamptz,
    paid_at                timestamptz,
    hosted_url             text,
    pdf_url                text,
    seq                    bigint GENERATED ALWAYS AS IDENTITY -- orders those of one second, to which Stripe tells times
);
CREATE INDEX invoice_ref_of_organization ON invoice_ref (org, created_at, seq);

-- Money that went another way than by an invoice's payment: credit notes, refunds, disputes, balance.
CREATE TABLE billing_entry (
    id           text PRIMARY KEY,                            -- Stripe's
    kind         text NOT NULL CHECK (kind IN ('credit_note', 'refund', 'dispute', 'balance')),
    org          text NOT NULL REFERENCES organization,
    customer     text NOT NULL,
    invoice      text,
    amount_minor bigint NOT NULL,
    currency     text NOT NULL,
    status       text,
    reason       text,
    created_at   timestamptz NOT NULL
);
CREATE INDEX billing_entry_of_organization ON billing_entry (org, created_at);


-- Webhooks -----------------------------------------------------------------------------------------------------------

CREATE TABLE webhook_event (
    id              text PRIMARY KEY,                         -- Stripe's: a second delivery of an event is no second row
    type            text NOT NULL,
    customer        text,                                     -- as the payload names it, if it does
    created_at      timestamptz NOT NULL,                     -- at Stripe
    received_at     timestamptz NOT NULL,
    payload         jsonb NOT NULL,
    attempts        integer NOT NULL DEFAULT 0,
    next_attempt_at timestamptz NOT NULL,                     -- while one is at work on it: when another may take over
    last_error      text,
    outcome         text CHECK (outcome IN ('done', 'ignored', 'dead')), -- NULL: waits
    ended_at        timestamptz,
    CHECK (num_nulls(outcome, ended_at) IN (0, 2))
);
CREATE INDEX webhook_event_due ON webhook_event (next_attempt_at) WHERE outcome IS NULL;
CREATE INDEX webhook_event_received ON webhook_event (received_at);


-- Overage that is sold: what of a counter was told to Stripe ---------------------------------------------------------

CREATE TABLE overage_window (
    org          text NOT NULL,
    period_start timestamptz NOT NULL,
    meter        text NOT NULL,
    revision     integer NOT NULL CHECK (revision > 0),
    units        bigint NOT NULL CHECK (units <> 0),          -- what this revision adds; frozen before it is sent
    customer     text NOT NULL,
    event_name   text NOT NULL,
    identifier   text NOT NULL UNIQUE,
    event_at     timestamptz NOT NULL,                        -- inside of the period, so that it is billed with it
    frozen_at    timestamptz NOT NULL,
    sent_at      timestamptz,
    PRIMARY KEY (org, period_start, meter, revision)
);
CREATE INDEX overage_window_unsent ON overage_window (frozen_at) WHERE sent_at IS NULL;
CREATE INDEX usage_counter_overage ON usage_counter (period_start) WHERE overage <> 0;
