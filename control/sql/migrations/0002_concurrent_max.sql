-- Requests of an organization that may be under way at once.

ALTER TABLE plan ADD COLUMN concurrent_max integer CHECK (concurrent_max > 0);        -- NULL: any number
ALTER TABLE entitlement ADD COLUMN concurrent_max integer CHECK (concurrent_max > 0); -- NULL: the plan's

DROP TRIGGER plan_version_is_immutable ON plan;
CREATE TRIGGER plan_version_is_immutable
    BEFORE UPDATE OF id, code, version, name, policy, currency, rate_requests, rate_seconds, rate_burst, contact, demo,
        concurrent_max
    ON plan FOR EACH ROW EXECUTE FUNCTION refuse_change();
