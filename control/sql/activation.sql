-- name: insert_code(id, digest, handle, org, plan, product, sites, scopes, uncounted_domains, access_seconds, note, created_by, created_at, expires_at)!
-- A new activation code, of which only the digest is stored.
INSERT INTO activation_code (id, digest, handle, org, plan, product, sites, scopes, uncounted_domains, access_seconds, note, created_by, created_at, expires_at)
VALUES (:id, :digest, :handle, :org, :plan, :product, :sites, :scopes, :uncounted_domains, :access_seconds, :note, :created_by, :created_at, :expires_at);

-- name: code_of(digest)^
-- The code that has this digest.
SELECT id, handle, org, plan, product, sites, scopes, uncounted_domains, access_seconds, note, created_by, created_at, expires_at, revoked_at, refusals, refused_for, refused_at
FROM activation_code WHERE digest = :digest;

-- name: find_code(id)^
-- A code.
SELECT id, handle, org, plan, product, sites, scopes, uncounted_domains, access_seconds, note, created_by, created_at, expires_at, revoked_at, refusals, refused_for, refused_at
FROM activation_code WHERE id = :id;

-- name: lock_code(id)^
-- A code, held until the transaction ends, so that it is not revoked meanwhile.
SELECT id, handle, org, plan, product, sites, scopes, uncounted_domains, access_seconds, note, created_by, created_at, expires_at, revoked_at, refusals, refused_for, refused_at
FROM activation_code WHERE id = :id FOR UPDATE;

-- name: codes(org, before, id, limit_rows)
-- One page of codes, of an organization or the one of an id where such is named, the newest first, with how many seats are taken.
SELECT c.id, c.handle, c.org, c.plan, c.product, c.sites, c.scopes, c.uncounted_domains, c.access_seconds, c.note, c.created_by, c.created_at, c.expires_at, c.revoked_at, c.refusals, c.refused_for, c.refused_at,
    (SELECT count(*) FROM site s WHERE s.code = c.id AND s.state = 'active' AND s.kind = 'production') AS taken
FROM activation_code c
WHERE (:org::text IS NULL OR c.org = :org) AND (:before::uuid IS NULL OR c.id < :before) AND (:id::uuid IS NULL OR c.id = :id)
ORDER BY c.id DESC
LIMIT :limit_rows;

-- name: is_code(org, id)$
-- Whether there is a code of this id, of the organization where one is named.
SELECT EXISTS (SELECT 1 FROM activation_code WHERE id = :id AND (:org::text IS NULL OR org = :org));

-- name: revoke_code(id, at)!
-- From now on the code activates nothing. Its sites go on.
UPDATE activation_code SET revoked_at = :at WHERE id = :id AND revoked_at IS NULL;

-- name: note_refusal(id, refused_for, at)!
-- Why the code did not activate what asked: for an admin, since the client is not told.
UPDATE activation_code SET refusals = refusals + 1, refused_for = :refused_for, refused_at = :at WHERE id = :id;

-- name: seats_taken(code)$
-- Active sites that have a seat of the code.
SELECT count(*) FROM site WHERE code = :code AND state = 'active' AND kind = 'production';

-- name: seats_of(org, at)$
-- What the organization has of seats: sites that are active, and what its codes that are in force have left.
SELECT (SELECT count(*) FROM site WHERE org = :org AND state = 'active' AND kind = 'production')
    + COALESCE((SELECT sum(c.sites - (SELECT count(*) FROM site s WHERE s.code = c.id AND s.state = 'active' AND s.kind = 'production'))
        FROM activation_code c WHERE c.org = :org AND c.revoked_at IS NULL AND c.expires_at > :at), 0)::bigint;

-- name: insert_site(id, org, code, product, name, domain, key, kind, clone_of, activated_at)!
-- A new site.
INSERT INTO site (id, org, code, product, name, domain, key, kind, clone_of, state, activated_at, seen_at)
VALUES (:id, :org, :code, :product, :name, :domain, :key, :kind, :clone_of, 'active', :activated_at, :activated_at);

-- name: find_site(id)^
-- A site.
SELECT id, org, code, product, name, domain, former_domain, key, kind, clone_of, state, ended_by, activated_at, seen_at, ended_at
FROM site WHERE id = :id;

-- name: is_site(org, id)$
-- Whether the organization has a site of this id.
SELECT EXISTS (SELECT 1 FROM site WHERE id = :id AND org = :org);

-- name: lock_site(id)^
-- A site, held until the transaction ends.
SELECT id, org, code, product, name, domain, former_domain, key, kind, clone_of, state, ended_by, activated_at, seen_at, ended_at
FROM site WHERE id = :id FOR UPDATE;

-- name: at_domain(org, product, domain)
-- Active sites of the organization at a domain, the one that was heard of last first.
SELECT id, org, code, product, name, domain, former_domain, key, kind, clone_of, state, ended_by, activated_at, seen_at, ended_at
FROM site WHERE org = :org AND product = :product AND domain = :domain AND state = 'active'
ORDER BY seen_at DESC, id;

-- name: of_key(code, key)
-- Active sites that have a seat of this code, and this key.
SELECT id, org, code, product, name, domain, former_domain, key, kind, clone_of, state, ended_by, activated_at, seen_at, ended_at
FROM site WHERE code = :code AND key = :key AND state = 'active' AND kind = 'production'
ORDER BY seen_at DESC, id;

-- name: staging_of(org)
-- Active staging sites of the organization, the one that has been silent for longest first.
SELECT id, org, code, product, name, domain, former_domain, key, kind, clone_of, state, ended_by, activated_at, seen_at, ended_at
FROM site WHERE org = :org AND state = 'active' AND kind = 'staging'
ORDER BY seen_at, id;

-- name: sites(org, state, before, limit_rows)
-- One page of the organization's sites, the newest first.
SELECT id, org, code, product, name, domain, former_domain, key, kind, clone_of, state, ended_by, activated_at, seen_at, ended_at
FROM site
WHERE org = :org AND (:state::text IS NULL OR state = :state) AND (:before::text IS NULL OR id < :before)
ORDER BY id DESC
LIMIT :limit_rows;

-- name: change_site(id, code, name, domain, former_domain, key, kind, clone_of, state, ended_by, seen_at, ended_at)!
-- What can change about a site.
UPDATE site SET code = :code, name = :name, domain = :domain, former_domain = :former_domain, key = :key, kind = :kind,
    clone_of = :clone_of, state = :state, ended_by = :ended_by, seen_at = :seen_at, ended_at = :ended_at
WHERE id = :id;

-- name: insert_family(id, site, tag_key, generation, digest, salt, attempt, rotated_at)!
-- A new family of refresh tokens.
INSERT INTO refresh_family (id, site, tag_key, generation, digest, salt, attempt, rotated_at)
VALUES (:id, :site, :tag_key, :generation, :digest, :salt, :attempt, :rotated_at);

-- name: find_family(id)^
-- A family.
SELECT id, site, tag_key, generation, digest, salt, attempt, rotated_at, ended_by FROM refresh_family WHERE id = :id;

-- name: live_family(site)^
-- The family whose tokens the site uses now.
SELECT id, site, tag_key, generation, digest, salt, attempt, rotated_at, ended_by
FROM refresh_family WHERE site = :site AND ended_by IS NULL;

-- name: rotate_family(id, generation, digest, salt, attempt, rotated_at)!
-- The family has a new current token.
UPDATE refresh_family SET generation = :generation, digest = :digest, salt = :salt, attempt = :attempt, rotated_at = :rotated_at
WHERE id = :id;

-- name: end_family(site, ended_by)!
-- The site's refresh tokens are of no use any more.
UPDATE refresh_family SET ended_by = :ended_by WHERE site = :site AND ended_by IS NULL;

-- name: hand_over_family(site, to)!
-- Another site goes on with the site's refresh tokens.
UPDATE refresh_family SET site = :to WHERE site = :site AND ended_by IS NULL;
