-- The journal is listed by the time that entries tell, the newest first, by each of its filters without a look at others.

DROP INDEX audit_journal_of_organization;
DROP INDEX audit_journal_of_action;
DROP INDEX audit_journal_at;
CREATE INDEX audit_journal_at ON audit_journal (at, id);
CREATE INDEX audit_journal_of_organization ON audit_journal (org, at, id);
CREATE INDEX audit_journal_of_action ON audit_journal (action, at, id);
CREATE INDEX audit_journal_of_actor ON audit_journal (actor, at, id);

-- Expensive, and said so: otherwise the planner reads entry after entry in place of the index.
CREATE FUNCTION audit_words(before jsonb, after jsonb, rest text) RETURNS tsvector
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE COST 2000 AS $$
BEGIN
    -- A tsvector holds a megabyte. An entry that is beyond it is written all the same, and found by who and when.
    IF coalesce(octet_length(before::text), 0) + coalesce(octet_length(after::text), 0) > 400000 THEN
        RETURN to_tsvector('simple', rest);
    END IF;
    RETURN jsonb_to_tsvector('simple', coalesce(before, '{}'), '["string", "numeric"]')
        || jsonb_to_tsvector('simple', coalesce(after, '{}'), '["string", "numeric"]')
        || to_tsvector('simple', rest);
END
$$;
COMMENT ON FUNCTION audit_words IS 'The words of an entry, by which it is found.';
CREATE INDEX audit_journal_words ON audit_journal USING gin (audit_words(before, after, actor || ' ' || correlation_id));
