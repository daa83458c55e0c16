-- name: insert(id, digest, org, user_id, role, opened_by, maker, return_url, address, browser, issued_at, at, expires_at)!
-- A session of somebody who has just come in.
INSERT INTO portal_session (id, digest, org, user_id, role, opened_by, maker, return_url, address, browser, issued_at,
    created_at, used_at, expires_at)
VALUES (:id, :digest, :org, :user_id, :role, :opened_by, :maker, :return_url, :address, :browser, :issued_at,
    :at, :at, :expires_at);

-- name: find(digest, now, idle_since)^
-- The session of this secret, if nothing has ended it: neither its own end, nor that of the organization, nor a
-- revocation of session, user or organization. With the role that the user has in the organization now.
SELECT s.id, s.org, o.name AS org_name, s.user_id, coalesce(m.role, s.role) AS role, s.opened_by, s.maker, s.return_url,
    s.address, s.browser, s.created_at, s.used_at, s.expires_at
FROM portal_session s
JOIN organization o ON o.id = s.org AND o.deleted_at IS NULL
LEFT JOIN membership m ON m.org = s.org AND m.user_id = s.user_id
WHERE s.digest = :digest AND s.ended_at IS NULL AND s.expires_at > :now AND s.used_at > :idle_since
    AND NOT EXISTS (
        SELECT FROM revocation r
        WHERE r.org = s.org AND r.lifted_at IS NULL
            AND (r.kind, r.subject) IN (('organization', ''), ('user', s.user_id), ('session', s.id::text))
            AND (r.issued_until IS NULL OR s.issued_at < date_trunc('second', r.issued_until) + interval '1 second')
    );

-- name: touch(id, now)!
-- It was used, which puts off its end by idleness.
UPDATE portal_session SET used_at = :now WHERE id = :id AND used_at < :now;

-- name: live(org, user_id, now, idle_since, limit_rows)
-- Sessions that have not ended, of an organization, and of one user where one is named; those that were used last first.
SELECT s.id, s.org, o.name AS org_name, s.user_id, coalesce(m.role, s.role) AS role, s.opened_by, s.maker, s.return_url,
    s.address, s.browser, s.created_at, s.used_at, s.expires_at
FROM portal_session s
JOIN organization o ON o.id = s.org
LEFT JOIN membership m ON m.org = s.org AND m.user_id = s.user_id
WHERE s.org = :org AND s.ended_at IS NULL AND s.expires_at > :now AND s.used_at > :idle_since
    AND (:user_id::text IS NULL OR s.user_id = :user_id)
ORDER BY s.used_at DESC, s.id DESC
LIMIT :limit_rows;

-- name: end(id, org, now)^
-- Ends one session, of that organization where one is named; whose it was, or nothing where there is none to end.
UPDATE portal_session SET ended_at = :now
WHERE id = :id AND ended_at IS NULL AND (:org::text IS NULL OR org = :org)
RETURNING org, user_id;

-- name: end_by_digest(digest, now)!
-- Ends the session of this secret, which a new one replaces.
UPDATE portal_session SET ended_at = :now WHERE digest = :digest AND ended_at IS NULL;

-- name: forget(before)!
-- Sessions that are long over; the journal tells who was here.
DELETE FROM portal_session WHERE expires_at < :before;

-- name: insert_link(digest, org, user_id, role, return_url, created_by, maker, at, expires_at)!
-- A link that is good for one sign-in.
INSERT INTO portal_link (digest, org, user_id, role, return_url, created_by, maker, created_at, expires_at)
VALUES (:digest, :org, :user_id, :role, :return_url, :created_by, :maker, :at, :expires_at);

-- name: use_link(digest, now)^
-- Uses a link up; nothing where it is unknown, used or expired.
UPDATE portal_link SET used_at = :now
WHERE digest = :digest AND used_at IS NULL AND expires_at > :now
RETURNING org, user_id, role, return_url, created_by, maker, created_at;

-- name: forget_links(before)!
-- Links that are long over.
DELETE FROM portal_link WHERE expires_at < :before;

-- name: standing(org, user_id, issued_at)^
-- What is known of somebody whom an identity provider names: the role of a membership; whether members of the
-- organization are known here at all; whether a revocation refuses who is identified at that time. Nothing where there
-- is no such organization.
SELECT m.role, o.mirrored OR EXISTS (SELECT FROM membership known WHERE known.org = o.id) AS members_known,
    EXISTS (
        SELECT FROM revocation r
        WHERE r.org = o.id AND r.lifted_at IS NULL
            AND (r.kind, r.subject) IN (('organization', ''), ('user', :user_id))
            AND (r.issued_until IS NULL OR :issued_at < date_trunc('second', r.issued_until) + interval '1 second')
    ) AS is_revoked
FROM organization o
LEFT JOIN membership m ON m.org = o.id AND m.user_id = :user_id
WHERE o.id = :org AND o.deleted_at IS NULL;

-- name: existing(orgs)
-- Those of these organizations that there are.
SELECT id FROM organization WHERE id = ANY(:orgs::text[]) AND deleted_at IS NULL ORDER BY id;
