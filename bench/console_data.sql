-- 100,000 organizations and 10,000,000 events, made in the server itself. Each step begins with `-- step:` and what it makes;
-- :organizations, :events and :days are replaced. Draws are hashes of numbers, so that each run makes the same.

-- step: functions that draw
CREATE FUNCTION pg_temp.drawn(what text, n bigint) RETURNS double precision LANGUAGE sql IMMUTABLE AS
    $$ SELECT (hashtextextended(what, n) & 1073741823) / 1073741824.0 $$;
CREATE FUNCTION pg_temp.org(n bigint) RETURNS text LANGUAGE sql IMMUTABLE AS
    $$ SELECT 'org-' || lpad(n::text, 6, '0') $$;
CREATE FUNCTION pg_temp.key_id(n bigint) RETURNS text LANGUAGE sql IMMUTABLE AS
    $$ SELECT substr(md5('key' || n), 1, 12) $$;
CREATE TEMP TABLE word (n int, text text);
INSERT INTO word SELECT n - 1, w FROM unnest(string_to_array('Alder Amber Arbor Aurora Beacon Birch Bright Cedar Cobalt '
    'Coral Delta Ember Falcon Fjord Granite Harbor Hazel Iron Juniper Lark Linden Maple Meridian Nimbus North Oak Onyx Opal '
    'Orchard Prairie Quartz Raven Ridge River Sable Sierra Silver Sparrow Summit Willow', ' ')) WITH ORDINALITY AS t (w, n);

-- step: prices at Stripe
INSERT INTO stripe_price (id, plan_id, billing_interval, meter, created_at)
SELECT 'price_' || code || '_' || billing_interval, id, billing_interval, NULL, now() - interval '3 years'
FROM plan JOIN plan_price ON plan_id = id WHERE superseded_at IS NULL;

-- step: organizations
INSERT INTO organization (id, name, created_at)
SELECT pg_temp.org(o.n), a.text || ' ' || b.text || ' ' || o.n,
    date_trunc('second', now() - interval '730 days' * pg_temp.drawn('age', o.n))
FROM generate_series(1, :organizations) AS o (n)
JOIN word a ON a.n = o.n % 40 JOIN word b ON b.n = (o.n / 40) % 40;

-- step: people
INSERT INTO app_user (id, email, name, mirrored, created_at)
SELECT 'u' || n || '_' || m, 'person' || m || '@' || pg_temp.org(n) || '.example', 'Person ' || n || '.' || m, false, now()
FROM generate_series(1, :organizations) AS n, generate_series(1, 2) AS m;
INSERT INTO membership (org, user_id, role, created_at)
SELECT pg_temp.org(n), 'u' || n || '_' || m, CASE m WHEN 1 THEN 'owner' ELSE 'member' END, now()
FROM generate_series(1, :organizations) AS n, generate_series(1, 2) AS m;

-- step: subscriptions and what they were worth
CREATE TEMP TABLE life AS
SELECT n, pg_temp.org(n) AS org, o.created_at AS starts,
    (ARRAY['starter', 'starter', 'team', 'team', 'growth', 'pro', 'team_eu'])[1 + floor(7 * pg_temp.drawn('plan', n))::int] AS plan,
    CASE WHEN pg_temp.drawn('interval', n) < 0.2 THEN 'year' ELSE 'month' END AS billed,
    CASE WHEN pg_temp.drawn('fate', n) < 0.15 THEN 'canceled' WHEN pg_temp.drawn('fate', n) < 0.18 THEN 'past_due'
        WHEN pg_temp.drawn('fate', n) < 0.20 THEN 'unpaid' WHEN pg_temp.drawn('fate', n) < 0.23 THEN 'trialing' ELSE 'active' END AS status,
    o.created_at + (now() - o.created_at) * (0.3 + 0.6 * pg_temp.drawn('turn', n)) AS turns
FROM generate_series(1, :organizations) AS n JOIN organization o ON o.id = pg_temp.org(n);
CREATE INDEX ON life (org);
INSERT INTO stripe_customer (id, org, linked_at) SELECT 'cus_' || n, org, starts FROM life;
INSERT INTO subscription (id, org, customer, status, content, updated_at)
SELECT 'sub_' || n, org, 'cus_' || n, status, jsonb_build_object(
    'created', extract(epoch FROM starts)::bigint, 'billing_cycle_anchor', extract(epoch FROM starts)::bigint,
    'trial_end', NULL, 'cancel_at', NULL, 'ended_at', NULL, 'schedule', NULL, 'pending_update', false,
    'items', jsonb_build_array(jsonb_build_object('id', 'si_' || n, 'price', 'price_' || plan || '_' || billed, 'quantity', 1,
        'created', extract(epoch FROM starts)::bigint, 'current_period_start', extract(epoch FROM now() - interval '10 days')::bigint,
        'current_period_end', extract(epoch FROM now() + interval '20 days' * pg_temp.drawn('renews', n))::bigint))), turns
FROM life;
INSERT INTO subscription_history (subscription, valid_from, valid_to, org, customer, status, currency, plan, items, discounts,
    annual_stripe, annual_chartmogul, annual_baremetrics, priced, recorded_at)
SELECT 'sub_' || n, s.since, s.until, l.org, 'cus_' || n, s.state, p.currency, p.code, jsonb_build_array(jsonb_build_object(
        'price', 'price_' || p.code || '_' || l.billed, 'plan', p.code, 'quantity', 1, 'unit_amount', r.amount_minor::text,
        'interval', l.billed, 'interval_count', 1, 'metered', false, 'discounts', '[]'::jsonb)), '[]',
    v.annual, CASE WHEN s.state = 'unpaid' THEN a.annual ELSE v.annual END, v.annual, true, s.since
FROM life l
CROSS JOIN LATERAL (VALUES
    (l.starts, l.turns, 'active', CASE l.plan WHEN 'team' THEN 'starter' WHEN 'pro' THEN 'growth' ELSE l.plan END),
    (l.turns, NULL, l.status, l.plan)
) s (since, until, state, plan)
JOIN plan p ON p.code = s.plan AND p.superseded_at IS NULL
JOIN plan_price r ON r.plan_id = p.id AND r.billing_interval = l.billed
CROSS JOIN LATERAL (SELECT r.amount_minor * CASE l.billed WHEN 'month' THEN 12 ELSE 1 END AS annual) a
CROSS JOIN LATERAL (SELECT CASE WHEN s.state IN ('active', 'past_due') THEN a.annual ELSE 0 END AS annual) v
WHERE s.until IS NULL OR s.until > s.since;
INSERT INTO mrr_movement (definition, currency, day, org, kind, annual_before, annual_after)
SELECT definition, currency, day, org, kind, annual_before, annual_after FROM mrr_movement_computed;

-- step: entitlements
INSERT INTO entitlement (id, org, plan_id, status, period_anchor, effective_from, effective_to, subscription, quantity)
SELECT gen_random_uuid(), l.org, p.id, CASE l.status WHEN 'past_due' THEN 'grace' WHEN 'unpaid' THEN 'suspended'
        WHEN 'trialing' THEN 'trialing' ELSE 'active' END,
    date_trunc('second', l.starts), s.since, s.until, 'sub_' || n, 1
FROM life l
CROSS JOIN LATERAL (VALUES
    (l.starts, l.turns, CASE l.plan WHEN 'team' THEN 'starter' WHEN 'pro' THEN 'growth' ELSE l.plan END),
    (l.turns, NULL, l.plan)
) s (since, until, plan)
JOIN plan p ON p.code = s.plan AND p.superseded_at IS NULL
WHERE l.status <> 'canceled' OR s.until IS NOT NULL;
DELETE FROM threshold_review;
INSERT INTO publication (org, version, published_version, published_at, renew_at)
SELECT org, v, CASE WHEN n % 500 = 1 THEN 0 ELSE v END, now(), NULL
FROM (SELECT org, n, nextval('publication_version') AS v FROM life) AS each;

-- step: keys
INSERT INTO api_key (id, org, digest, starts_with, last_four, name, environment, scopes, networks, quotas, state, imported,
    created_at, changed_version)
SELECT pg_temp.key_id(n), pg_temp.org(1 + n % :organizations), sha256(('key' || n)::bytea), 'qg_live_' || substr(md5('text' || n), 1, 4),
    substr(md5('text' || n), 5, 4), 'production', 'live', '{}', '{}', '[]', 'active', false, now() - interval '30 days', 1
FROM generate_series(1, :organizations + :organizations / 2) AS n;

-- step: incidents
INSERT INTO incident (id, kind, key, org, content, count, opened_at, last_seen_at, closed_at)
SELECT (lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0') || '7' || substr(md5('i' || n), 1, 3) || '8' || substr(md5('i' || n), 4, 15))::uuid,
    kind, CASE kind WHEN 'quota_exhausted' THEN pg_temp.org(o) || '/api_calls' || n ELSE kind || n END, pg_temp.org(o),
    CASE kind WHEN 'payment_failed' THEN jsonb_build_object('invoice', 'in_' || n, 'number', 'Q-' || n, 'amount_remaining_minor', 4900,
            'currency', 'usd', 'attempts', 2, 'next_attempt_at', NULL, 'due_at', NULL, 'hosted_url', NULL)
        ELSE jsonb_build_object('meter', 'api_calls', 'policy', 'HARD_STOP', 'limit', 10000, 'overage_max', NULL,
            'period_start', '2026-11-01T00:00:00Z', 'period_end', '2026-12-01T00:00:00Z') END,
    1 + n % 4, at, at, CASE WHEN n % 10 <> 0 THEN at + interval '2 days' END
FROM (
    SELECT n, 1 + floor(:organizations * pg_temp.drawn('incident', n))::bigint AS o, now() - interval '200 days' * pg_temp.drawn('when', n) AS at,
        CASE WHEN n % 3 = 0 THEN 'payment_failed' ELSE 'quota_exhausted' END AS kind
    FROM generate_series(1, :organizations / 5) AS n
) AS each;

-- step: invoices
INSERT INTO invoice_ref (id, org, customer, subscription, number, status, billing_reason, currency, total_minor,
    amount_paid_minor, amount_remaining_minor, period_start, period_end, created_at, finalized_at, paid_at)
SELECT 'in_' || n || '_' || m, org, 'cus_' || n, 'sub_' || n, 'Q-' || n || '-' || m, CASE WHEN n % 30 = 0 AND m = 1 THEN 'open' ELSE 'paid' END,
    'subscription_cycle', CASE plan WHEN 'team_eu' THEN 'eur' ELSE 'usd' END, 4900, 4900, 0,
    at - interval '1 month', at, at, at, at
FROM life, generate_series(1, 6) AS m, LATERAL (SELECT now() - interval '30 days' * m AS at) AS when_made
WHERE at > starts;

-- step: the journal
INSERT INTO audit_journal (id, at, actor, action, org, before, after, correlation_id)
SELECT (lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0') || '7' || substr(md5('j' || n), 1, 3) || '8' || substr(md5('j' || n), 4, 15))::uuid,
    at, 'person:admin' || n % 20 || '@vendor.example',
    (ARRAY['invoice.paid', 'entitlement.subscribed', 'key.created', 'grant.created', 'member.added'])[1 + n % 5],
    pg_temp.org(1 + floor(:organizations * pg_temp.drawn('journal', n))::bigint), NULL,
    jsonb_build_object('n', n, 'plan', 'starter', 'units', n % 1000), md5(n::text)
FROM (SELECT n, now() - interval '400 days' + interval '400 days' * n / (3.0 * :organizations) AS at FROM generate_series(1, 3 * :organizations) AS n) AS each;

-- step: webhooks
INSERT INTO webhook_event (id, type, customer, created_at, received_at, payload, attempts, next_attempt_at, last_error, outcome, ended_at)
SELECT 'evt_' || n, 'invoice.paid', 'cus_' || 1 + n % :organizations, at, at, jsonb_build_object('id', 'evt_' || n, 'object', 'event',
        'type', 'invoice.paid', 'data', jsonb_build_object('object', jsonb_build_object('id', 'in_' || n, 'object', 'invoice', 'padding', repeat('x', 1500)))),
    1, at, CASE WHEN n % 5000 = 0 THEN 'No such customer' END, CASE WHEN n % 5000 = 0 THEN 'dead' ELSE 'done' END, at
FROM (SELECT n, now() - interval '30 days' * pg_temp.drawn('webhook', n) AS at FROM generate_series(1, :organizations) AS n) AS each;
