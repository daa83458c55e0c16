-- name: add(ids, types, orgs, bodies, at)!
-- Notifications to be delivered, in the transaction of what they tell.
INSERT INTO notification (id, type, org, body, created_at, next_attempt_at)
SELECT n.id, n.type, n.org, n.body, :at, :at
FROM unnest(:ids::uuid[], :types::text[], :orgs::text[], :bodies::text[]) AS n (id, type, org, body)
ON CONFLICT (id) DO NOTHING;

-- name: claim(at, lost_at, disabled_kind, endpoint, limit_rows)
-- Notifications that are due, each for one caller; none while an incident says that the endpoint is disabled. Who does
-- not come back before lost_at has lost them to the next.
UPDATE notification n SET attempts = n.attempts + 1, next_attempt_at = :lost_at, last_error = NULL
FROM (
    SELECT id FROM notification
    WHERE outcome IS NULL AND next_attempt_at <= :at AND NOT EXISTS (
        SELECT 1 FROM incident WHERE kind = :disabled_kind AND key = :endpoint AND closed_at IS NULL
    )
    ORDER BY next_attempt_at
    LIMIT :limit_rows
    FOR UPDATE SKIP LOCKED
) AS due
WHERE n.id = due.id
RETURNING n.id, n.type, n.org, n.body, n.attempts;

-- name: delivered(id, at)!
-- The endpoint has it.
UPDATE notification SET outcome = 'delivered', ended_at = :at, last_error = NULL WHERE id = :id;

-- name: retry(id, attempts, next_attempt_at, error)!
-- It is tried again, unless it is somebody else's by now.
UPDATE notification SET next_attempt_at = :next_attempt_at, last_error = :error
WHERE id = :id AND attempts = :attempts AND outcome IS NULL;

-- name: put_back(id, attempts, at, error)!
-- The same where the attempt does not count.
UPDATE notification SET attempts = attempts - 1, next_attempt_at = :at, last_error = :error
WHERE id = :id AND attempts = :attempts AND outcome IS NULL;

-- name: give_up(id, attempts, at, error)$
-- It is not tried again; nothing where it is somebody else's by now.
UPDATE notification SET outcome = 'given_up', ended_at = :at, last_error = :error
WHERE id = :id AND attempts = :attempts AND outcome IS NULL
RETURNING id;

-- name: drop_ended(before, limit_rows)$
-- What was delivered or given up is kept for a while, for those who look for it; how many were dropped.
WITH dropped AS (
    DELETE FROM notification WHERE id IN (
        SELECT id FROM notification WHERE outcome IS NOT NULL AND ended_at < :before
        ORDER BY ended_at LIMIT :limit_rows FOR UPDATE SKIP LOCKED
    )
    RETURNING id
)
SELECT count(*) FROM dropped;

-- name: is_notification(id)$
-- Whether this notification is kept.
SELECT EXISTS (SELECT 1 FROM notification WHERE id = :id);

-- name: page(state, before, limit_rows)
-- One page of notifications, the newest first.
SELECT id, type, org, body, coalesce(outcome, 'pending') AS state, attempts, created_at, ended_at,
    CASE WHEN outcome IS NULL THEN next_attempt_at END AS next_attempt_at, last_error
FROM notification
WHERE (:state::text IS NULL OR coalesce(outcome, 'pending') = :state) AND (:before::uuid IS NULL OR id < :before)
ORDER BY id DESC
LIMIT :limit_rows;

-- name: resend_given_up(at)$
-- What was given up is tried again as if it were new; how many those are.
WITH resent AS (
    UPDATE notification
    SET outcome = NULL, ended_at = NULL, attempts = 0, next_attempt_at = :at, last_error = NULL
    WHERE outcome = 'given_up'
    RETURNING id
)
SELECT count(*) FROM resent;

-- name: keep_attempt(id, attempt, at, error)!
-- Why an attempt failed.
INSERT INTO notification_attempt (notification, at, attempt, error) VALUES (:id, :at, :attempt, :error);

-- name: failed_attempts(id, limit_rows)
-- Why attempts on a notification failed, the newest first.
SELECT at, attempt, error FROM notification_attempt
WHERE notification = :id ORDER BY at DESC, attempt DESC LIMIT :limit_rows;

-- name: find(id)^
-- One notification.
SELECT id, type, org, body, coalesce(outcome, 'pending') AS state, attempts, created_at, ended_at,
    CASE WHEN outcome IS NULL THEN next_attempt_at END AS next_attempt_at, last_error
FROM notification WHERE id = :id;

-- name: resend(id, at)$
-- One that has ended is tried again as if it were new; nothing where it is on its way.
UPDATE notification SET outcome = NULL, ended_at = NULL, attempts = 0, next_attempt_at = :at, last_error = NULL
WHERE id = :id AND outcome IS NOT NULL
RETURNING id;
