-- name: open(id, kind, key, org, content, times, at)$
-- Opens an incident, or counts up and renews the one that is open; its id.
INSERT INTO incident AS i (id, kind, key, org, content, count, opened_at, last_seen_at)
VALUES (:id, :kind, :key, :org, :content, :times, :at, :at)
ON CONFLICT (kind, key) WHERE closed_at IS NULL DO UPDATE
SET count = i.count + excluded.count, org = excluded.org, content = excluded.content,
    last_seen_at = greatest(i.last_seen_at, excluded.last_seen_at)
RETURNING id;

-- name: close(kind, key, at)$
-- Closes the open incident of this kind and key; nothing where none is open.
UPDATE incident SET closed_at = :at
WHERE kind = :kind AND key = :key AND closed_at IS NULL
RETURNING id;

-- name: mark_seen(kind, key, at)!
-- What the open incident of this kind and key tells is so still.
UPDATE incident SET last_seen_at = greatest(last_seen_at, :at)
WHERE kind = :kind AND key = :key AND closed_at IS NULL;

-- name: close_unseen(kind, prefix, before, at)
-- Closes the open incidents of a kind, and with keys that begin so, that nobody has seen since then; their keys.
UPDATE incident SET closed_at = :at
WHERE kind = :kind AND starts_with(key, :prefix) AND closed_at IS NULL AND last_seen_at < :before
RETURNING key;

-- name: open_of_kinds(kinds, prefix)
-- The open incidents of these kinds whose keys begin so.
SELECT kind, key, content, last_seen_at FROM incident
WHERE kind = ANY(:kinds::text[]) AND closed_at IS NULL AND starts_with(key, :prefix);

-- name: renew(kind, key, content, at)!
-- What the open incident of this kind and key tells is something else now; it has not happened again.
UPDATE incident SET content = :content, last_seen_at = greatest(last_seen_at, :at)
WHERE kind = :kind AND key = :key AND closed_at IS NULL;

-- name: take_turns(kind)$
-- Those who open and close incidents of this kind take turns, until the transaction ends.
SELECT pg_advisory_xact_lock(hashtext('quotagate.incident.' || :kind::text));

-- name: close_seen_before(kind, keys, before, at)
-- Closes the open incidents of these keys whose cause was looked for since then, and was not there; their keys.
UPDATE incident SET closed_at = :at
WHERE kind = :kind AND key = ANY(:keys::text[]) AND closed_at IS NULL AND last_seen_at < :before
RETURNING key;

-- name: close_other_keys(kind, key, at)
-- Closes the open incidents of a kind that are about anything else; their keys.
UPDATE incident SET closed_at = :at WHERE kind = :kind AND key <> :key AND closed_at IS NULL RETURNING key;

-- name: open_keys(kind)
-- What the open incidents of a kind are about.
SELECT key FROM incident WHERE kind = :kind AND closed_at IS NULL;

-- name: close_delivered(kind, at)
-- Closes the incidents of notifications that were given up, where none is any more, and none that was is still on its
-- way; their keys.
UPDATE incident i SET closed_at = :at
WHERE i.kind = :kind AND i.closed_at IS NULL
    AND NOT EXISTS (SELECT 1 FROM notification WHERE coalesce(outcome, 'pending') = 'given_up')
    AND NOT EXISTS (
        SELECT 1 FROM notification WHERE coalesce(outcome, 'pending') = 'pending' AND created_at <= i.last_seen_at
    )
RETURNING i.key;

-- name: close_unsubscribed(kind, at)
-- Closes the incidents of deleted organizations that still pay, where the organization is back or has no subscription
-- any more; their keys.
UPDATE incident i SET closed_at = :at
WHERE i.kind = :kind AND i.closed_at IS NULL AND (
    EXISTS (SELECT 1 FROM organization o WHERE o.id = i.org AND o.deleted_at IS NULL)
    OR NOT EXISTS (
        SELECT 1 FROM subscription s WHERE s.org = i.org AND s.status NOT IN ('canceled', 'incomplete_expired')
    )
)
RETURNING i.key;

-- name: close_unusable_keys(kind, at)
-- Closes the incidents of keys that were found in public, where the key was revoked since, or has expired; their keys.
-- Of one that was revoked as it was found nobody has heard but by its incident, which stays.
UPDATE incident i SET closed_at = :at
FROM api_key k
WHERE i.kind = :kind AND i.closed_at IS NULL AND k.id = i.key
    AND (k.revoked_at > i.opened_at OR k.expires_at <= :at)
RETURNING i.key;

-- name: drop_closed(before, limit_rows)$
-- What was closed long ago, with its notes; how many.
WITH dropped AS (
    DELETE FROM incident WHERE id IN (
        SELECT id FROM incident WHERE closed_at < :before ORDER BY closed_at LIMIT :limit_rows FOR UPDATE SKIP LOCKED
    )
    RETURNING id
)
SELECT count(*) FROM dropped;

-- name: open_content(kind, key)$
-- What the open incident of this kind and key tells; NULL where none is open.
SELECT content FROM incident WHERE kind = :kind AND key = :key AND closed_at IS NULL;

-- name: content_of(kind, key)$
-- What the newest incident of this kind and key tells, also where it is closed.
SELECT content FROM incident WHERE kind = :kind AND key = :key ORDER BY id DESC LIMIT 1;

-- name: lock(id)^
-- One incident, held until the transaction ends.
SELECT id, kind, key, org, content, count, opened_at, last_seen_at, closed_at, acknowledged_at, acknowledged_by
FROM incident
WHERE id = :id
FOR UPDATE;

-- name: close_one(id, at)!
-- Closes one incident.
UPDATE incident SET closed_at = :at WHERE id = :id;

-- name: is_incident(id)$
-- Whether there is this incident.
SELECT EXISTS (SELECT 1 FROM incident WHERE id = :id);

-- name: find(id)^
-- One incident.
SELECT id, kind, key, org, content, count, opened_at, last_seen_at, closed_at, acknowledged_at, acknowledged_by
FROM incident
WHERE id = :id;

-- name: page(is_open, kind, kinds, org, is_acknowledged, after_open, after_id, limit_rows)
-- One page of incidents: the open ones first, the newest first among them and among the others.
SELECT id, kind, key, org, content, count, opened_at, last_seen_at, closed_at, acknowledged_at, acknowledged_by
FROM incident
WHERE (:is_open::boolean IS NULL OR (closed_at IS NULL) = :is_open)
    AND (:kind::text IS NULL OR kind = :kind)
    AND (:kinds::text[] IS NULL OR kind = ANY(:kinds::text[]))
    AND (:org::text IS NULL OR org = :org)
    AND (:is_acknowledged::boolean IS NULL OR (acknowledged_at IS NOT NULL) = :is_acknowledged)
    AND (:after_id::uuid IS NULL OR (closed_at IS NULL, id) < (:after_open::boolean, :after_id))
ORDER BY (closed_at IS NULL) DESC, id DESC
LIMIT :limit_rows;

-- name: acknowledge(id, at, author)!
-- Somebody sees to it.
UPDATE incident SET acknowledged_at = :at, acknowledged_by = :author WHERE id = :id;

-- name: withdraw_acknowledgement(id)!
-- Nobody does any more.
UPDATE incident SET acknowledged_at = NULL, acknowledged_by = NULL WHERE id = :id;

-- name: add_note(id, incident, at, author, text)!
-- What an admin writes down about an incident.
INSERT INTO incident_note (id, incident, at, author, text) VALUES (:id, :incident, :at, :author, :text);

-- name: notes(incident, limit_rows)
-- What admins wrote down, the newest first.
SELECT id, at, author, text FROM incident_note WHERE incident = :incident ORDER BY id DESC LIMIT :limit_rows;

-- name: has_kind(kind)$
-- Whether there is an incident of this kind, such as one of an earlier release.
SELECT EXISTS (SELECT 1 FROM incident WHERE kind = :kind);
