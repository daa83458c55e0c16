-- The directory: organizations as they are searched, filtered and sorted. Of what is shown nothing is read from here.

CREATE TABLE organization_summary (
    org            text PRIMARY KEY REFERENCES organization,
    name_key       text NOT NULL,                             -- the name as it is sorted
    created_at     timestamptz NOT NULL,
    is_deleted     boolean NOT NULL DEFAULT false,
    plan           text,                                      -- its code; NULL: nothing is in force
    status         text NOT NULL DEFAULT 'none',
    used_fraction  double precision NOT NULL DEFAULT 0,       -- of the fullest meter, in thousandths: it changes seldom
    payment_failed boolean NOT NULL DEFAULT false,
    mrr_minor      bigint NOT NULL DEFAULT 0,                 -- of several currencies the largest
    renews_at      timestamptz NOT NULL DEFAULT '9999-01-01', -- that: it does not renew
    stale_at       timestamptz NOT NULL DEFAULT '-infinity'   -- when time alone changes it
);
CREATE INDEX organization_summary_name ON organization_summary (is_deleted, name_key, org);
CREATE INDEX organization_summary_created ON organization_summary (is_deleted, created_at, org);
CREATE INDEX organization_summary_used ON organization_summary (is_deleted, used_fraction, org);
CREATE INDEX organization_summary_mrr ON organization_summary (is_deleted, mrr_minor, org);
CREATE INDEX organization_summary_renews ON organization_summary (is_deleted, renews_at, org);
CREATE INDEX organization_summary_stale ON organization_summary (stale_at);
CREATE INDEX organization_summary_plan ON organization_summary (plan, org);
CREATE INDEX organization_summary_failed ON organization_summary (org) WHERE payment_failed;
CREATE INDEX organization_summary_status ON organization_summary (status, org);

-- Apart from it, since a new row of an index of words costs more than all others together.
CREATE TABLE organization_search (
    org   text PRIMARY KEY REFERENCES organization,
    terms tsvector NOT NULL                                   -- made by control/directory/terms.py, not by a dictionary
);
CREATE INDEX organization_search_terms ON organization_search USING gin (terms);
CREATE INDEX api_key_starts_with ON api_key (starts_with text_pattern_ops);
CREATE INDEX api_key_id_starts_with ON api_key (id text_pattern_ops);

CREATE TABLE organization_review (
    id  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    org text NOT NULL
);
CREATE INDEX organization_review_org ON organization_review (org);
COMMENT ON TABLE organization_review IS
    'Organizations of which something changed that the directory holds. Rows are added, so nobody waits for another.';

CREATE FUNCTION review_organizations() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO organization_review (org) SELECT DISTINCT org FROM changed WHERE org IS NOT NULL;
    RETURN NULL;
END
$$;

CREATE FUNCTION list_organizations() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    -- In the same transaction, so that a list has it at once; words and figures follow.
    INSERT INTO organization_summary (org, name_key, created_at) SELECT id, lower(name), created_at FROM changed
    ON CONFLICT DO NOTHING;
    INSERT INTO organization_review (org) SELECT id FROM changed;
    RETURN NULL;
END
$$;

CREATE FUNCTION review_organizations_of_users() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO organization_review (org)
    SELECT DISTINCT m.org FROM membership m JOIN changed ON changed.id = m.user_id;
    RETURN NULL;
END
$$;

CREATE FUNCTION review_organizations_of_payments() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO organization_review (org)
    SELECT DISTINCT org FROM changed WHERE org IS NOT NULL AND kind = 'payment_failed';
    RETURN NULL;
END
$$;

DO $$
DECLARE
    watched text;
    happening text;
BEGIN
    FOREACH watched IN ARRAY ARRAY[
        'entitlement', 'entitlement_override', 'grant', 'membership', 'stripe_customer', 'subscription',
        'subscription_history'
    ] LOOP
        FOREACH happening IN ARRAY ARRAY['INSERT', 'UPDATE', 'DELETE'] LOOP
            EXECUTE format('CREATE TRIGGER directory_follows_%s AFTER %s ON %I REFERENCING %s TABLE AS changed '
                'FOR EACH STATEMENT EXECUTE FUNCTION review_organizations()', lower(happening), happening, watched,
                CASE happening WHEN 'DELETE' THEN 'OLD' ELSE 'NEW' END);
        END LOOP;
    END LOOP;
END
$$;
CREATE TRIGGER directory_follows_insert AFTER INSERT ON organization REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION list_organizations();
CREATE TRIGGER directory_follows_update AFTER UPDATE ON organization REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION list_organizations();
CREATE TRIGGER directory_follows_update AFTER UPDATE ON app_user REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION review_organizations_of_users();
CREATE TRIGGER directory_follows_insert AFTER INSERT ON incident REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION review_organizations_of_payments();
CREATE TRIGGER directory_follows_update AFTER UPDATE ON incident REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION review_organizations_of_payments();

INSERT INTO organization_summary (org, name_key, created_at) SELECT id, lower(name), created_at FROM organization;
INSERT INTO organization_review (org) SELECT id FROM organization ORDER BY id;
