-- name: hold(orgs)!
-- Whoever changes one of these organizations waits, and who does so already is waited for: a trigger of that change writes
-- their summaries, too, and locks them behind the organization.
SELECT FROM organization WHERE id = ANY(:orgs::text[]) ORDER BY id FOR KEY SHARE;

-- name: facts(orgs)
-- What the directory shows of organizations beside their entitlement: who they are, how they pay.
SELECT o.id AS org, o.name, o.created_at, o.deleted_at, o.mirrored,
    EXISTS (
        SELECT FROM incident i WHERE i.org = o.id AND i.kind = 'payment_failed' AND i.closed_at IS NULL
    ) AS payment_failed,
    s.status AS subscription_status,
    (s.content -> 'items' -> 0 ->> 'current_period_end')::bigint AS current_period_end,
    (s.content ->> 'cancel_at')::bigint AS cancel_at
FROM organization o
LEFT JOIN LATERAL (
    SELECT status, content FROM subscription
    WHERE subscription.org = o.id AND status NOT IN ('canceled', 'incomplete', 'incomplete_expired')
    ORDER BY updated_at DESC, id
    LIMIT 1
) s ON true
WHERE o.id = ANY(:orgs::text[]);

-- name: counters(orgs, period_starts)
-- What was used in one period of each of these organizations.
SELECT c.org, extract(epoch FROM c.period_start)::bigint AS period_start, c.meter, c.used, c.burnt, c.overage
FROM unnest(:orgs::text[], :period_starts::timestamptz[]) AS k (org, period_start)
JOIN usage_counter c ON c.org = k.org AND c.period_start = k.period_start;

-- name: grant_counters(orgs)
-- What was used of their grants.
SELECT org, grant_id, used FROM grant_counter WHERE org = ANY(:orgs::text[]);

-- name: texts(orgs, emails_max)
-- What organizations are found by, beside their keys.
SELECT o.id AS org, o.name,
    ARRAY(
        SELECT u.email FROM membership m JOIN app_user u ON u.id = m.user_id
        WHERE m.org = o.id AND u.email IS NOT NULL
        ORDER BY m.user_id
        LIMIT :emails_max
    ) AS emails,
    ARRAY(SELECT k.id FROM stripe_customer k WHERE k.org = o.id AND k.deleted_at IS NULL) AS customers
FROM organization o
WHERE o.id = ANY(:orgs::text[]);

-- name: put_summary(org, name_key, created_at, is_deleted, plan, status, used_fraction, payment_failed, mrr_minor, renews_at, stale_at)*!
-- An organization as it is searched, filtered and sorted; where nothing changed, nothing is written.
INSERT INTO organization_summary AS s (org, name_key, created_at, is_deleted, plan, status, used_fraction,
    payment_failed, mrr_minor, renews_at, stale_at)
VALUES (:org, :name_key, :created_at, :is_deleted, :plan, :status, :used_fraction, :payment_failed, :mrr_minor,
    :renews_at, :stale_at)
ON CONFLICT (org) DO UPDATE SET name_key = excluded.name_key, is_deleted = excluded.is_deleted, plan = excluded.plan,
    status = excluded.status, used_fraction = excluded.used_fraction, payment_failed = excluded.payment_failed,
    mrr_minor = excluded.mrr_minor, renews_at = excluded.renews_at, stale_at = excluded.stale_at
WHERE (s.name_key, s.is_deleted, s.plan, s.status, s.used_fraction, s.payment_failed, s.mrr_minor, s.renews_at,
        s.stale_at)
    IS DISTINCT FROM (excluded.name_key, excluded.is_deleted, excluded.plan, excluded.status, excluded.used_fraction,
        excluded.payment_failed, excluded.mrr_minor, excluded.renews_at, excluded.stale_at);

-- name: put_terms(org, terms, trigrams)*!
-- The words by which an organization is found, and what is inside of them.
INSERT INTO organization_search AS s (org, terms, trigrams)
VALUES (:org, array_to_tsvector(:terms::text[]), array_to_tsvector(:trigrams::text[]))
ON CONFLICT (org) DO UPDATE SET terms = excluded.terms, trigrams = excluded.trigrams
WHERE s.terms <> excluded.terms OR s.trigrams <> excluded.trigrams;

-- name: take_reviews(limit_rows)
-- Organizations of which something changed, however often. They are taken off the list when the transaction ends well.
DELETE FROM organization_review WHERE id IN (
    SELECT id FROM organization_review WHERE org IN (
        SELECT org FROM organization_review ORDER BY id LIMIT :limit_rows
    )
    FOR UPDATE SKIP LOCKED
)
RETURNING org;

-- name: orgs_of_beginnings(begin, limit_rows)
-- Organizations with words that begin so, at most so many.
SELECT org FROM organization_search WHERE terms @@ :begin::text::tsquery LIMIT :limit_rows;

-- name: orgs_of_insides(inside, short, patterns, limit_rows)
-- Organizations with words that have this inside, and others that begin as `short` says, at most so many.
SELECT org FROM organization_search
WHERE trigrams @@ :inside::text::tsquery
    AND (:short::text IS NULL OR terms @@ :short::text::tsquery)
    AND words_hold(terms, :patterns::text[])
LIMIT :limit_rows;

-- name: matches_more(begin, inside, beyond)$
-- Whether there are more organizations than so many with words that begin so, or may have this inside.
SELECT EXISTS (SELECT FROM organization_search WHERE terms @@ :begin::text::tsquery OFFSET :beyond)
    OR (:inside::text IS NOT NULL
        AND EXISTS (SELECT FROM organization_search WHERE trigrams @@ :inside::text::tsquery OFFSET :beyond));

-- name: orgs_of_keys(first, behind, limit_rows)
-- Whose keys begin so, or have ids that do.
(SELECT org FROM api_key WHERE starts_with ~>=~ :first::text AND starts_with ~<~ :behind::text LIMIT :limit_rows)
UNION
(SELECT org FROM api_key WHERE id ~>=~ :first AND id ~<~ :behind LIMIT :limit_rows);

-- name: is_due(at)$
-- Whether an organization is to be read again.
SELECT EXISTS (SELECT FROM organization_review)
    OR EXISTS (SELECT FROM organization_summary WHERE stale_at <= :at);

-- name: defer(orgs, until)!
-- Organizations that cannot be read are left alone until then.
UPDATE organization_summary SET stale_at = :until WHERE org = ANY(:orgs::text[]);

-- name: stale(at, limit_rows)
-- Organizations that time alone has changed.
SELECT org FROM organization_summary WHERE stale_at <= :at ORDER BY stale_at LIMIT :limit_rows;

-- name: walk(after, limit_rows)
-- All organizations, one page in the order of their ids.
SELECT id FROM organization WHERE id > :after ORDER BY id LIMIT :limit_rows;

-- name: is_listed(org)$
-- Whether the directory has this organization.
SELECT EXISTS (SELECT FROM organization_summary WHERE org = :org);

-- name: plans()
-- The codes of all plans that there are or were.
SELECT DISTINCT code FROM plan ORDER BY code;

-- name: moments(org, before, limit_rows)
-- When what an organization has became another, or will; the newest first.
SELECT at FROM (
    SELECT effective_from AS at FROM entitlement WHERE org = :org
    UNION
    SELECT effective_to FROM entitlement WHERE org = :org AND effective_to IS NOT NULL
    UNION
    SELECT effective_from FROM entitlement_override WHERE org = :org
) AS changes
WHERE :before::timestamptz IS NULL OR at < :before
ORDER BY at DESC
LIMIT :limit_rows;

-- name: counts(org, bound)^
-- How many people, keys and sites an organization has, each counted up to a bound.
SELECT
    (SELECT count(*) FROM (SELECT FROM membership WHERE org = :org LIMIT :bound) AS x) AS people,
    (SELECT count(*) FROM (SELECT FROM api_key WHERE org = :org AND state = 'active' LIMIT :bound) AS x) AS keys,
    (SELECT count(*) FROM (SELECT FROM site WHERE org = :org AND state = 'active' LIMIT :bound) AS x) AS sites,
    (SELECT count(*) FROM (
        SELECT FROM incident WHERE org = :org AND closed_at IS NULL LIMIT :bound) AS x) AS open_incidents;
