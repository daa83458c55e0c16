-- A search finds what is inside of words, too: by what three characters in a row make of them. Then the words are looked at.

ALTER TABLE organization_search ADD COLUMN threes tsvector NOT NULL DEFAULT '';
CREATE INDEX organization_search_threes ON organization_search USING gin (threes);

CREATE FUNCTION words_hold(words tsvector, patterns text[]) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE COST 200 AS $$
    SELECT NOT EXISTS (
        SELECT FROM unnest(patterns) AS p (pattern)
        WHERE NOT EXISTS (SELECT FROM unnest(tsvector_to_array(words)) AS w (word) WHERE word LIKE pattern)
    )
$$;
COMMENT ON FUNCTION words_hold IS 'Whether each pattern (LIKE) is that of one of the words.';

-- The directory reads all organizations again.
INSERT INTO organization_review (org) SELECT id FROM organization;
