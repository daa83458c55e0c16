-- The journal never changes, so it names people by aliases. Whom an alias stands for is here, and can be deleted.

CREATE TABLE journal_alias (
    alias      text PRIMARY KEY,
    value      text NOT NULL,              -- as it was said: an address, provider:subject, a network address
    owner      text NOT NULL,              -- whose it is: an e-mail address in lower case, provider:subject, a user's id
    created_at timestamptz NOT NULL
);
-- Not unique: two transactions that name the same person at once do not wait for each other, and make two aliases.
CREATE INDEX journal_alias_value ON journal_alias (value);
CREATE INDEX journal_alias_owner ON journal_alias (owner);
CREATE INDEX refusal_of_user ON refusal (user_id) WHERE user_id IS NOT NULL;
CREATE INDEX api_key_of_user ON api_key (user_id) WHERE user_id IS NOT NULL;

CREATE FUNCTION any_words(texts text[]) RETURNS tsquery LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT string_agg('(' || plainto_tsquery('simple', each)::text || ')', ' | ')::tsquery
    FROM unnest(texts) AS t (each) WHERE numnode(plainto_tsquery('simple', each)) > 0
$$;
COMMENT ON FUNCTION any_words IS 'All words of one of the texts.';

-- Who did something, in tables that do change: `person:` and an identity, also of somebody who came by a person's link.
CREATE FUNCTION person_named(actor text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN actor LIKE '%person:%' THEN regexp_replace(actor, '^(person:|link:)+', '') END
$$;

CREATE FUNCTION authored_places() RETURNS text[] LANGUAGE sql IMMUTABLE AS $$
    SELECT ARRAY['activation_code.created_by', 'admin_action.asked_by', 'admin_action.decided_by', 'admin_action.undone_by',
        'admin_role.created_by', 'bulk_action.asked_by', 'console_link.created_by', 'incident.acknowledged_by',
        'incident_note.author', 'overage_cap.set_by', 'portal_link.created_by', 'portal_session.opened_by',
        'refresh_family.ended_by', 'service_token.created_by', 'site.ended_by']
$$;
COMMENT ON FUNCTION authored_places IS 'Columns that name who did something.';

CREATE FUNCTION text_places() RETURNS text[] LANGUAGE sql IMMUTABLE AS $$
    SELECT ARRAY['activation_code.note', 'admin_action.reason', 'admin_action.note', 'admin_action.undo_reason',
        'admin_action.fields', 'admin_action.done', 'admin_action.undo', 'api_key.name', 'billing_entry.reason',
        'bulk_action.fields', 'bulk_action.filter', 'bulk_action.reason', 'bulk_action_item.note', 'grant.reason',
        'incident.content', 'incident_note.text', 'notification.body', 'notification_attempt.error', 'revocation.reason',
        'webhook_attempt.error', 'webhook_event.payload']
$$;
COMMENT ON FUNCTION text_places IS 'Columns in which somebody may have written an e-mail address.';

CREATE FUNCTION person_rows(identities text[], emails text[], rows_max integer)
RETURNS TABLE (place text, content jsonb) LANGUAGE plpgsql STABLE AS $$
DECLARE
    secrets text[] := ARRAY['digest', 'hash', 'salt', 'tag_key', 'token'];
    each text;
    email text;
BEGIN
    FOREACH each IN ARRAY authored_places() LOOP
        RETURN QUERY EXECUTE format('SELECT %L, to_jsonb(t) - $3 FROM %I t WHERE person_named(t.%I) = ANY($1) LIMIT $2',
            each, split_part(each, '.', 1), split_part(each, '.', 2)) USING identities, rows_max, secrets;
    END LOOP;
    FOREACH email IN ARRAY emails LOOP
        FOREACH each IN ARRAY text_places() LOOP
            RETURN QUERY EXECUTE format(
                'SELECT %L, to_jsonb(t) - $3 FROM %I t WHERE position($1 IN lower(t.%I::text)) > 0 LIMIT $2',
                each, split_part(each, '.', 1), split_part(each, '.', 2)) USING email, rows_max, secrets;
        END LOOP;
    END LOOP;
END
$$;
COMMENT ON FUNCTION person_rows IS 'Rows that name a person as who did something, or have the e-mail address in a text.';

CREATE FUNCTION rename_person(identities text[], emails text[], alias text)
RETURNS TABLE (place text, changed bigint) LANGUAGE plpgsql AS $$
DECLARE
    email text;
    kind text;
BEGIN
    FOREACH place IN ARRAY authored_places() LOOP
        EXECUTE format('UPDATE %1$I SET %2$I = left(%2$I, length(%2$I) - length(person_named(%2$I))) || $2 '
            'WHERE person_named(%2$I) = ANY($1)', split_part(place, '.', 1), split_part(place, '.', 2))
            USING identities, alias;
        GET DIAGNOSTICS changed = ROW_COUNT;
        RETURN NEXT;
    END LOOP;
    FOREACH email IN ARRAY emails LOOP
        FOREACH place IN ARRAY text_places() LOOP
            SELECT format_type(a.atttypid, NULL) INTO STRICT kind FROM pg_attribute a
            WHERE a.attrelid = format('%I', split_part(place, '.', 1))::regclass AND a.attname = split_part(place, '.', 2);
            EXECUTE format('UPDATE %1$I SET %2$I = regexp_replace(%2$I::text, $2, $3, ''gi'')::%3$s '
                'WHERE position($1 IN lower(%2$I::text)) > 0', split_part(place, '.', 1), split_part(place, '.', 2), kind)
                USING email, regexp_replace(email, '([^[:alnum:]])', '\\\1', 'g'), alias;
            GET DIAGNOSTICS changed = ROW_COUNT;
            RETURN NEXT;
        END LOOP;
    END LOOP;
END
$$;
COMMENT ON FUNCTION rename_person IS 'An alias, which stands for nobody, in place of a person.';
