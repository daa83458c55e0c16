-- name: lock()!
-- One change of the signing keys at a time, until the transaction ends: 1902602091 ("qgsk").
SELECT pg_advisory_xact_lock(1902602091);

-- name: all_keys()
-- All signing keys, the oldest first. There are a few each year.
SELECT id, algorithm, public_jwk, sealed, created_at, signs_from, token_seconds, retired_at FROM signing_key
ORDER BY signs_from, id;

-- name: insert(id, algorithm, public_jwk, sealed, created_at, signs_from, token_seconds)!
-- A new key.
INSERT INTO signing_key (id, algorithm, public_jwk, sealed, created_at, signs_from, token_seconds)
VALUES (:id, :algorithm, :public_jwk, :sealed, :created_at, :signs_from, :token_seconds);

-- name: begin_signing(id, at)!
-- The key signs from then on instead of later.
UPDATE signing_key SET signs_from = :at WHERE id = :id AND signs_from > :at;

-- name: raise_token_seconds(token_seconds)
-- Tokens of the keys that are in use may live for so long from now on. Returns the keys that have changed.
UPDATE signing_key SET token_seconds = :token_seconds
WHERE retired_at IS NULL AND token_seconds < :token_seconds
RETURNING id;

-- name: seal(id, sealed)!
-- Replaces the sealed private part, of a key that still has one.
UPDATE signing_key SET sealed = :sealed WHERE id = :id AND sealed IS NOT NULL;

-- name: retire(id, at)$
-- Takes a key out of the key set, and destroys its private part. Returns its id; nothing where it is retired already.
UPDATE signing_key SET retired_at = :at, sealed = NULL WHERE id = :id AND retired_at IS NULL RETURNING id;
