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

-- name: is_entry(org, id)$
-- Whether there is an entry of this id, of the organization where one is named.
SELECT EXISTS (SELECT 1 FROM audit_journal WHERE id = :id AND (:org::text IS NULL OR org = :org));

-- name: has_action(action)$
-- Whether an entry has this action, such as one of an earlier release.
SELECT EXISTS (SELECT 1 FROM audit_journal WHERE action = :action);

-- name: page(org, action, since, until, before, limit_rows)
-- One page of all entries, the newest first, with their seals.
SELECT j.id, j.at, j.actor, j.action, j.org, j.before, j.after, j.correlation_id, s.seq, encode(s.hash, 'hex') AS hash
FROM audit_journal j LEFT JOIN audit_seal s ON s.entry_id = j.id
WHERE (:org::text IS NULL OR j.org = :org) AND (:action::text IS NULL OR j.action = :action)
    AND (:since::timestamptz IS NULL OR j.at >= :since) AND (:until::timestamptz IS NULL OR j.at < :until)
    AND (:before::uuid IS NULL OR j.id < :before)
ORDER BY j.id DESC
LIMIT :limit_rows;
