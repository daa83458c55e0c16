-- What subscriptions were worth, and when ----------------------------------------------------------------------------

-- Each state of a subscription, from a moment until the next one's. Values are those of a year, in minor units: a
-- twelfth of a yearly price is no decimal number, and sums of what is stored here are exact.
CREATE TABLE subscription_history (
    subscription       text NOT NULL,
    valid_from         timestamptz NOT NULL,
    valid_to           timestamptz,                      -- NULL: it holds now
    org                text NOT NULL REFERENCES organization,
    customer           text NOT NULL,
    status             text NOT NULL,                    -- Stripe's word
    currency           text NOT NULL,
    plan               text,                             -- whose own price it has
    items              jsonb NOT NULL,                   -- price, plan, quantity, unit_amount, interval, interval_count, metered
    discounts          jsonb NOT NULL,                   -- coupon, duration, percent_off, amount_off, ends_at
    trial_start        timestamptz,
    trial_end          timestamptz,
    cancel_at          timestamptz,
    ended_at           timestamptz,
    annual_stripe      numeric NOT NULL,
    annual_chartmogul  numeric NOT NULL,
    annual_baremetrics numeric NOT NULL,
    priced             boolean NOT NULL,                 -- false: something of it has an amount that nobody here knows
    assumed            boolean NOT NULL DEFAULT false,   -- nobody looked then; it follows from what was seen later
    recorded_at        timestamptz NOT NULL,
    PRIMARY KEY (subscription, valid_from),
    CHECK (valid_to > valid_from)
);
CREATE UNIQUE INDEX subscription_history_now ON subscription_history (subscription) WHERE valid_to IS NULL;
CREATE INDEX subscription_history_of_organization ON subscription_history (org, valid_from);

-- By how much an organization's recurring revenue changed on a UTC day, and what kind of change that was. It is
-- derived from the history, with which it is written; the view below computes it anew.
CREATE TABLE mrr_movement (
    definition    text NOT NULL,                         -- whose rules decide what counts
    currency      text NOT NULL,
    day           date NOT NULL,
    org           text NOT NULL,
    kind          text NOT NULL CHECK (kind IN ('new', 'expansion', 'contraction', 'churn', 'reactivation')),
    annual_before numeric NOT NULL,
    annual_after  numeric NOT NULL,
    PRIMARY KEY (org, definition, currency, day)
);
CREATE INDEX mrr_movement_of_day ON mrr_movement (definition, currency, day)
    INCLUDE (kind, org, annual_before, annual_after);

CREATE VIEW mrr_movement_computed AS
WITH step AS (
    SELECT h.org, v.definition, h.currency, s.day, s.sign * v.annual AS change
    FROM subscription_history h
    CROSS JOIN LATERAL (VALUES
        ('stripe', h.annual_stripe), ('chartmogul', h.annual_chartmogul), ('baremetrics', h.annual_baremetrics)
    ) v (definition, annual)
    CROSS JOIN LATERAL (VALUES
        ((h.valid_from AT TIME ZONE 'UTC')::date, 1), ((h.valid_to AT TIME ZONE 'UTC')::date, -1)
    ) s (day, sign)
    WHERE v.annual <> 0 AND s.day IS NOT NULL
), change AS (
    SELECT org, definition, currency, day, sum(change) AS change
    FROM step GROUP BY org, definition, currency, day HAVING sum(change) <> 0
), balance AS (
    SELECT org, definition, currency, day, change,
        sum(change) OVER w AS annual_after, row_number() OVER w AS number
    FROM change WINDOW w AS (PARTITION BY org, definition, currency ORDER BY day)
)
SELECT definition, currency, day, org,
    CASE
        WHEN number = 1 THEN 'new'
        WHEN annual_after = change THEN 'reactivation'
        WHEN annual_after = 0 THEN 'churn'
        WHEN change > 0 THEN 'expansion'
        ELSE 'contraction'
    END AS kind,
    annual_after - change AS annual_before,
    annual_after
FROM balance;

-- What is known of subscriptions that were seen before there was a history: their newest state, at list prices.
WITH priced AS (
    SELECT s.id, min(p.currency) AS currency, min(p.code) FILTER (WHERE k.meter IS NULL) AS plan,
        coalesce(sum(
            r.amount_minor * coalesce((i ->> 'quantity')::numeric, 1) * CASE k.billing_interval WHEN 'month' THEN 12 ELSE 1 END
        ) FILTER (WHERE k.meter IS NULL), 0) AS annual,
        bool_and(k.meter IS NOT NULL OR r.amount_minor IS NOT NULL) AS priced,
        jsonb_agg(jsonb_build_object(
            'price', i ->> 'price', 'plan', CASE WHEN k.meter IS NULL THEN p.code END,
            'quantity', coalesce((i ->> 'quantity')::bigint, 0), 'unit_amount', r.amount_minor::text,
            'interval', k.billing_interval, 'interval_count', 1, 'metered', k.meter IS NOT NULL, 'discounts', '[]'::jsonb
        )) AS items
    FROM subscription s
    CROSS JOIN LATERAL jsonb_array_elements(s.content -> 'items') i
    JOIN stripe_price k ON k.id = i ->> 'price'
    JOIN plan p ON p.id = k.plan_id
    LEFT JOIN plan_price r ON r.plan_id = k.plan_id AND r.billing_interval = k.billing_interval
        AND k.meter IS NULL AND NOT k.adopted
    WHERE s.content ->> 'created' IS NOT NULL
    GROUP BY s.id
), known AS (
    SELECT s.id, s.org, s.customer, s.status, s.updated_at, p.currency, p.plan, p.annual, p.priced, p.items,
        to_timestamp((s.content ->> 'created')::bigint) AS created,
        to_timestamp((s.content ->> 'trial_end')::bigint) AS trial_end,
        to_timestamp((s.content ->> 'cancel_at')::bigint) AS cancel_at,
        greatest(
            coalesce(to_timestamp((s.content ->> 'ended_at')::bigint), s.updated_at),
            to_timestamp((s.content ->> 'created')::bigint) + interval '1 microsecond'
        ) AS ended_at
    FROM subscription s JOIN priced p ON p.id = s.id
), state AS (
    SELECT k.*, 'trialing' AS was, k.created AS since FROM known k
    WHERE k.trial_end > k.created AND k.status NOT IN ('incomplete', 'incomplete_expired')
    UNION ALL
    SELECT k.*, 'active', CASE WHEN k.trial_end > k.created THEN k.trial_end ELSE k.created END FROM known k
    WHERE k.status = 'canceled' AND k.ended_at > greatest(k.created, k.trial_end)
    UNION ALL
    SELECT k.*, k.status, CASE
        WHEN k.status = 'canceled' THEN k.ended_at
        WHEN k.trial_end > k.created THEN k.trial_end
        ELSE k.created
    END FROM known k
    WHERE k.status <> 'trialing'
), valued AS (
    SELECT *, CASE WHEN was IN ('active', 'past_due') THEN annual ELSE 0 END AS paid,
        CASE WHEN was IN ('active', 'past_due', 'unpaid') THEN annual ELSE 0 END AS owed
    FROM state
)
INSERT INTO subscription_history (subscription, valid_from, valid_to, org, customer, status, currency, plan, items,
    discounts, trial_end, cancel_at, ended_at, annual_stripe, annual_chartmogul, annual_baremetrics, priced, assumed,
    recorded_at)
SELECT id, since, lead(since) OVER (PARTITION BY id ORDER BY since), org, customer, was, currency, plan, items,
    '[]', trial_end, cancel_at, CASE WHEN was = 'canceled' THEN ended_at END, paid, owed, paid, priced, true,
    updated_at
FROM valued;

INSERT INTO mrr_movement (definition, currency, day, org, kind, annual_before, annual_after)
SELECT definition, currency, day, org, kind, annual_before, annual_after FROM mrr_movement_computed;
