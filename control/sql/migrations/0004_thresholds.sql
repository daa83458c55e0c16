-- Thresholds: an organization has used so many percent of an allowance --------------------------------------------

CREATE TABLE threshold_event (
    org          text NOT NULL,
    meter        text NOT NULL,
    period_start timestamptz NOT NULL,
    percent      integer NOT NULL CHECK (percent > 0),
    allowance    bigint NOT NULL,           -- as it was when the threshold was reached
    used         bigint NOT NULL,
    reached_at   timestamptz NOT NULL,
    PRIMARY KEY (org, meter, period_start, percent)
);
COMMENT ON TABLE threshold_event IS 'The key is the promise: a threshold is reached once in a period.';

ALTER TABLE usage_counter ADD COLUMN notice_at bigint NOT NULL DEFAULT 0;
COMMENT ON COLUMN usage_counter.notice_at IS
    'Of used, from where on thresholds are looked at. A counter that is below costs the writer no look at its terms.';

CREATE TABLE threshold_review (
    id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    org     text NOT NULL,
    from_at timestamptz NOT NULL            -- when the terms come into force
);
CREATE INDEX threshold_review_due ON threshold_review (from_at);
COMMENT ON TABLE threshold_review IS 'Organizations whose counters have a notice_at of terms that were replaced.';

CREATE FUNCTION review_thresholds() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    -- Terms that are the first of an organization without counters replace nothing.
    INSERT INTO threshold_review (org, from_at)
    SELECT a.org, a.effective_from FROM added a
    WHERE EXISTS (SELECT 1 FROM usage_counter c WHERE c.org = a.org)
        OR EXISTS (SELECT 1 FROM entitlement e WHERE e.org = a.org AND e.id <> a.id);
    RETURN NULL;
END
$$;
CREATE TRIGGER entitlement_is_reviewed
    AFTER INSERT ON entitlement REFERENCING NEW TABLE AS added
    FOR EACH STATEMENT EXECUTE FUNCTION review_thresholds();


-- What the vendor's own system is told ------------------------------------------------------------------------------

CREATE TABLE notification (
    id              uuid PRIMARY KEY,       -- its webhook-id, the same at each attempt
    type            text NOT NULL,
    org             text,
    body            text NOT NULL,          -- as it is sent and signed
    created_at      timestamptz NOT NULL,
    attempts        integer NOT NULL DEFAULT 0,
    next_attempt_at timestamptz NOT NULL,   -- while an attempt is under way: when another may take it for lost
    last_error      text,                   -- NULL: none yet, or an attempt is under way
    outcome         text CHECK (outcome IN ('delivered', 'given_up')), -- NULL: to be delivered
    ended_at        timestamptz,
    CHECK (num_nulls(outcome, ended_at) IN (0, 2))
);
CREATE INDEX notification_due ON notification (next_attempt_at) WHERE outcome IS NULL;
CREATE INDEX notification_ended ON notification (ended_at) WHERE outcome IS NOT NULL;
COMMENT ON TABLE notification IS 'The outbox of webhooks: written in the transaction of what it tells, sent afterwards.';
