-- name: newest_states(subscriptions)
-- What is kept of subscriptions as their newest state.
SELECT subscription, valid_from, org, customer, status, currency, plan, items, discounts, trial_start, trial_end,
    cancel_at, ended_at, priced, assumed
FROM subscription_history WHERE subscription = ANY(:subscriptions::text[]) AND valid_to IS NULL;

-- name: end_state(subscription, at)!
-- Another state begins.
UPDATE subscription_history SET valid_to = :at WHERE subscription = :subscription AND valid_to IS NULL;

-- name: drop_state(subscription, valid_from)!
-- What was assumed of a subscription is known now.
DELETE FROM subscription_history WHERE subscription = :subscription AND valid_from = :valid_from;

-- name: put_state(subscription, valid_from, valid_to, org, customer, status, currency, plan, items, discounts, trial_start, trial_end, cancel_at, ended_at, annual_stripe, annual_chartmogul, annual_baremetrics, priced, assumed, recorded_at)!
-- A state of a subscription.
INSERT INTO subscription_history (subscription, valid_from, valid_to, org, customer, status, currency, plan, items,
    discounts, trial_start, trial_end, cancel_at, ended_at, annual_stripe, annual_chartmogul, annual_baremetrics, priced,
    assumed, recorded_at)
VALUES (:subscription, :valid_from, :valid_to, :org, :customer, :status, :currency, :plan, :items, :discounts,
    :trial_start, :trial_end, :cancel_at, :ended_at, :annual_stripe, :annual_chartmogul, :annual_baremetrics, :priced,
    :assumed, :recorded_at);

-- name: move_history(customer, org)
-- What the customer has subscribed is the organization's; whose it was before.
WITH before AS (
    SELECT DISTINCT h.org FROM subscription_history h WHERE h.customer = :customer AND h.org <> :org
), moved AS (
    UPDATE subscription_history h SET org = :org WHERE h.customer = :customer AND h.org <> :org
)
SELECT org FROM before ORDER BY org;

-- name: live_states(customer)
-- What is kept of a customer's subscriptions that are not over, as their newest state.
SELECT subscription, valid_from, org, customer, status, currency, plan, items, discounts, trial_start, trial_end,
    cancel_at, ended_at, priced, assumed
FROM subscription_history
WHERE customer = :customer AND valid_to IS NULL AND status NOT IN ('canceled', 'incomplete_expired')
ORDER BY subscription;

-- name: drop_movements(org)!
-- The movements of an organization, before they are derived again.
DELETE FROM mrr_movement WHERE org = :org;

-- name: derive_movements(org)!
-- The movements of an organization, as its history has them.
INSERT INTO mrr_movement (definition, currency, day, org, kind, annual_before, annual_after)
SELECT definition, currency, day, org, kind, annual_before, annual_after
FROM mrr_movement_computed WHERE org = :org;

-- name: mrr_of(orgs)
-- The recurring revenue of organizations now, in minor units a month, by currency; organizations that have none are
-- not in the answer.
SELECT org, currency, round(sum(annual_stripe) / 12)::bigint AS stripe_minor,
    round(sum(annual_chartmogul) / 12)::bigint AS chartmogul_minor,
    round(sum(annual_baremetrics) / 12)::bigint AS baremetrics_minor
FROM subscription_history
WHERE org = ANY(:orgs::text[]) AND valid_to IS NULL
GROUP BY org, currency
HAVING sum(annual_stripe) <> 0 OR sum(annual_chartmogul) <> 0 OR sum(annual_baremetrics) <> 0
ORDER BY org, currency;
