-- name: file_event(id, type, at)<!
-- An event that arrived, and its id; nothing where it has arrived before.
INSERT INTO mirror_event (id, type, received_at) VALUES (:id, :type, :at)
ON CONFLICT (id) DO NOTHING
RETURNING id;

-- name: drop_events(before)!
-- Those that are not sent again any more.
DELETE FROM mirror_event WHERE received_at < :before;

-- name: ask(kind, subject, at)!
-- Somebody must look at this object of the provider's, from now on; a look that has begun already does not count.
INSERT INTO mirror_look AS l (kind, subject, next_attempt_at) VALUES (:kind, :subject, :at)
ON CONFLICT (kind, subject) DO UPDATE SET asked = l.asked + 1, attempts = 0, next_attempt_at = :at;

-- name: ask_again(kind, subject, at, before)!
-- The same, if nobody has looked since then, and nobody is about to.
INSERT INTO mirror_look AS l (kind, subject, next_attempt_at) VALUES (:kind, :subject, :at)
ON CONFLICT (kind, subject) DO UPDATE SET asked = l.asked + 1, attempts = 0, next_attempt_at = :at
WHERE l.asked = l.looked AND l.looked_at < :before;

-- name: claim(at, until, limit_rows)
-- Looks that are due, each for one caller. Who is not done by `until` has lost them to the next.
UPDATE mirror_look l SET claimed_until = :until, attempts = l.attempts + 1
FROM (
    SELECT kind, subject FROM mirror_look
    WHERE asked > looked AND next_attempt_at <= :at AND (claimed_until IS NULL OR claimed_until <= :at)
    ORDER BY next_attempt_at
    LIMIT :limit_rows
    FOR UPDATE SKIP LOCKED
) AS due
WHERE l.kind = due.kind AND l.subject = due.subject
RETURNING l.kind, l.subject, l.asked, l.attempts;

-- name: hold(kind, subject, until)$
-- Whether the claim is still the caller's, who holds it until the transaction ends: what was read at the provider before
-- another claim is older than what that one reads.
SELECT true FROM mirror_look
WHERE kind = :kind AND subject = :subject AND claimed_until = :until
FOR UPDATE;

-- name: finish(kind, subject, asked, at)!
-- The look is done, and answers all that was asked before it began.
UPDATE mirror_look SET looked = :asked, looked_at = :at, claimed_until = NULL, attempts = 0, last_error = NULL
WHERE kind = :kind AND subject = :subject;

-- name: fail(kind, subject, until, next_attempt_at, error)!
-- It is tried again, unless it is somebody else's by now.
UPDATE mirror_look SET claimed_until = NULL, next_attempt_at = :next_attempt_at, last_error = :error
WHERE kind = :kind AND subject = :subject AND claimed_until = :until;

-- name: waiting()$
-- How many looks are asked for and not done.
SELECT count(*) FROM mirror_look WHERE asked > looked;

-- name: waiting_looks(limit_rows)
-- Looks that are asked for and not done, the most tried first.
SELECT kind, subject, attempts, next_attempt_at, last_error FROM mirror_look
WHERE asked > looked
ORDER BY attempts DESC, next_attempt_at, kind, subject
LIMIT :limit_rows;
