-- name: draw_version(org)$
-- Draws the version of a change of who may use the organization: from here on it waits to be published. It is drawn
-- behind the row's lock, so that versions of one organization grow in the order of their commits.
INSERT INTO publication (org, version, entitled) VALUES (:org, nextval('publication_version'), false)
ON CONFLICT (org) DO UPDATE SET version = nextval('publication_version')
RETURNING version;

-- name: insert(id, org, digest, starts_with, last_four, name, environment, user_id, scopes, networks, quotas, rate_requests, rate_seconds, rate_burst, state, imported, created_at, expires_at, rolled_from, version)<!
-- A new key and its id; nothing where a key with this digest is there already.
INSERT INTO api_key (id, org, digest, starts_with, last_four, name, environment, user_id, scopes, networks, quotas,
    rate_requests, rate_seconds, rate_burst, state, imported, created_at, expires_at, rolled_from, changed_version)
VALUES (:id, :org, :digest, :starts_with, :last_four, :name, :environment, :user_id, :scopes, :networks, :quotas,
    :rate_requests, :rate_seconds, :rate_burst, :state, :imported, :created_at, :expires_at, :rolled_from, :version)
ON CONFLICT (substring(digest FROM 1 FOR 16)) DO NOTHING
RETURNING id;

-- name: find(org, id)^
-- One key of an organization.
SELECT k.id, k.org, k.starts_with, k.last_four, k.name, k.environment, k.user_id, k.scopes, k.networks, k.quotas,
    k.rate_requests, k.rate_seconds, k.rate_burst, k.state, k.imported, k.created_at, k.expires_at, k.revoked_at,
    k.rolled_from, k.rolled_to, k.dropped_at, u.used_at
FROM api_key k LEFT JOIN api_key_use u ON u.key_id = k.id
WHERE k.org = :org AND k.id = :id;

-- name: by_digest(digest)^
-- The key that has these first 16 bytes of a SHA-256.
SELECT k.id, k.org, k.starts_with, k.last_four, k.name, k.environment, k.user_id, k.scopes, k.networks, k.quotas,
    k.rate_requests, k.rate_seconds, k.rate_burst, k.state, k.imported, k.created_at, k.expires_at, k.revoked_at,
    k.rolled_from, k.rolled_to, k.dropped_at, u.used_at
FROM api_key k LEFT JOIN api_key_use u ON u.key_id = k.id
WHERE substring(k.digest FROM 1 FOR 16) = :digest;

-- name: page(org, before, state, user_id, environment, at, limit_rows)
-- One page of an organization's keys, the newest first.
SELECT k.id, k.org, k.starts_with, k.last_four, k.name, k.environment, k.user_id, k.scopes, k.networks, k.quotas,
    k.rate_requests, k.rate_seconds, k.rate_burst, k.state, k.imported, k.created_at, k.expires_at, k.revoked_at,
    k.rolled_from, k.rolled_to, k.dropped_at, u.used_at
FROM api_key k LEFT JOIN api_key_use u ON u.key_id = k.id
WHERE k.org = :org
    AND (:before::text IS NULL OR k.number < (SELECT b.number FROM api_key b WHERE b.org = :org AND b.id = :before))
    AND (:state::text IS NULL
        OR :state = CASE WHEN k.state <> 'revoked' AND k.expires_at <= :at THEN 'expired' ELSE k.state END)
    AND (:user_id::text IS NULL OR k.user_id = :user_id)
    AND (:environment::text IS NULL OR k.environment = :environment)
ORDER BY k.number DESC
LIMIT :limit_rows;

-- name: published_count(org)$
-- How many keys of an organization are published.
SELECT count(*) FROM api_key WHERE org = :org AND dropped_at IS NULL;

-- name: change(org, id, name, scopes, networks, quotas, rate_requests, rate_seconds, rate_burst, state, expires_at, revoked_at, rolled_to, version)!
-- What a key is from now on.
UPDATE api_key SET name = :name, scopes = :scopes, networks = :networks, quotas = :quotas,
    quotas_changed_at = CASE WHEN quotas = :quotas THEN quotas_changed_at ELSE clock_timestamp() END,
    rate_requests = :rate_requests, rate_seconds = :rate_seconds, rate_burst = :rate_burst, state = :state,
    expires_at = :expires_at, revoked_at = :revoked_at, rolled_to = :rolled_to, changed_version = :version
WHERE org = :org AND id = :id;

-- name: revoke_all(org, user_id, at, version)$
-- Revokes the keys of an organization, or of one of its users; how many they were.
WITH revoked AS (
    UPDATE api_key SET state = 'revoked', revoked_at = :at, changed_version = :version
    WHERE org = :org AND (:user_id::text IS NULL OR user_id = :user_id) AND state <> 'revoked' AND dropped_at IS NULL
    RETURNING id
)
SELECT count(*) FROM revoked;

-- name: published(org, since, after, limit_rows)
-- What is published of an organization's keys, in the order of their numbers; of version `since` only what changed
-- after it.
SELECT number, id, substring(digest FROM 1 FOR 16) AS digest, state, expires_at, environment, user_id, scopes, networks,
    quotas, rate_requests, rate_seconds, rate_burst, dropped_at IS NOT NULL AS is_dropped
FROM api_key
WHERE org = :org AND changed_version > :since AND number > :after AND (dropped_at IS NULL OR :since > 0)
ORDER BY number
LIMIT :limit_rows;

-- name: limited(orgs)
-- The keys of organizations that have quotas of their own, and are published.
SELECT org, id, quotas, quotas_changed_at FROM api_key
WHERE org = ANY(:orgs::text[]) AND dropped_at IS NULL AND quotas <> '[]';

-- name: indexed(after, limit_rows)
-- The digests of all keys that are published, and whose they are, in the order of their numbers.
SELECT number, org, substring(digest FROM 1 FOR 16) AS digest FROM api_key
WHERE number > :after AND dropped_at IS NULL
ORDER BY number
LIMIT :limit_rows;

-- name: over(before, limit_rows)
-- Keys that were revoked or have expired before then, and are published still.
SELECT org, id FROM api_key
WHERE dropped_at IS NULL AND least(expires_at, revoked_at) < :before
ORDER BY least(expires_at, revoked_at)
LIMIT :limit_rows;

-- name: drop(org, ids, before, version, at)
-- Publishes these no more, if they are over still; their digests. Nothing changes them afterwards.
UPDATE api_key SET dropped_at = :at, changed_version = :version
WHERE org = :org AND id = ANY(:ids::text[]) AND dropped_at IS NULL AND least(expires_at, revoked_at) < :before
RETURNING substring(digest FROM 1 FOR 16) AS digest;

-- name: mark_used(key_ids, used_at)!
-- The minute of the last admitted request with each of these keys.
INSERT INTO api_key_use AS u (key_id, used_at)
SELECT * FROM unnest(:key_ids::text[], :used_at::timestamptz[])
ON CONFLICT (key_id) DO UPDATE SET used_at = excluded.used_at WHERE u.used_at < excluded.used_at;
