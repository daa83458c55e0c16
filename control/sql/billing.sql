-- name: prices(ids)
-- What prices stand for.
SELECT p.id, p.plan_id, plan.code, plan.version, p.meter
FROM stripe_price p JOIN plan ON plan.id = p.plan_id
WHERE p.id = ANY(:ids::text[]);

-- name: prices_of_plan(plan_id, billing_interval)
-- What a plan version is sold by: its own price first, then those of overage.
SELECT id, meter FROM stripe_price
WHERE plan_id = :plan_id AND billing_interval = :billing_interval AND NOT adopted
ORDER BY meter NULLS FIRST;

-- name: put_price(id, plan_id, billing_interval, meter, at)!
-- What a plan version is sold by from now on.
INSERT INTO stripe_price (id, plan_id, billing_interval, meter, created_at)
VALUES (:id, :plan_id, :billing_interval, :meter, :at)
ON CONFLICT (plan_id, billing_interval, coalesce(meter, '')) WHERE NOT adopted
    DO UPDATE SET id = excluded.id, created_at = excluded.created_at;

-- name: newest_plan(code)^
-- The newest version of a plan, archived or not.
SELECT id, code, version FROM plan WHERE code = :code AND superseded_at IS NULL;

-- name: meters()
-- Stripe's meters.
SELECT meter, id, event_name FROM stripe_meter ORDER BY meter;

-- name: put_meter(meter, id, event_name)!
-- Stripe's meter for one of ours.
INSERT INTO stripe_meter (meter, id, event_name) VALUES (:meter, :id, :event_name)
ON CONFLICT (meter) DO UPDATE SET id = excluded.id, event_name = excluded.event_name;

-- name: setting(name)$
-- One thing to remember.
SELECT value FROM stripe_setting WHERE name = :name;

-- name: put_setting(name, value)!
-- The same, to be remembered.
INSERT INTO stripe_setting (name, value) VALUES (:name, :value) ON CONFLICT (name) DO UPDATE SET value = excluded.value;

-- name: customer(id)^
-- Whose customer that is.
SELECT id, org, main, deleted_at FROM stripe_customer WHERE id = :id;

-- name: customer_of(org)^
-- The customer that an organization has, of several its main one.
SELECT id, org, linked_at FROM stripe_customer WHERE org = :org AND deleted_at IS NULL AND main;

-- name: customers_of(org)
-- All customers of an organization that Stripe has.
SELECT id, main FROM stripe_customer WHERE org = :org AND deleted_at IS NULL ORDER BY NOT main, linked_at, id;

-- name: all_customers_of(org)
-- The same, with those that Stripe has no more.
SELECT id, deleted_at FROM stripe_customer WHERE org = :org;

-- name: link_customer(id, org, at)^
-- The customer is the organization's; whether its main one. Nothing where it is linked already. The organization is held.
INSERT INTO stripe_customer (id, org, linked_at, main)
VALUES (:id, :org, :at, NOT EXISTS (SELECT 1 FROM stripe_customer WHERE org = :org AND deleted_at IS NULL AND main))
ON CONFLICT DO NOTHING
RETURNING org, main;

-- name: unset_main(org, except_id)!
-- The organization has no main customer, but for this one.
UPDATE stripe_customer SET main = false WHERE org = :org AND main AND id <> :except_id;

-- name: make_main(id, org, at)!
-- The customer is the organization's main one, whosever it was before. No other may be.
INSERT INTO stripe_customer (id, org, linked_at, main) VALUES (:id, :org, :at, true)
ON CONFLICT (id) DO UPDATE SET org = excluded.org, main = true, deleted_at = NULL;

-- name: promote(org)$
-- Where an organization has no main customer any more, the one that was linked first of those that are left.
UPDATE stripe_customer SET main = true
WHERE id = (
    SELECT id FROM stripe_customer k WHERE k.org = :org AND k.deleted_at IS NULL ORDER BY k.linked_at, k.id LIMIT 1
) AND NOT EXISTS (SELECT 1 FROM stripe_customer k WHERE k.org = :org AND k.deleted_at IS NULL AND k.main)
RETURNING id;

-- name: move_subscriptions(customer, org)!
-- What the customer has subscribed is the organization's.
UPDATE subscription SET org = :org WHERE customer = :customer AND org <> :org;

-- name: move_invoices(customer, org)!
-- What the customer was billed is the organization's.
UPDATE invoice_ref SET org = :org WHERE customer = :customer AND org <> :org;

-- name: move_entries(customer, org)!
-- What the customer was credited is the organization's.
UPDATE billing_entry SET org = :org WHERE customer = :customer AND org <> :org;

-- name: delete_customer(id, at)!
-- Stripe has the customer no more.
UPDATE stripe_customer SET deleted_at = :at WHERE id = :id AND deleted_at IS NULL;

-- name: lock_sessions(org)$
-- Those who open pages for one organization take turns, until the transaction ends.
SELECT pg_advisory_xact_lock(hashtext('quotagate.checkout'), hashtext(:org));

-- name: open_session(id, org, expires_at)!
-- A page where the organization can pay; the same again changes nothing.
INSERT INTO checkout_session (id, org, expires_at) VALUES (:id, :org, :expires_at) ON CONFLICT DO NOTHING;

-- name: older_sessions(id, at)
-- Pages of the same organization that were opened before this one, and may be open.
SELECT o.id FROM checkout_session s JOIN checkout_session o ON o.org = s.org AND o.seq < s.seq
WHERE s.id = :id AND o.closed_at IS NULL AND o.expires_at > :at
ORDER BY o.seq;

-- name: close_sessions(ids, at)!
-- Nobody can pay there any more.
UPDATE checkout_session SET closed_at = :at WHERE id = ANY(:ids::text[]) AND closed_at IS NULL;

-- name: drop_sessions(org, before)!
-- Pages that expired long ago.
DELETE FROM checkout_session WHERE org = :org AND expires_at < :before;

-- name: next_look()$
-- The number of a look at Stripe. Who began later has seen at least what was known by then.
SELECT nextval('stripe_look');

-- name: applied_look(org, look)$
-- Notes that what a look at an organization's customers saw is applied; nothing where a later one was applied before.
UPDATE stripe_customer SET look = :look
WHERE org = :org AND NOT EXISTS (SELECT 1 FROM stripe_customer k WHERE k.org = :org AND k.look >= :look)
RETURNING look;

-- name: end_subscriptions(customer, at)!
-- Those of a customer that Stripe has no more, which ended with it.
UPDATE subscription SET status = 'canceled', updated_at = :at
WHERE customer = :customer AND status NOT IN ('canceled', 'incomplete_expired');

-- name: put_subscription(id, org, customer, status, content, at)!
-- A subscription as Stripe has it.
INSERT INTO subscription AS s (id, org, customer, status, content, updated_at)
VALUES (:id, :org, :customer, :status, :content, :at)
ON CONFLICT (id) DO UPDATE
SET org = excluded.org, status = excluded.status, content = excluded.content, updated_at = excluded.updated_at
WHERE (s.org, s.status, s.content) IS DISTINCT FROM (excluded.org, excluded.status, excluded.content);

-- name: subscriptions_of_customer(customer)
-- A customer's subscriptions, as they were seen last.
SELECT id, customer, status, content FROM subscription WHERE customer = :customer ORDER BY id;

-- name: subscriptions_of(org)
-- An organization's subscriptions, the newest first.
SELECT id, customer, status, content, updated_at FROM subscription WHERE org = :org ORDER BY updated_at DESC, id;

-- name: put_invoice(id, org, customer, subscription, number, status, billing_reason, currency, total_minor, amount_paid_minor, amount_remaining_minor, period_start, period_end, created_at, finalized_at, paid_at, hosted_url, pdf_url)$
-- An invoice as Stripe has it; its status before, or nothing where it is new.
WITH before AS (SELECT status FROM invoice_ref WHERE id = :id), put AS (
    INSERT INTO invoice_ref (id, org, customer, subscription, number, status, billing_reason, currency, total_minor,
        amount_paid_minor, amount_remaining_minor, period_start, period_end, created_at, finalized_at, paid_at,
        hosted_url, pdf_url)
    VALUES (:id, :org, :customer, :subscription, :number, :status, :billing_reason, :currency, :total_minor,
        :amount_paid_minor, :amount_remaining_minor, :period_start, :period_end, :created_at, :finalized_at, :paid_at,
        :hosted_url, :pdf_url)
    ON CONFLICT (id) DO UPDATE SET number = excluded.number, status = excluded.status,
        total_minor = excluded.total_minor, amount_paid_minor = excluded.amount_paid_minor,
        amount_remaining_minor = excluded.amount_remaining_minor, period_start = excluded.period_start,
        period_end = excluded.period_end, finalized_at = excluded.finalized_at, paid_at = excluded.paid_at,
        hosted_url = excluded.hosted_url, pdf_url = excluded.pdf_url
)
SELECT status FROM before;

-- name: drop_invoice(id)!
-- A draft that was deleted.
DELETE FROM invoice_ref WHERE id = :id;

-- name: invoices_of(org, before, limit_rows)
-- One page of an organization's invoices, the newest first.
SELECT id, subscription, number, status, billing_reason, currency, total_minor, amount_paid_minor,
    amount_remaining_minor, period_start, period_end, created_at, finalized_at, paid_at, hosted_url, pdf_url
FROM invoice_ref
WHERE org = :org AND (:before::text IS NULL OR (created_at, seq) < (
    SELECT created_at, seq FROM invoice_ref WHERE id = :before))
ORDER BY created_at DESC, seq DESC
LIMIT :limit_rows;

-- name: is_invoice(org, id)$
-- Whether the organization has this invoice.
SELECT EXISTS (SELECT 1 FROM invoice_ref WHERE org = :org AND id = :id);

-- name: currency_of_invoice(org, id)$
-- NULL where the organization has no such invoice.
SELECT currency FROM invoice_ref WHERE org = :org AND id = :id;

-- name: put_entry(id, kind, org, customer, invoice, amount_minor, currency, status, reason, created_at)$
-- Money that went another way; the id where that is new or changed.
INSERT INTO billing_entry AS b (id, kind, org, customer, invoice, amount_minor, currency, status, reason, created_at)
VALUES (:id, :kind, :org, :customer, :invoice, :amount_minor, :currency, :status, :reason, :created_at)
ON CONFLICT (id) DO UPDATE SET status = excluded.status, reason = excluded.reason, amount_minor = excluded.amount_minor
WHERE (b.status, b.reason, b.amount_minor) IS DISTINCT FROM (excluded.status, excluded.reason, excluded.amount_minor)
RETURNING id;

-- name: is_entry(org, id)$
-- Whether the organization's ledger has this entry.
SELECT EXISTS (SELECT 1 FROM billing_entry WHERE org = :org AND id = :id);

-- name: entries_of(org, before, limit_rows)
-- One page of an organization's ledger, the newest first.
SELECT id, kind, invoice, amount_minor, currency, status, reason, created_at FROM billing_entry
WHERE org = :org AND (:before::text IS NULL OR (created_at, id) < (
    SELECT created_at, id FROM billing_entry WHERE id = :before))
ORDER BY created_at DESC, id DESC
LIMIT :limit_rows;

-- name: adopt_price(id, plan_id, billing_interval, at)!
-- A price that was made by hand stands for this plan version from now on.
INSERT INTO stripe_price (id, plan_id, billing_interval, meter, adopted, created_at)
VALUES (:id, :plan_id, :billing_interval, NULL, true, :at)
ON CONFLICT (id) DO NOTHING;

-- name: unpriced(kind)
-- Customers with a subscription whose price is in no plan, as far as open incidents tell.
SELECT DISTINCT content ->> 'customer' AS customer FROM incident
WHERE kind = :kind AND closed_at IS NULL AND content ->> 'customer' IS NOT NULL;

-- name: catalogue()
-- The newest version of each plan that is sold by a list price, with its prices at Stripe.
SELECT plan.id, plan.code, plan.version, plan.name, plan.currency, plan.policy,
    (
        SELECT coalesce(jsonb_object_agg(r.billing_interval, r.amount_minor), '{}')
        FROM plan_price r WHERE r.plan_id = plan.id
    ) AS price_minor,
    (
        SELECT coalesce(jsonb_object_agg(m.meter, jsonb_build_array(m.overage_amount_minor, m.overage_units)), '{}')
        FROM plan_meter m WHERE m.plan_id = plan.id AND m.overage_units IS NOT NULL
    ) AS overage,
    (
        SELECT coalesce(jsonb_agg(jsonb_build_array(s.id, s.billing_interval, s.meter)), '[]')
        FROM stripe_price s WHERE s.plan_id = plan.id AND NOT s.adopted
    ) AS prices
FROM plan
WHERE plan.superseded_at IS NULL AND plan.archived_at IS NULL AND NOT plan.demo AND NOT plan.contact
ORDER BY plan.code;

-- name: superseded_prices()
-- Prices of plan versions that are not sold any more.
SELECT s.id FROM stripe_price s JOIN plan ON plan.id = s.plan_id
WHERE NOT s.adopted AND (plan.superseded_at IS NOT NULL OR plan.archived_at IS NOT NULL)
ORDER BY s.id;

-- name: subscription_in_force(org)$
-- What an organization's entitlement follows.
SELECT subscription FROM entitlement
WHERE org = :org AND subscription IS NOT NULL AND effective_from <= now()
    AND (effective_to IS NULL OR effective_to > now())
ORDER BY effective_from DESC, id DESC
LIMIT 1;
