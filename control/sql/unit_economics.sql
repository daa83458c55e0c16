-- name: lock_days()$
-- Who counts days, and who writes events of days that are over, take turns until their transactions end.
SELECT pg_advisory_xact_lock(hashtext('quotagate.usage_day'));

-- name: forget_days(days)!
-- Events of these days have been written late: they are counted again.
WITH forgotten AS (DELETE FROM usage_day_counted WHERE day = ANY(:days::date[]))
DELETE FROM usage_day WHERE day = ANY(:days::date[]);

-- name: uncounted_days(since, until)
-- The days of a time that are not counted.
SELECT d::date AS day FROM generate_series(:since::date::timestamp, :until::date::timestamp - interval '1 day', interval '1 day') d
WHERE NOT EXISTS (SELECT FROM usage_day_counted c WHERE c.day = d::date)
ORDER BY 1;

-- name: count_days(days, since, until, at)!
-- Counts days that are over, all within a time.
WITH found AS (
    SELECT (occurred_at AT TIME ZONE 'UTC')::date AS day, meter, count(*) FILTER (WHERE kind = 'take') AS calls,
        sum(units) AS units, sum(overage) AS overage
    FROM usage_event
    WHERE occurred_at >= :since AND occurred_at < :until
        AND (occurred_at AT TIME ZONE 'UTC')::date = ANY(:days::date[])
    GROUP BY 1, 2
    UNION ALL
    SELECT day, meter, NULL, sum(used), sum(overage) FROM usage_archived_sum WHERE day = ANY(:days::date[])
    GROUP BY 1, 2
), counted AS (
    INSERT INTO usage_day_counted (day, counted_at) SELECT day, :at FROM unnest(:days::date[]) day
)
INSERT INTO usage_day (day, meter, calls, units, overage)
SELECT day, meter, CASE WHEN bool_and(calls IS NOT NULL) THEN sum(calls)::bigint END, sum(units)::bigint,
    sum(overage)::bigint
FROM found GROUP BY day, meter;

-- name: used(since, until, live_since, live_until, meter)
-- What all organizations used on each day of a time, by meter: of days that are over from what was counted, and of the
-- others from their events.
SELECT day, meter, calls, units, overage FROM usage_day
WHERE day >= :since AND day < :until AND (:meter::text IS NULL OR meter = :meter)
UNION ALL
-- Each day by itself: of days computed from events PostgreSQL expects so many that it would sort all of them.
SELECT live.day::date, used.meter, used.calls, used.units, used.overage
FROM generate_series(:live_since AT TIME ZONE 'UTC', :live_until AT TIME ZONE 'UTC' - interval '1 day', interval '1 day') live (day)
CROSS JOIN LATERAL (
    SELECT meter, count(*) FILTER (WHERE kind = 'take') AS calls, sum(units)::bigint AS units, sum(overage)::bigint AS overage
    FROM usage_event
    WHERE occurred_at >= live.day AT TIME ZONE 'UTC' AND occurred_at < (live.day + interval '1 day') AT TIME ZONE 'UTC'
        AND (:meter::text IS NULL OR meter = :meter)
    GROUP BY meter
) used
ORDER BY 1, 2;

-- name: most(meter, since, until, limit_rows)
-- The organizations that used most of a meter in billing periods that began in a time.
SELECT most.org, o.name, most.periods, most.units, most.burnt, most.overage
FROM (
    SELECT org, count(*) AS periods, sum(used)::bigint AS units, sum(burnt)::bigint AS burnt, sum(overage)::bigint AS overage
    FROM usage_counter
    WHERE meter = :meter AND period_start >= :since AND period_start < :until
    GROUP BY org
    ORDER BY sum(used) DESC, org
    LIMIT :limit_rows
) most JOIN organization o ON o.id = most.org
ORDER BY most.units DESC, most.org;

-- name: collected(currency, since, until)
-- Money by month: invoices by when they were paid, and refunds by when they were made.
SELECT date_trunc('month', at AT TIME ZONE 'UTC')::date AS start, sum(paid)::bigint AS paid_minor,
    sum(refunded)::bigint AS refunded_minor
FROM (
    SELECT paid_at AS at, amount_paid_minor AS paid, 0 AS refunded FROM invoice_ref
    WHERE currency = :currency AND paid_at >= :since AND paid_at < :until
    UNION ALL
    SELECT created_at, 0, amount_minor FROM billing_entry
    WHERE kind = 'refund' AND currency = :currency AND created_at >= :since AND created_at < :until
        AND status IS DISTINCT FROM 'failed' AND status IS DISTINCT FROM 'canceled'
) money
GROUP BY 1
ORDER BY 1;
