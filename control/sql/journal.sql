-- name: record(id, at, actor, action, org, before, after, correlation_id)*!
-- Entries of the journal. The table refuses to change or lose them.
INSERT INTO audit_journal (id, at, actor, action, org, before, after, correlation_id)
VALUES (:id, :at, :actor, :action, :org, :before, :after, :correlation_id);

-- name: of_organization(org, before_at, before, limit_rows)
-- One page of an organization's entries, the newest first.
SELECT id, at, actor, action, before, after, correlation_id
FROM audit_journal
WHERE org = :org AND (:before::uuid IS NULL OR (at, id) < (:before_at::timestamptz, :before))
ORDER BY at DESC, id DESC
LIMIT :limit_rows;

-- name: time_of(org, id)$
-- When the entry of this id says that it happened, of the organization where one is named; nothing where there is none.
SELECT at FROM audit_journal WHERE id = :id AND (:org::text IS NULL OR org = :org);

-- name: has_action(action)$
-- Whether an entry has this action, such as one of an earlier release.
SELECT EXISTS (SELECT 1 FROM audit_journal WHERE action = :action);

-- name: page(org, action, actors, words, since, until, before_at, before, limit_rows)
-- One page of all entries, the newest first, with their seals.
SELECT j.id, j.at, j.actor, j.action, j.org, j.before, j.after, j.correlation_id, s.seq, encode(s.hash, 'hex') AS hash
FROM (
    SELECT id, at, actor, action, org, before, after, correlation_id FROM audit_journal
    WHERE (:org::text IS NULL OR org = :org) AND (:action::text IS NULL OR action = :action)
        AND (:actors::text[] IS NULL OR actor = ANY(:actors))
        AND (:words::text[] IS NULL OR audit_words(before, after, actor || ' ' || correlation_id) @@ any_words(:words))
        AND (:since::timestamptz IS NULL OR at >= :since) AND (:until::timestamptz IS NULL OR at < :until)
        AND (:before::uuid IS NULL OR (at, id) < (:before_at::timestamptz, :before))
    ORDER BY at DESC, id DESC
    LIMIT :limit_rows
) AS j LEFT JOIN audit_seal s ON s.entry_id = j.id
ORDER BY j.at DESC, j.id DESC;

-- name: find(id)^
-- One entry, with its seal.
SELECT j.id, j.at, j.actor, j.action, j.org, j.before, j.after, j.correlation_id, s.seq, encode(s.hash, 'hex') AS hash
FROM audit_journal j LEFT JOIN audit_seal s ON s.entry_id = j.id
WHERE j.id = :id;

-- name: count_roughly(most)$
-- Until the transaction ends, the index of words is read only as far as is needed to tell whether a word is in more
-- entries than that: of a word that is, the index returns about so many, chosen at random.
SELECT set_config('gin_fuzzy_search_limit', :most, true) || set_config('enable_seqscan', 'off', true)
    || set_config('enable_indexscan', 'off', true);

-- name: entries_with_rarest(words)$
-- In how many entries the rarest of these words is, behind `count_roughly`; 0 where there is no word.
SELECT coalesce(min(n.number), 0) FROM unnest(tsvector_to_array(to_tsvector('simple', :words))) AS w (word)
CROSS JOIN LATERAL (
    SELECT count(*) AS number FROM audit_journal
    WHERE audit_words(before, after, actor || ' ' || correlation_id) @@ plainto_tsquery('simple', w.word)
) AS n;

-- name: search_by_words(by_words)$
-- Until the transaction ends, entries are found by the index of words, and sorted; or they are read in their order until
-- enough of them have the words. The planner cannot know which is less: it guesses how rare a word is.
SELECT set_config('gin_fuzzy_search_limit', '0', true)
    || set_config('enable_indexscan', CASE WHEN :by_words THEN 'off' ELSE 'on' END, true)
    || set_config('enable_bitmapscan', CASE WHEN :by_words THEN 'on' ELSE 'off' END, true);
