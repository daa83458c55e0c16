-- The journal's hash chain: docs/audit.md has the form that is hashed, docs/decisions/0015 the reasons.

CREATE INDEX audit_journal_of_action ON audit_journal (action, id);
CREATE INDEX audit_journal_at ON audit_journal (at);

CREATE TABLE audit_seal (
    seq       bigint PRIMARY KEY CHECK (seq > 0),   -- 1, 2, 3 …, without a gap
    entry_id  uuid NOT NULL UNIQUE,
    sealed_at timestamptz NOT NULL,                 -- by the database's clock
    hash      bytea NOT NULL CHECK (octet_length(hash) = 32)
);
CREATE TRIGGER audit_seal_is_append_only
    BEFORE UPDATE OR DELETE ON audit_seal FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER audit_seal_is_not_truncated
    BEFORE TRUNCATE ON audit_seal FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

CREATE TABLE audit_unsealed (entry_id uuid PRIMARY KEY);
COMMENT ON TABLE audit_unsealed IS
    'Entries without a seal, written in the transaction of the entry: whenever that commits, it is found here.';
INSERT INTO audit_unsealed SELECT id FROM audit_journal;

CREATE FUNCTION await_audit_seal() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    INSERT INTO audit_unsealed SELECT id FROM added;
    RETURN NULL;
END
$$;
CREATE TRIGGER audit_journal_awaits_its_seal
    AFTER INSERT ON audit_journal REFERENCING NEW TABLE AS added
    FOR EACH STATEMENT EXECUTE FUNCTION await_audit_seal();

CREATE FUNCTION audit_field(value text) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT coalesce(octet_length(convert_to(value, 'UTF8')) || ':' || value, '-') || ','
$$;

CREATE FUNCTION audit_micros(at timestamptz) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT (extract(epoch FROM at) * 1000000)::bigint::text
$$;

CREATE FUNCTION audit_hash(previous bytea, seq bigint, sealed_at timestamptz, entry audit_journal)
RETURNS bytea LANGUAGE sql STABLE AS $$
    SELECT sha256(previous || convert_to(
        audit_field(seq::text) || audit_field(audit_micros(sealed_at)) || audit_field(entry.id::text)
        || audit_field(audit_micros(entry.at)) || audit_field(entry.actor) || audit_field(entry.action)
        || audit_field(entry.org) || audit_field(entry.before::text) || audit_field(entry.after::text)
        || audit_field(entry.correlation_id), 'UTF8'))
$$;
COMMENT ON FUNCTION audit_hash IS 'The hash of a seal. `previous` is that of the seal before, 32 zero bytes for the first.';

CREATE FUNCTION seal_audit_journal(entries_max integer) RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
    head_seq bigint;
    head_hash bytea;
    entry audit_journal;
    moment timestamptz;
    sealed bigint := 0;
BEGIN
    -- Not waited for: whoever has it seals what we would.
    IF NOT pg_try_advisory_xact_lock(hashtext('quotagate.seal_audit_journal')) THEN
        RETURN 0;
    END IF;
    SELECT s.seq, s.hash INTO head_seq, head_hash FROM audit_seal s ORDER BY s.seq DESC LIMIT 1;
    head_seq := coalesce(head_seq, 0);
    head_hash := coalesce(head_hash, decode(repeat('00', 32), 'hex'));
    FOR entry IN
        SELECT j.* FROM audit_unsealed u JOIN audit_journal j ON j.id = u.entry_id ORDER BY u.entry_id LIMIT entries_max
    LOOP
        head_seq := head_seq + 1;
        moment := clock_timestamp();
        head_hash := audit_hash(head_hash, head_seq, moment, entry);
        INSERT INTO audit_seal (seq, entry_id, sealed_at, hash) VALUES (head_seq, entry.id, moment, head_hash);
        DELETE FROM audit_unsealed u WHERE u.entry_id = entry.id;
        sealed := sealed + 1;
    END LOOP;
    RETURN sealed;
END
$$;
COMMENT ON FUNCTION seal_audit_journal IS 'Seals committed entries, up to entries_max; how many.';

-- They act with their owner's rights, so nobody else may put a table of his own in their way, or call them unasked.
ALTER FUNCTION create_usage_event_day SECURITY DEFINER;
REVOKE EXECUTE ON FUNCTION create_usage_event_day, seal_audit_journal, await_audit_seal FROM PUBLIC;
DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['create_usage_event_day', 'seal_audit_journal', 'await_audit_seal'] LOOP
        EXECUTE format('ALTER FUNCTION %I SET search_path = %I, pg_temp', name, current_schema());
    END LOOP;
END
$$;
