-- name: put(org, kind, subject, issued_until, reason, at, expires_at, version)!
-- A mark, in place of the one that was there.
INSERT INTO revocation (org, kind, subject, issued_until, reason, set_at, expires_at, lifted_at, changed_version)
VALUES (:org, :kind, :subject, :issued_until, :reason, :at, :expires_at, NULL, :version)
ON CONFLICT (org, kind, subject) DO UPDATE SET issued_until = excluded.issued_until, reason = excluded.reason,
    set_at = excluded.set_at, expires_at = excluded.expires_at, lifted_at = NULL,
    changed_version = excluded.changed_version;

-- name: lift(org, kind, subject, at, version)!
-- The mark refuses nothing any more.
UPDATE revocation SET lifted_at = :at, changed_version = :version
WHERE org = :org AND kind = :kind AND subject = :subject AND lifted_at IS NULL;

-- name: find(org, kind, subject)^
-- One mark that is in force.
SELECT org, kind, subject, issued_until, reason, set_at, expires_at FROM revocation
WHERE org = :org AND kind = :kind AND subject = :subject AND lifted_at IS NULL;

-- name: in_force(org, kinds, subjects)
-- Those of these marks that are in force, by pairs of kind and subject.
SELECT r.org, r.kind, r.subject, r.issued_until, r.reason, r.set_at, r.expires_at
FROM unnest(:kinds::text[], :subjects::text[]) AS asked (kind, subject)
JOIN revocation r ON r.org = :org AND r.kind = asked.kind AND r.subject = asked.subject
WHERE r.lifted_at IS NULL;

-- name: page(org, after_kind, after_subject, kind, limit_rows)
-- An organization's marks in force, by kind and subject.
SELECT org, kind, subject, issued_until, reason, set_at, expires_at FROM revocation
WHERE org = :org AND lifted_at IS NULL AND (:kind::text IS NULL OR kind = :kind)
    AND (:after_kind::text IS NULL OR (kind, subject) > (:after_kind, :after_subject))
ORDER BY kind, subject
LIMIT :limit_rows;

-- name: published_count(org)$
-- How many marks of an organization are in force.
SELECT count(*) FROM revocation WHERE org = :org AND lifted_at IS NULL;

-- name: published(org, since)
-- What is published of an organization's marks; of version `since` only what changed after it.
SELECT kind, subject, issued_until, lifted_at IS NOT NULL AS is_lifted FROM revocation
WHERE org = :org AND changed_version > :since AND (lifted_at IS NULL OR :since > 0);

-- name: over(before, limit_rows)
-- Organizations with marks that nothing is left for.
SELECT DISTINCT org FROM (
    SELECT org FROM revocation WHERE lifted_at IS NULL AND expires_at < :before ORDER BY expires_at LIMIT :limit_rows
) AS found;

-- name: lift_over(org, before, at, version)!
-- Lifts those of one organization.
UPDATE revocation SET lifted_at = :at, changed_version = :version
WHERE org = :org AND lifted_at IS NULL AND expires_at < :before;

-- name: forget_lifted(before)!
-- Rows of marks that were lifted long ago: every Redis was told of it.
DELETE FROM revocation WHERE lifted_at < :before;
