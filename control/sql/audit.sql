-- name: seal(entries_max)$
-- Seals committed entries that have no seal yet, up to so many; how many. 0 while somebody else is at it.
SELECT seal_audit_journal(:entries_max);

-- name: head()^
-- The last seal.
SELECT seq, hash FROM audit_seal ORDER BY seq DESC LIMIT 1;

-- name: waiting()^
-- How many entries have no seal yet, and since when the oldest has waited.
SELECT count(*) AS entries, min(j.at) AS since
FROM audit_unsealed u LEFT JOIN audit_journal j ON j.id = u.entry_id;

-- name: seals(after, up_to)
-- The seals of a range with the entries that they seal. No function of ours takes part: it could have been replaced.
SELECT s.seq, s.entry_id::text AS id, s.hash, s.sealed_at, j.id IS NOT NULL AS in_journal, j.at, j.actor, j.action, j.org,
    j.before::text AS before, j.after::text AS after, j.correlation_id
FROM audit_seal s LEFT JOIN audit_journal j ON j.id = s.entry_id
WHERE s.seq > :after AND s.seq <= :up_to
ORDER BY s.seq;

-- name: seal_at(seq)^
-- One seal.
SELECT seq, hash FROM audit_seal WHERE seq = :seq;

-- name: seal_before(seq)^
-- The seal before this one, and the latest time that entries up to there tell, none of them counting for later than its
-- seal.
SELECT s.hash, (
    SELECT max(least(j.at, e.sealed_at)) FROM audit_seal e JOIN audit_journal j ON j.id = e.entry_id WHERE e.seq < :seq
) AS latest
FROM audit_seal s WHERE s.seq = :seq - 1;

-- name: without_seal(older_than_seconds)^
-- The first entry that came into the journal by a way around the seals: it has none and does not wait for one, or has
-- waited for too long.
SELECT j.id::text AS id, j.action, u.entry_id IS NOT NULL AS waits,
    extract(epoch FROM clock_timestamp() - j.at)::bigint AS seconds
FROM audit_journal j
LEFT JOIN audit_unsealed u ON u.entry_id = j.id
WHERE NOT EXISTS (SELECT FROM audit_seal s WHERE s.entry_id = j.id)
    AND (u.entry_id IS NULL OR j.at < clock_timestamp() - make_interval(secs => :older_than_seconds))
ORDER BY j.id
LIMIT 1;

-- name: lost_before_seal()$
-- The first entry that was deleted before it was sealed.
SELECT u.entry_id::text FROM audit_unsealed u
WHERE NOT EXISTS (SELECT FROM audit_journal j WHERE j.id = u.entry_id)
ORDER BY u.entry_id
LIMIT 1;

-- name: seals_of(ids)
-- The seals of some entries with what they seal, and the hash that each goes on from.
SELECT s.seq, s.entry_id::text AS id, s.hash, s.sealed_at, true AS in_journal, j.at, j.actor, j.action, j.org,
    j.before::text AS before, j.after::text AS after, j.correlation_id, p.hash AS previous
FROM audit_seal s JOIN audit_journal j ON j.id = s.entry_id LEFT JOIN audit_seal p ON p.seq = s.seq - 1
WHERE s.entry_id = ANY (:ids::uuid[]);
