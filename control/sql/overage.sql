-- name: unreported(since, org)
-- Counters whose overage is not what Stripe was told, with the last revision and the terms that say when the period ends.
SELECT c.org, c.period_start, c.meter, c.overage, coalesce(r.units, 0)::bigint AS reported,
    coalesce(r.revision, 0) AS revision, k.id AS customer, m.event_name, e.period_anchor,
    e.period_every, e.period_unit, e.period_bounds, e.period_starts_at, b.counted_from
FROM usage_counter c
JOIN stripe_meter m ON m.meter = c.meter
LEFT JOIN LATERAL (
    SELECT sum(w.units) AS units, max(w.revision) AS revision FROM overage_window w
    WHERE w.org = c.org AND w.period_start = c.period_start AND w.meter = c.meter
) r ON true
LEFT JOIN LATERAL (
    SELECT e.* FROM entitlement e
    WHERE e.org = c.org AND (e.effective_to IS NULL OR e.effective_to > c.period_start)
    -- Those before may have ended a moment after the period of other ones began.
    ORDER BY e.subscription IS NULL, c.period_start NOT IN (e.period_anchor, coalesce(e.period_starts_at, e.period_anchor)),
        e.effective_from
    LIMIT 1
) e ON true
JOIN LATERAL (  -- of several customers the one whose subscription the period is of
    SELECT k.id FROM stripe_customer k
    WHERE k.org = c.org AND k.deleted_at IS NULL
    ORDER BY k.id IS DISTINCT FROM (SELECT s.customer FROM subscription s WHERE s.id = e.subscription), NOT k.main,
        k.linked_at
    LIMIT 1
) k ON true
LEFT JOIN LATERAL (  -- an item that came in mid period counts from the second after
    SELECT max((i.item ->> 'created')::bigint) + 1 AS counted_from
    FROM subscription s
    CROSS JOIN LATERAL jsonb_array_elements(s.content -> 'items') AS i (item)
    JOIN stripe_price p ON p.id = i.item ->> 'price'
    WHERE s.customer = k.id AND p.meter = c.meter
) b ON true
WHERE (c.org, c.period_start, c.meter) IN (
    SELECT n.org, n.period_start, n.meter FROM usage_counter n
    WHERE n.overage <> 0 AND n.period_start >= :since AND (:org::text IS NULL OR n.org = :org)
    UNION  -- what was told, and is given back wholly
    SELECT w.org, w.period_start, w.meter FROM overage_window w
    WHERE w.period_start >= :since AND (:org::text IS NULL OR w.org = :org)
) AND c.overage <> coalesce(r.units, 0)
ORDER BY c.org, c.period_start, c.meter;

-- name: lock_freezing()$
-- Those who freeze take turns, until the transaction ends.
SELECT pg_advisory_xact_lock(hashtext('quotagate.overage'));

-- name: freeze(org, period_start, meter, revision, units, customer, event_name, identifier, event_at, at)!
-- A part of a period's overage, as it will be sent, however often that is tried.
INSERT INTO overage_window (org, period_start, meter, revision, units, customer, event_name, identifier, event_at,
    frozen_at)
VALUES (:org, :period_start, :meter, :revision, :units, :customer, :event_name, :identifier, :event_at, :at);

-- name: unsent(org)
-- What is frozen and was not accepted yet, nor given up, in the order in which it is to be sent. What takes off from what
-- was given up waits with it: alone it would take off from what others have to pay for.
SELECT w.org, w.period_start, w.meter, w.revision, w.units, w.customer, w.event_name, w.identifier, w.event_at, w.frozen_at
FROM overage_window w
WHERE w.sent_at IS NULL AND w.given_up_at IS NULL AND (:org::text IS NULL OR w.org = :org)
    AND (w.units > 0 OR NOT EXISTS (
        SELECT 1 FROM overage_window b
        WHERE b.org = w.org AND b.period_start = w.period_start AND b.meter = w.meter AND b.given_up_at IS NOT NULL
    ))
ORDER BY w.frozen_at, w.org, w.period_start, w.meter, w.revision;

-- name: terms_of(org, period_start, meter, revision, event_at)
-- What a period's overage costs by each of the terms that were in force from its start until then, the oldest first, with
-- their subscription and with how many units went before that revision.
SELECT m.overage_amount_minor AS amount_minor, m.overage_units AS amount_units, plan.currency, e.subscription,
    e.effective_from, e.period_anchor, e.period_every, e.period_unit, e.period_bounds, e.period_starts_at, (
        SELECT coalesce(sum(w.units), 0) FROM overage_window w
        WHERE w.org = e.org AND w.period_start = :period_start AND w.meter = m.meter AND w.revision < :revision
    )::bigint AS before
FROM entitlement e
JOIN plan ON plan.id = e.plan_id
JOIN plan_meter m ON m.plan_id = plan.id
WHERE e.org = :org AND m.meter = :meter AND m.overage_amount_minor IS NOT NULL
    AND (e.effective_to IS NULL OR e.effective_to > :period_start) AND e.effective_from <= :event_at
ORDER BY
    -- Those before may have ended a moment after the period of other ones began.
    :period_start NOT IN (e.period_anchor, coalesce(e.period_starts_at, e.period_anchor)) AND EXISTS (
        SELECT 1 FROM entitlement o WHERE o.org = e.org AND o.period_anchor = :period_start AND o.id <> e.id
    ),
    e.subscription IS NULL, e.effective_from;

-- name: give_up(identifier, at)!
-- Stripe refuses it, and would again.
UPDATE overage_window SET given_up_at = :at WHERE identifier = :identifier AND sent_at IS NULL;

-- name: resend(org, at, too_old)
-- What of an organization was given up is sent once more; what Stripe takes no more for its time is told for now.
UPDATE overage_window
SET given_up_at = NULL, event_at = CASE WHEN event_at < :too_old THEN :at ELSE event_at END
WHERE org = :org AND sent_at IS NULL AND given_up_at IS NOT NULL
RETURNING identifier;

-- name: sent(identifier, at)!
-- Stripe has it.
UPDATE overage_window SET sent_at = :at WHERE identifier = :identifier AND sent_at IS NULL;

-- name: totals(since, until, org)
-- What Stripe was told of each period, with the first and the last moment that it was told for.
SELECT w.org, w.period_start, w.meter, w.customer, m.id AS meter_id, sum(w.units)::bigint AS units,
    min(w.event_at) AS first_at, max(w.event_at) AS last_at, max(w.sent_at) AS sent_at
FROM overage_window w JOIN stripe_meter m ON m.meter = w.meter
WHERE w.period_start >= :since AND (:org::text IS NULL OR w.org = :org)
GROUP BY w.org, w.period_start, w.meter, w.customer, m.id
HAVING bool_and(w.sent_at IS NOT NULL) AND max(w.sent_at) < :until
ORDER BY w.org, w.period_start, w.meter;

-- name: backlog()^
-- Units that are frozen, and not accepted yet; and since when the oldest waits of what is still tried.
SELECT coalesce(sum(abs(units)), 0)::bigint AS units,
    coalesce(extract(epoch FROM now() - min(frozen_at) FILTER (WHERE given_up_at IS NULL)), 0)::float8 AS oldest_seconds
FROM overage_window WHERE sent_at IS NULL;

-- name: close_item(subscription, item, org, customer, price, meter, period_from, counted_from, period_to, closed_at, ended, replaced, prorates_removed, at)$
-- An item that billed overage is gone; the item, where that is news.
INSERT INTO overage_closing (subscription, item, org, customer, price, meter, period_from, counted_from, period_to,
    closed_at, ended, replaced, prorates_removed, next_check_at)
VALUES (:subscription, :item, :org, :customer, :price, :meter, :period_from, :counted_from, :period_to, :closed_at,
    :ended, :replaced, :prorates_removed, :at)
ON CONFLICT DO NOTHING
RETURNING item;

-- name: due_closings(at, org)
-- Items that are gone, of which it is to be looked whether their overage was billed, with what it cost; the oldest first.
SELECT k.subscription, k.item, k.org, k.customer, k.price, k.meter, k.period_from, k.counted_from, k.period_to, k.closed_at,
    k.ended, k.replaced, k.prorates_removed,
    m.overage_amount_minor AS amount_minor, m.overage_units AS amount_units, plan.currency
FROM overage_closing k
JOIN stripe_price p ON p.id = k.price
JOIN plan ON plan.id = p.plan_id
JOIN plan_meter m ON m.plan_id = p.plan_id AND m.meter = k.meter
WHERE k.settled_at IS NULL AND k.next_check_at <= :at AND (:org::text IS NULL OR k.org = :org)
ORDER BY k.closed_at, k.item;

-- name: owed(org, customer, subscription, meter, period_from, counted_from, closed_at, replaced)$
-- Units that an item had to bill: what Stripe was told of since it counted, and what it was never told of. Where another
-- item took its place, only what was told before that.
SELECT (
    (
        SELECT coalesce(sum(w.units), 0) FROM overage_window w
        WHERE w.org = :org AND w.meter = :meter AND w.customer = :customer AND w.event_at >= :counted_from
            AND w.period_start <= :closed_at AND (NOT :replaced::boolean OR w.event_at < :closed_at)
    ) + CASE WHEN :replaced::boolean THEN 0 ELSE (
        SELECT coalesce(sum(c.overage - coalesce((
            SELECT sum(w.units) FROM overage_window w
            WHERE w.org = c.org AND w.period_start = c.period_start AND w.meter = c.meter
        ), 0)), 0)
        FROM usage_counter c
        WHERE c.org = :org AND c.meter = :meter AND c.period_start >= :period_from AND c.period_start <= :closed_at
            AND EXISTS (
                SELECT 1 FROM entitlement e
                WHERE e.org = c.org AND e.subscription = :subscription
                    AND (e.effective_to IS NULL OR e.effective_to > c.period_start)
            )
    ) END
)::bigint;

-- name: check_again(subscription, item, next_check_at, settled_at)!
-- When to look next; settled: not any more.
UPDATE overage_closing SET next_check_at = :next_check_at, settled_at = :settled_at
WHERE subscription = :subscription AND item = :item;
