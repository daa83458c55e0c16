-- name: insert(id, digest, person, provider, email, name, roles, maker, address, browser, at, expires_at)!
-- A session of somebody who has just signed in.
INSERT INTO session (id, digest, person, provider, email, name, roles, maker, address, browser, created_at, used_at,
    expires_at)
VALUES (:id, :digest, :person, :provider, :email, :name, :roles::text[], :maker, :address, :browser, :at, :at,
    :expires_at);

-- name: find(digest, now, idle_since)^
-- The session of this secret, if it has not ended in any way.
SELECT id, person, provider, email, name, roles, maker, address, browser, created_at, used_at, expires_at FROM session
WHERE digest = :digest AND ended_at IS NULL AND expires_at > :now AND used_at > :idle_since;

-- name: newest(person)^
-- The last session of a person (by identity or e-mail address) that nobody has ended; it may be over by time.
SELECT id, person, provider, email, name, roles, maker, address, browser, created_at, used_at, expires_at FROM session
WHERE (person = :person OR email = :person) AND ended_at IS NULL
ORDER BY created_at DESC, id DESC
LIMIT 1;

-- name: touch(id, now)!
-- It was used, which puts off its end by idleness.
UPDATE session SET used_at = :now WHERE id = :id AND used_at < :now;

-- name: live(person, now, idle_since, limit_rows)
-- Sessions that have not ended, of this person (by identity or e-mail address) or of all; those that were used last
-- first.
SELECT id, person, provider, email, name, roles, maker, address, browser, created_at, used_at, expires_at FROM session
WHERE ended_at IS NULL AND expires_at > :now AND used_at > :idle_since
    AND (:person::text IS NULL OR person = :person OR email = :person)
ORDER BY used_at DESC, id DESC
LIMIT :limit_rows;

-- name: end(id, person, now)<!
-- Ends one session, of that person where one is named; whose it was, or nothing where there is none to end.
UPDATE session SET ended_at = :now
WHERE id = :id AND ended_at IS NULL AND (:person::text IS NULL OR person = :person)
RETURNING person;

-- name: end_all(person, spared, now)
-- Ends all sessions of a person (by identity or e-mail address) but one.
UPDATE session SET ended_at = :now
WHERE (person = :person OR email = :person) AND ended_at IS NULL AND (:spared::uuid IS NULL OR id <> :spared)
RETURNING id;

-- name: end_by_digest(digest, now)<!
-- Ends the session of this secret; whose it was.
UPDATE session SET ended_at = :now WHERE digest = :digest AND ended_at IS NULL RETURNING person;

-- name: forget(before)!
-- Sessions that are long over; the journal tells who was here.
DELETE FROM session WHERE expires_at < :before;

-- name: newest_roles(person)$
-- The roles that a provider's claim gave the person at the last sign-in; nothing where none is remembered.
SELECT roles FROM session WHERE person = :person ORDER BY created_at DESC, id DESC LIMIT 1;

-- name: withdraw_roles(person)!
-- The provider gives the person no role any more.
UPDATE session SET roles = '{}' WHERE person = :person AND provider IS NOT NULL AND roles <> '{}';

-- name: insert_link(digest, role, created_by, maker, at, expires_at)!
-- A link that is good for one sign-in.
INSERT INTO console_link (digest, role, created_by, maker, created_at, expires_at)
VALUES (:digest, :role, :created_by, :maker, :at, :expires_at);

-- name: use_link(digest, now)^
-- Uses a link up; nothing where it is unknown, used or expired.
UPDATE console_link SET used_at = :now
WHERE digest = :digest AND used_at IS NULL AND expires_at > :now
RETURNING role, created_by, maker;

-- name: forget_links(before)!
-- Links that are long over.
DELETE FROM console_link WHERE expires_at < :before;
