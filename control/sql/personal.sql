-- name: users_with_email(email)
-- Users who have this address, in any letter case.
SELECT id FROM app_user WHERE lower(email) = lower(:email) ORDER BY id;

-- name: of_sessions(identities)
-- As whom else a person has signed in: the addresses and provider's ids of sessions that have one of these.
SELECT DISTINCT unnest(ARRAY[person, email]) AS identity FROM session
WHERE provider IS NOT NULL AND email IS NOT NULL
    AND (person = ANY(:identities::text[]) OR email = ANY(:identities::text[]));

-- name: of_sign_ins(aliases)
-- The same as the journal has it, when the sessions are gone.
SELECT DISTINCT a.owner FROM journal_alias k
JOIN audit_journal j ON j.actor = 'person:' || k.alias AND j.action = 'session.began'
JOIN journal_alias a ON a.alias = j.after ->> 'person'
WHERE k.alias = ANY(:aliases::text[]);

-- name: organizations(users)
-- Organizations in which these users were something.
SELECT org FROM membership WHERE user_id = ANY(:users::text[])
UNION SELECT org FROM api_key WHERE user_id = ANY(:users::text[])
UNION SELECT org FROM portal_session WHERE user_id = ANY(:users::text[])
UNION SELECT org FROM revocation WHERE kind = 'user' AND subject = ANY(:users::text[])
ORDER BY 1;

-- name: rows(users, identities, emails, limit_rows)
-- What is stored of a person, row by row, without secrets; the aliases of the journal and its entries are apart.
SELECT 'app_user' AS place, to_jsonb(t) AS content FROM app_user t WHERE t.id = ANY(:users::text[])
UNION ALL SELECT 'membership', to_jsonb(t) FROM membership t WHERE t.user_id = ANY(:users::text[])
UNION ALL SELECT 'admin_role', to_jsonb(t) FROM admin_role t WHERE t.subject = ANY(:identities::text[])
UNION ALL SELECT 'session', to_jsonb(t) - 'digest' FROM session t
    WHERE t.person = ANY(:identities::text[]) OR t.email = ANY(:identities::text[])
UNION ALL SELECT 'portal_session', to_jsonb(t) - 'digest' FROM portal_session t WHERE t.user_id = ANY(:users::text[])
UNION ALL SELECT 'portal_link', to_jsonb(t) - 'digest' FROM portal_link t WHERE t.user_id = ANY(:users::text[])
UNION ALL SELECT 'api_key', to_jsonb(t) - 'digest' FROM api_key t WHERE t.user_id = ANY(:users::text[])
UNION ALL SELECT 'revocation', to_jsonb(t) FROM revocation t WHERE t.kind = 'user' AND t.subject = ANY(:users::text[])
UNION ALL SELECT 'mirror_look', to_jsonb(t) FROM mirror_look t WHERE t.kind = 'user' AND t.subject = ANY(:users::text[])
UNION ALL SELECT 'refusal', to_jsonb(t) FROM (
    SELECT * FROM refusal WHERE user_id = ANY(:users::text[]) ORDER BY at DESC LIMIT :limit_rows::integer
) AS t
UNION ALL SELECT r.place, r.content FROM person_rows(:identities::text[], :emails::text[], :limit_rows::integer) r;

-- name: usage(orgs, users)
-- What a person's requests have used, in the events that are in the database.
SELECT org, meter, sum(units)::bigint AS units, count(*) AS charges, min(occurred_at) AS first_at, max(occurred_at) AS last_at
FROM usage_event WHERE org = ANY(:orgs::text[]) AND user_id = ANY(:users::text[])
GROUP BY org, meter ORDER BY org, meter;

-- name: journal(words, limit_rows)
-- Entries that name a person, the newest first.
SELECT id, at, actor, action, before, after, correlation_id FROM audit_journal
WHERE audit_words(before, after, actor || ' ' || correlation_id) @@ any_words(:words::text[])
ORDER BY at DESC, id DESC
LIMIT :limit_rows;

-- name: requests(before, limit_rows)
-- Exports and erasures of people, the newest first.
SELECT id, at, actor, action, before, after, correlation_id FROM audit_journal
WHERE action IN ('person.erased', 'person.exported')
    AND (:before::uuid IS NULL OR (at, id) < (SELECT b.at, b.id FROM audit_journal b WHERE b.id = :before))
ORDER BY at DESC, id DESC
LIMIT :limit_rows;

-- name: customers(orgs)
-- Stripe's customers of these organizations.
SELECT id FROM stripe_customer WHERE org = ANY(:orgs::text[]) AND deleted_at IS NULL ORDER BY id;

-- name: rename(identities, emails, alias)
-- An alias, which stands for nobody, in place of a person; by column, in how many rows.
SELECT place, changed FROM rename_person(:identities::text[], :emails::text[], :alias) WHERE changed > 0;

-- name: forget_sessions(identities)
-- Sessions of a person, and those that links of the person have opened: nobody is left who made them.
DELETE FROM session WHERE person = ANY(:identities::text[]) OR email = ANY(:identities::text[])
    OR maker ->> 'person' = ANY(:identities::text[]) OR maker ->> 'email' = ANY(:identities::text[])
    OR person_named(person) = ANY(:identities::text[])
RETURNING id;

-- name: forget_links(identities)
-- Links into the console that a person has made.
DELETE FROM console_link WHERE person_named(created_by) = ANY(:identities::text[])
    OR maker ->> 'person' = ANY(:identities::text[]) OR maker ->> 'email' = ANY(:identities::text[])
RETURNING created_at;

-- name: forget_portal_sessions(users, identities)
-- Sessions in the portal of a user, and those that links of the person have opened.
DELETE FROM portal_session WHERE user_id = ANY(:users::text[]) OR opened_by = ANY(:identities::text[])
    OR maker ->> 'person' = ANY(:identities::text[]) OR maker ->> 'email' = ANY(:identities::text[])
RETURNING id;

-- name: forget_portal_links(users, identities)
-- Links into the portal for a user, or by a person.
DELETE FROM portal_link WHERE user_id = ANY(:users::text[])
    OR maker ->> 'person' = ANY(:identities::text[]) OR maker ->> 'email' = ANY(:identities::text[])
RETURNING created_at;

-- name: forget_refusals(users)
-- Refused requests stay without who made them.
UPDATE refusal SET user_id = NULL WHERE user_id = ANY(:users::text[]) RETURNING at;

-- name: forget_admin_roles(identities)
-- Nobody of the vendor any more.
DELETE FROM admin_role WHERE subject = ANY(:identities::text[]) RETURNING role;
