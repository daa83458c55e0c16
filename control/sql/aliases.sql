-- name: of_values(values)
-- The aliases of these values, for whomever.
SELECT alias, value, owner FROM journal_alias WHERE value = ANY(:values::text[]) ORDER BY created_at DESC, alias;

-- name: values_of(aliases)
-- Whom these aliases stand for, of those that nobody has erased.
SELECT alias, value, owner FROM journal_alias WHERE alias = ANY(:aliases::text[]);

-- name: add(alias, value, owner)*!
-- New aliases.
INSERT INTO journal_alias (alias, value, owner, created_at) VALUES (:alias, :value, :owner, now());

-- name: of_owners(owners)
-- All aliases of a person, the newest first.
SELECT alias, value, owner FROM journal_alias WHERE owner = ANY(:owners::text[]) ORDER BY created_at DESC, alias;

-- name: forget(owners)
-- From now on the journal names a person by aliases that stand for nobody.
DELETE FROM journal_alias WHERE owner = ANY(:owners::text[]) RETURNING alias;
