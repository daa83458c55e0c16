-- name: currencies()
-- The currencies that anything was ever sold in, without reading every movement.
WITH RECURSIVE each AS (
    (SELECT currency FROM mrr_movement WHERE definition = 'chartmogul' ORDER BY currency LIMIT 1)
    UNION ALL
    SELECT (
        SELECT m.currency FROM mrr_movement m
        WHERE m.definition = 'chartmogul' AND m.currency > each.currency ORDER BY m.currency LIMIT 1
    )
    FROM each WHERE each.currency IS NOT NULL
)
SELECT currency FROM each WHERE currency IS NOT NULL ORDER BY currency;

-- name: main_currency()$
-- The currency in which most changed in the last three months, by the index alone; nothing where nothing was ever sold.
WITH RECURSIVE each AS (
    (SELECT currency FROM mrr_movement WHERE definition = 'stripe' ORDER BY currency LIMIT 1)
    UNION ALL
    SELECT (
        SELECT m.currency FROM mrr_movement m
        WHERE m.definition = 'stripe' AND m.currency > each.currency ORDER BY m.currency LIMIT 1
    )
    FROM each WHERE each.currency IS NOT NULL
)
SELECT currency FROM each
WHERE currency IS NOT NULL
ORDER BY (
    SELECT count(*) FROM mrr_movement m
    WHERE m.definition = 'stripe' AND m.currency = each.currency AND m.day >= current_date - 92
) DESC, currency
LIMIT 1;

-- name: at_moment(before)
-- What all subscriptions were worth just before a moment, by currency, and what of it the definitions see differently.
-- Added up by organization first: counting the organizations in one step sorts all subscriptions three times.
SELECT currency,
    coalesce(sum(annual_stripe), 0) AS annual_stripe,
    coalesce(sum(annual_baremetrics), 0) AS annual_baremetrics,
    coalesce(sum(annual_chartmogul), 0) AS annual_chartmogul,
    count(*) FILTER (WHERE subscriptions_stripe > 0) AS organizations_stripe,
    count(*) FILTER (WHERE subscriptions_baremetrics > 0) AS organizations_baremetrics,
    count(*) FILTER (WHERE subscriptions_chartmogul > 0) AS organizations_chartmogul,
    sum(subscriptions_stripe)::bigint AS subscriptions_stripe,
    sum(subscriptions_baremetrics)::bigint AS subscriptions_baremetrics,
    sum(subscriptions_chartmogul)::bigint AS subscriptions_chartmogul,
    sum(discounted)::bigint AS discounted, sum(unpaid)::bigint AS unpaid, sum(trialing)::bigint AS trialing,
    sum(unpriced)::bigint AS unpriced
FROM (
    SELECT currency, org,
        sum(annual_stripe) AS annual_stripe, sum(annual_baremetrics) AS annual_baremetrics,
        sum(annual_chartmogul) AS annual_chartmogul,
        count(*) FILTER (WHERE annual_stripe <> 0) AS subscriptions_stripe,
        count(*) FILTER (WHERE annual_baremetrics <> 0) AS subscriptions_baremetrics,
        count(*) FILTER (WHERE annual_chartmogul <> 0) AS subscriptions_chartmogul,
        count(*) FILTER (WHERE annual_baremetrics <> annual_stripe) AS discounted,
        count(*) FILTER (WHERE annual_chartmogul <> annual_baremetrics) AS unpaid,
        count(*) FILTER (WHERE status = 'trialing') AS trialing,
        count(*) FILTER (WHERE NOT priced AND status IN ('active', 'past_due', 'unpaid')) AS unpriced
    FROM subscription_history
    WHERE valid_from < :before AND (valid_to IS NULL OR valid_to >= :before)
        AND (annual_chartmogul <> 0 OR status IN ('trialing', 'active', 'past_due', 'unpaid'))
    GROUP BY currency, org
) of_organization
GROUP BY currency
ORDER BY currency;

-- name: movements(definition, currency, bucket, since, until)
-- By how much recurring revenue changed in each period, by kind, and of how many organizations; of one definition, or
-- of all. Days from `since` until before `until`.
SELECT definition, date_trunc(:bucket::text, day::timestamp)::date AS start, kind,
    sum(annual_after - annual_before) AS annual, count(*) AS changes
FROM mrr_movement
WHERE (:definition::text IS NULL OR definition = :definition) AND currency = :currency
    AND day >= :since AND day < :until
GROUP BY 1, 2, 3
ORDER BY 1, 2, 3;

-- name: balances(definition, currency, before)
-- What recurring revenue had come to before a day, and of how many organizations; of one definition, or of all.
SELECT definition, sum(annual_after - annual_before) AS annual,
    sum(CASE WHEN kind IN ('new', 'reactivation') THEN 1 WHEN kind = 'churn' THEN -1 ELSE 0 END)::bigint
        AS organizations
FROM mrr_movement
WHERE (:definition::text IS NULL OR definition = :definition) AND currency = :currency AND day < :before
GROUP BY 1
ORDER BY 1;

-- name: subscriptions_at(definition, currency, before, after_org, after_subscription, limit_rows)
-- The subscriptions that recurring revenue was made of just before a moment, by organization.
SELECT v.annual, h.org, o.name, h.subscription, h.customer, h.plan, h.status, h.valid_from, h.priced
FROM subscription_history h
JOIN organization o ON o.id = h.org
CROSS JOIN LATERAL (SELECT CASE :definition::text
    WHEN 'stripe' THEN h.annual_stripe WHEN 'chartmogul' THEN h.annual_chartmogul ELSE h.annual_baremetrics END AS annual
) v
WHERE h.currency = :currency AND h.valid_from < :before AND (h.valid_to IS NULL OR h.valid_to >= :before)
    AND v.annual <> 0 AND (h.org, h.subscription) > (:after_org::text, :after_subscription::text)
ORDER BY h.org, h.subscription
LIMIT :limit_rows;

-- name: subscriptions_moved(definition, currency, kind, since, until, after_day, after_org, after_subscription, limit_rows)
-- The subscriptions whose changes make movements of a kind, or of all kinds: of each, by how much it changed on a day on
-- which its organization's recurring revenue did. Several of one organization may cancel each other out in part.
SELECT m.day, m.kind, s.annual, m.org, o.name, s.subscription, s.customer, s.plan, s.status
FROM mrr_movement m
JOIN organization o ON o.id = m.org
CROSS JOIN LATERAL (
    SELECT h.subscription, min(h.customer) AS customer,
        sum(e.sign * CASE m.definition WHEN 'stripe' THEN h.annual_stripe WHEN 'chartmogul' THEN h.annual_chartmogul
            ELSE h.annual_baremetrics END) AS annual,
        (array_agg(h.plan ORDER BY h.valid_from DESC))[1] AS plan,
        (array_agg(h.status ORDER BY h.valid_from DESC))[1] AS status
    FROM subscription_history h
    CROSS JOIN LATERAL (VALUES
        ((h.valid_from AT TIME ZONE 'UTC')::date, 1), ((h.valid_to AT TIME ZONE 'UTC')::date, -1)
    ) e (day, sign)
    WHERE h.org = m.org AND h.currency = m.currency AND e.day = m.day
    GROUP BY h.subscription
) s
WHERE m.definition = :definition AND m.currency = :currency AND m.day >= :since AND m.day < :until
    AND (:kind::text IS NULL OR m.kind = :kind) AND s.annual <> 0
    AND (m.day, m.org, s.subscription) > (:after_day::date, :after_org::text, :after_subscription::text)
ORDER BY m.day, m.org, s.subscription
LIMIT :limit_rows;

-- name: cohorts(definition, currency, since)
-- What organizations that paid first in one month are worth later: by how much, and of how many, it changed in each
-- month.
WITH cohort AS (
    SELECT org, date_trunc('month', day::timestamp)::date AS began FROM mrr_movement
    WHERE definition = :definition AND currency = :currency AND kind = 'new' AND day >= :since
)
SELECT c.began, date_trunc('month', m.day::timestamp)::date AS start, sum(m.annual_after - m.annual_before) AS annual,
    sum(CASE WHEN m.kind IN ('new', 'reactivation') THEN 1 WHEN m.kind = 'churn' THEN -1 ELSE 0 END)::bigint
        AS organizations
FROM cohort c
JOIN mrr_movement m ON m.org = c.org AND m.definition = :definition AND m.currency = :currency AND m.day >= :since
GROUP BY 1, 2
ORDER BY 1, 2;

-- name: trials(currency, since, until)
-- Trials by the month in which they began: how many, and what came of them.
WITH tried AS (
    SELECT subscription, min(valid_from) AS began, bool_or(valid_to IS NULL) AS running
    FROM subscription_history WHERE status = 'trialing' AND currency = :currency AND valid_from < :until
    GROUP BY subscription
    HAVING min(valid_from) >= :since
)
SELECT date_trunc('month', t.began AT TIME ZONE 'UTC')::date AS start, count(*) AS began,
    count(*) FILTER (WHERE t.running) AS running,
    count(*) FILTER (WHERE EXISTS (
        SELECT FROM subscription_history h
        WHERE h.subscription = t.subscription AND h.valid_from > t.began AND h.annual_chartmogul <> 0
    )) AS converted
FROM tried t
GROUP BY 1
ORDER BY 1;
