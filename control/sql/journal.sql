-- name: record(id, at, actor, action, org, before, after, correlation_id)*!
-- Entries of the journal. The table refuses to change or lose them.
INSERT INTO audit_journal (id, at, actor, action, org, before, after, correlation_id)
VALUES (:id, :at, :actor, :action, :org, :before, :after, :correlation_id);

-- name: of_organization(org, before, limit_rows)
-- One page of an organization's entries, the newest first.
SELECT id, at, actor, action, before, after, correlation_id
FROM audit_journal
WHERE org = :org AND (:before::uuid IS NULL OR id < :before)
ORDER BY id DESC
LIMIT :limit_rows;
