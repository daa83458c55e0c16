-- name: insert(id, org, name, fields, reason, token, state, asked_by, asked_at)<!
-- An action that an admin asks for; nothing where one goes by this preview already.
INSERT INTO admin_action (id, org, name, fields, reason, token, state, asked_by, asked_at)
VALUES (:id, :org, :name, :fields, :reason, :token, :state, :asked_by, :asked_at)
ON CONFLICT (token) DO NOTHING
RETURNING id;

-- name: find(id)^
-- One action.
SELECT id, org, name, fields, reason, token, state, asked_by, asked_at, decided_by, decided_at, note, done, undo, undone_by,
    undone_at, undo_reason
FROM admin_action WHERE id = :id;

-- name: by_token(token)^
-- The action that goes by this preview.
SELECT id, org, name, fields, reason, token, state, asked_by, asked_at, decided_by, decided_at, note, done, undo, undone_by,
    undone_at, undo_reason
FROM admin_action WHERE token = :token;

-- name: lock(id)^
-- One action, held until the transaction ends.
SELECT id, org, name, fields, reason, token, state, asked_by, asked_at, decided_by, decided_at, note, done, undo, undone_by,
    undone_at, undo_reason
FROM admin_action WHERE id = :id FOR UPDATE;

-- name: newest_of(org)$
-- The last action of an organization that was begun: whoever looked before it has seen another state.
SELECT id || ' ' || state FROM admin_action
WHERE org = :org AND state NOT IN ('waiting', 'declined', 'withdrawn')
ORDER BY coalesce(undone_at, decided_at, asked_at) DESC, id DESC
LIMIT 1;

-- name: page(org, waiting, before, limit_rows)
-- One page of actions, of one organization or of all, the newest first; only those that wait, where that is asked.
SELECT id, org, name, fields, reason, token, state, asked_by, asked_at, decided_by, decided_at, note, done, undo, undone_by,
    undone_at, undo_reason
FROM admin_action
WHERE (:org::text IS NULL OR org = :org) AND (NOT :waiting::boolean OR state = 'waiting')
    AND (:before::uuid IS NULL OR id < :before)
ORDER BY id DESC
LIMIT :limit_rows;

-- name: decide(id, state, decided_by, decided_at, note)!
-- What the second person, or the first one again, has decided.
UPDATE admin_action SET state = :state, decided_by = :decided_by, decided_at = :decided_at, note = :note WHERE id = :id;

-- name: set_done(id, state, done, undo)!
-- It was done.
UPDATE admin_action SET state = :state, done = :done, undo = :undo WHERE id = :id;

-- name: set_state(id, state, note)!
-- How it goes on; the note says what Stripe said.
UPDATE admin_action SET state = :state, note = coalesce(:note, note) WHERE id = :id;

-- name: set_undone(id, state, undone_by, undone_at, undo_reason)!
-- It is undone, or about to be.
UPDATE admin_action SET state = :state, undone_by = :undone_by, undone_at = :undone_at, undo_reason = :undo_reason
WHERE id = :id;

-- name: since(org, after, limit_rows)
-- What the journal says of an organization after an entry, the newest first.
SELECT id, at, actor, action, before, after, correlation_id FROM audit_journal
WHERE org = :org AND (:after::uuid IS NULL OR id > :after)
ORDER BY id DESC
LIMIT :limit_rows;

-- name: last_entry(org)$
-- The last journal entry of an organization.
SELECT id FROM audit_journal WHERE org = :org ORDER BY id DESC LIMIT 1;

-- name: given_since(since)
-- Credit and refunds that nobody has approved, by organization and author, without what was refused.
SELECT org, actor, sum(
    CASE WHEN action IN ('credit.given', 'refund.given') THEN 1 ELSE -1 END * (after ->> 'amount_minor')::bigint
)::bigint AS amount_minor
FROM audit_journal
WHERE action IN ('credit.given', 'credit.given.refused', 'refund.given', 'refund.given.refused') AND at >= :since
    AND after ->> 'amount_minor' IS NOT NULL AND after ->> 'approved' IS DISTINCT FROM 'true' AND org IS NOT NULL
GROUP BY org, actor;

-- name: maker_of_token(name)$
-- Who made the service token of this name that is in use.
SELECT created_by FROM service_token WHERE name = :name AND revoked_at IS NULL;
