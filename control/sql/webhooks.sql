-- name: receive(ids, types, customers, created_ats, payloads, at, traceparent)
-- Events that arrived, in a trace or in none; the ids of those that are new.
INSERT INTO webhook_event (id, type, customer, created_at, received_at, payload, next_attempt_at, traceparent)
SELECT e.id, e.type, e.customer, e.created_at, :at, e.payload, :at, :traceparent
FROM unnest(:ids::text[], :types::text[], :customers::text[], :created_ats::timestamptz[], :payloads::jsonb[])
    AS e (id, type, customer, created_at, payload)
ON CONFLICT (id) DO NOTHING
RETURNING id;

-- name: claim(at, lost_at, limit_rows)
-- Events that are due, each for one caller. Who does not come back before lost_at has lost them to the next. Not waited
-- for the disk: what a crash of Postgres forgets of it is done once more.
UPDATE webhook_event w SET attempts = w.attempts + 1, next_attempt_at = :lost_at
FROM (SELECT set_config('synchronous_commit', 'off', true)) AS lax, (
    SELECT id FROM webhook_event
    WHERE outcome IS NULL AND next_attempt_at <= :at
    ORDER BY next_attempt_at
    LIMIT :limit_rows
    FOR UPDATE SKIP LOCKED
) AS due
WHERE w.id = due.id
RETURNING w.id, w.type, w.customer, w.payload, w.attempts, w.received_at, w.traceparent;

-- name: finish(ids, outcome, at)!
-- These are dealt with. Not waited for the disk: what a crash of Postgres forgets of it is done once more.
UPDATE webhook_event SET outcome = :outcome, ended_at = :at, last_error = NULL
FROM (SELECT set_config('synchronous_commit', 'off', true)) AS lax
WHERE id = ANY(:ids::text[]) AND outcome IS NULL;

-- name: retry(id, attempts, next_attempt_at, error)!
-- One is tried again, unless it is somebody else's by now.
UPDATE webhook_event SET next_attempt_at = :next_attempt_at, last_error = :error
WHERE id = :id AND attempts = :attempts AND outcome IS NULL;

-- name: give_up(id, attempts, at, error)$
-- It is not tried again until somebody asks for it; nothing where it is somebody else's by now.
UPDATE webhook_event SET outcome = 'dead', ended_at = :at, last_error = :error
WHERE id = :id AND attempts = :attempts AND outcome IS NULL
RETURNING id;

-- name: requeue(ids, at)
-- Events are dealt with once more, as if they had just arrived; the ids of those that are here.
UPDATE webhook_event SET outcome = NULL, ended_at = NULL, attempts = 0, next_attempt_at = :at, last_error = NULL
WHERE id = ANY(:ids::text[])
RETURNING id;

-- name: requeue_between(since, until, at)
-- The same for those that Stripe created in a time.
UPDATE webhook_event SET outcome = NULL, ended_at = NULL, attempts = 0, next_attempt_at = :at, last_error = NULL
WHERE created_at >= :since AND created_at < :until
RETURNING id;

-- name: close_dead(kind, at)!
-- Closes the incidents of events that were given up, where all of them are tried again.
UPDATE incident i SET closed_at = :at
WHERE i.kind = :kind AND i.closed_at IS NULL AND NOT EXISTS (
    SELECT 1 FROM webhook_event w WHERE w.outcome = 'dead' AND coalesce(w.customer, w.id) = i.key
);

-- name: close_refused(kind, at)!
-- Closes the incidents of a refused key, where nothing waits for that reason any more.
UPDATE incident i SET closed_at = :at
WHERE i.kind = :kind AND i.closed_at IS NULL AND NOT EXISTS (
    SELECT 1 FROM webhook_event w WHERE w.outcome IS NULL AND w.last_error = i.key
);

-- name: backlog(at)^
-- How many wait, how old the oldest of them is, and how many were given up.
SELECT count(*) FILTER (WHERE outcome IS NULL) AS waiting,
    coalesce(extract(epoch FROM :at - min(received_at) FILTER (WHERE outcome IS NULL)), 0)::float8 AS oldest_seconds,
    count(*) FILTER (WHERE outcome = 'dead') AS dead
FROM webhook_event
WHERE outcome IS NULL OR outcome = 'dead';

-- name: is_event(id)$
-- Whether this event arrived and is kept.
SELECT EXISTS (SELECT 1 FROM webhook_event WHERE id = :id);

-- name: page(state, before, limit_rows)
-- One page of events, the newest first.
SELECT id, type, customer, coalesce(outcome, 'waiting') AS state, created_at, received_at, attempts, ended_at,
    CASE WHEN outcome IS NULL THEN next_attempt_at END AS next_attempt_at, last_error
FROM webhook_event
WHERE (:state::text IS NULL OR coalesce(outcome, 'waiting') = :state)
    AND (:before::text IS NULL OR (received_at, id) < (SELECT received_at, id FROM webhook_event WHERE id = :before))
ORDER BY received_at DESC, id DESC
LIMIT :limit_rows;

-- name: drop_ended(before, limit_rows)!
-- What was dealt with long ago: Stripe knows it no more, either.
DELETE FROM webhook_event WHERE id IN (
    SELECT id FROM webhook_event WHERE outcome IN ('done', 'ignored') AND ended_at < :before
    ORDER BY ended_at LIMIT :limit_rows FOR UPDATE SKIP LOCKED
);

-- name: keep_attempt(id, attempt, at, error)!
-- Why an attempt failed.
INSERT INTO webhook_attempt (event, at, attempt, error) VALUES (:id, :at, :attempt, :error);

-- name: failed_attempts(id, limit_rows)
-- Why attempts on an event failed, the newest first.
SELECT at, attempt, error FROM webhook_attempt WHERE event = :id ORDER BY at DESC, attempt DESC LIMIT :limit_rows;

-- name: find(id)^
-- One event, with what Stripe sent.
SELECT id, type, customer, coalesce(outcome, 'waiting') AS state, created_at, received_at, attempts, ended_at,
    CASE WHEN outcome IS NULL THEN next_attempt_at END AS next_attempt_at, last_error, payload
FROM webhook_event WHERE id = :id;

-- name: requeue_dead(at)$
-- All that were given up are dealt with once more; how many those are.
WITH again AS (
    UPDATE webhook_event SET outcome = NULL, ended_at = NULL, attempts = 0, next_attempt_at = :at, last_error = NULL
    WHERE coalesce(outcome, 'waiting') = 'dead'
    RETURNING id
)
SELECT count(*) FROM again;
