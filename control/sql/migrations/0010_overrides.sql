-- What an admin laid over an organization's terms, whatever these are: they come and go with a subscription, this stays.

CREATE TABLE entitlement_override (
    org            text NOT NULL REFERENCES organization,
    effective_from timestamptz NOT NULL,                      -- until the next one of the organization
    policy         text CHECK (policy IN ('HARD_STOP', 'METERED')), -- NULL: the plan's
    allowances     jsonb NOT NULL DEFAULT '{}',               -- {meter: units} in place of the plan's
    overage_max    jsonb NOT NULL DEFAULT '{}',               -- {meter: units} in place of the plan's
    rate_requests  integer CHECK (rate_requests > 0),         -- NULL: the plan's
    rate_seconds   double precision,
    rate_burst     integer,
    concurrent_max integer CHECK (concurrent_max > 0),        -- NULL: the plan's
    held           boolean NOT NULL DEFAULT false,            -- suspended by an admin, whatever is paid
    PRIMARY KEY (org, effective_from),
    CHECK (num_nulls(rate_requests, rate_seconds, rate_burst) IN (0, 3))
);

CREATE FUNCTION review_overridden_thresholds() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    -- Together with the first terms of an organization without counters, they replace nothing.
    INSERT INTO threshold_review (org, from_at)
    SELECT a.org, a.effective_from FROM added a
    WHERE (
        EXISTS (SELECT 1 FROM usage_counter c WHERE c.org = a.org)
        OR EXISTS (SELECT 1 FROM entitlement e WHERE e.org = a.org AND e.effective_from < a.effective_from)
    ) AND NOT EXISTS (SELECT 1 FROM threshold_review r WHERE r.org = a.org AND r.from_at = a.effective_from);
    RETURN NULL;
END
$$;
CREATE TRIGGER entitlement_override_is_reviewed
    AFTER INSERT ON entitlement_override REFERENCING NEW TABLE AS added
    FOR EACH STATEMENT EXECUTE FUNCTION review_overridden_thresholds();
CREATE TRIGGER entitlement_override_change_is_reviewed
    AFTER UPDATE ON entitlement_override REFERENCING NEW TABLE AS added
    FOR EACH STATEMENT EXECUTE FUNCTION review_overridden_thresholds();

-- Of terms in force or to come, and of the last ones of a subscription that is over: its organization may come back. What
-- an admin ended took its overrides along.
WITH kept AS (
    SELECT DISTINCT ON (e.org) e.* FROM entitlement e WHERE e.effective_from <= now()
    ORDER BY e.org, e.effective_from DESC, e.id DESC
), carried AS (
    SELECT * FROM kept WHERE effective_to IS NULL OR effective_to > now() OR subscription IS NOT NULL
    UNION ALL
    SELECT * FROM entitlement WHERE effective_from > now() AND (effective_to IS NULL OR effective_to > effective_from)
), laid AS (
    SELECT *, held OR (subscription IS NULL AND status = 'suspended') AS suspended FROM carried
)
INSERT INTO entitlement_override (org, effective_from, policy, allowances, overage_max, rate_requests, rate_seconds,
    rate_burst, concurrent_max, held)
SELECT org, effective_from, policy, allowances, overage_max, rate_requests, rate_seconds, rate_burst, concurrent_max,
    suspended
FROM laid
WHERE org IN (
    SELECT org FROM laid
    WHERE suspended OR num_nonnulls(policy, rate_requests, concurrent_max) > 0
        OR allowances <> '{}' OR overage_max <> '{}'
)
ON CONFLICT DO NOTHING;

-- An admin's suspension is no status of terms any more: taken back, they are what they would have been.
UPDATE entitlement SET status = 'active'
WHERE subscription IS NULL AND status = 'suspended' AND (effective_to IS NULL OR effective_to > now());

ALTER TABLE entitlement
    DROP COLUMN policy,
    DROP COLUMN allowances,
    DROP COLUMN overage_max,
    DROP COLUMN rate_requests,
    DROP COLUMN rate_seconds,
    DROP COLUMN rate_burst,
    DROP COLUMN concurrent_max,
    DROP COLUMN held;
