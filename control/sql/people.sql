-- name: user(id)^
-- One user, also a deleted one.
SELECT id, email, name, mirrored, created_at, deleted_at FROM app_user WHERE id = :id;

-- name: lock_user(id)^
-- The same, held until the transaction ends.
SELECT id, email, name, mirrored, created_at, deleted_at FROM app_user WHERE id = :id FOR UPDATE;

-- name: insert_user(id, mirrored, at)<!
-- A user of whom nothing but the id is known; nothing where there is one.
INSERT INTO app_user (id, mirrored, created_at) VALUES (:id, :mirrored, :at)
ON CONFLICT (id) DO NOTHING
RETURNING id;

-- name: set_user(id, email, name, mirrored)!
-- What is known of a user, who is not deleted any more.
UPDATE app_user SET email = :email, name = :name, mirrored = :mirrored, deleted_at = NULL WHERE id = :id;

-- name: delete_user(id, at)!
-- The user is gone: what is left is the id, which usage and the journal name.
UPDATE app_user SET email = NULL, name = NULL, deleted_at = :at WHERE id = :id;

-- name: users_page(after, limit_rows)
-- One page of users in the order of their ids, without deleted ones.
SELECT id, email, name, mirrored, created_at, deleted_at FROM app_user
WHERE deleted_at IS NULL AND (:after::text IS NULL OR id > :after)
ORDER BY id
LIMIT :limit_rows;

-- name: mirrored_users(after, limit_rows)
-- Users that are mirrored and not deleted, one page in the order of their ids.
SELECT id, email, name, mirrored, created_at, deleted_at FROM app_user
WHERE mirrored AND deleted_at IS NULL AND id > :after
ORDER BY id
LIMIT :limit_rows;

-- name: membership(org, user_id)^
-- One person in one organization.
SELECT m.org, m.user_id, m.role, m.created_at, u.email, u.name
FROM membership m JOIN app_user u ON u.id = m.user_id
WHERE m.org = :org AND m.user_id = :user_id;

-- name: role_of(org, user_id)$
-- The role of a person in an organization; nothing where it is not known as a member.
SELECT role FROM membership WHERE org = :org AND user_id = :user_id;

-- name: members(org, after, limit_rows)
-- One page of an organization's members, in the order of their ids.
SELECT m.org, m.user_id, m.role, m.created_at, u.email, u.name
FROM membership m JOIN app_user u ON u.id = m.user_id
WHERE m.org = :org AND (:after::text IS NULL OR m.user_id > :after)
ORDER BY m.user_id
LIMIT :limit_rows;

-- name: all_members(org)
-- All members of an organization.
SELECT m.org, m.user_id, m.role, m.created_at, u.email, u.name
FROM membership m JOIN app_user u ON u.id = m.user_id
WHERE m.org = :org;

-- name: memberships_of(user_id)
-- The organizations of a person that are not deleted.
SELECT m.org, m.user_id, m.role, m.created_at, u.email, u.name
FROM membership m JOIN app_user u ON u.id = m.user_id JOIN organization o ON o.id = m.org AND o.deleted_at IS NULL
WHERE m.user_id = :user_id
ORDER BY m.org;

-- name: owners(org)$
-- How many owners an organization has.
SELECT count(*) FROM membership WHERE org = :org AND role = 'owner';

-- name: set_member(org, user_id, role, at)!
-- A new member, or a member's other role.
INSERT INTO membership (org, user_id, role, created_at) VALUES (:org, :user_id, :role, :at)
ON CONFLICT (org, user_id) DO UPDATE SET role = excluded.role;

-- name: remove_member(org, user_id)!
-- No member any more.
DELETE FROM membership WHERE org = :org AND user_id = :user_id;

-- name: admin_role(kind, subject)^
-- One assignment of an admin role.
SELECT kind, subject, role, created_at, created_by FROM admin_role WHERE kind = :kind AND subject = :subject;

-- name: set_admin_role(kind, subject, role, at, by)!
-- Who signs in so has this role from now on.
INSERT INTO admin_role (kind, subject, role, created_at, created_by) VALUES (:kind, :subject, :role, :at, :by)
ON CONFLICT (kind, subject) DO UPDATE
SET role = excluded.role, created_at = excluded.created_at, created_by = excluded.created_by;

-- name: remove_admin_role(kind, subject)!
-- Nobody of the vendor any more.
DELETE FROM admin_role WHERE kind = :kind AND subject = :subject;

-- name: admin_roles()
-- All assignments of admin roles: as many as the vendor has people.
SELECT kind, subject, role, created_at, created_by FROM admin_role ORDER BY kind, subject;

-- name: organizations_of(user_id)
-- The organizations that are not deleted and know a person: as a member, or by a key that is not revoked.
SELECT o.id FROM organization o
WHERE o.deleted_at IS NULL AND (
    EXISTS (SELECT 1 FROM membership m WHERE m.org = o.id AND m.user_id = :user_id)
    OR EXISTS (SELECT 1 FROM api_key k WHERE k.org = o.id AND k.user_id = :user_id AND k.state <> 'revoked')
)
ORDER BY o.id;
