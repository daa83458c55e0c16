-- What the home has reserved for each region of an organization's limits (docs/decisions/0059). Whoever changes a row holds
-- the lock of the organization's row of `publication`, so that all regions of an organization are answered one by one.

CREATE TABLE region_lease (
    org      text NOT NULL REFERENCES organization,
    region   text NOT NULL,
    epoch    bigint NOT NULL,       -- of the region's ledger; it grows each time that the ledger has lost its memory
    returns  bigint NOT NULL,       -- how often the region has lowered what it holds, as far as it was heard
    number   bigint NOT NULL,       -- of its last lease
    reserved jsonb NOT NULL,        -- {account@start of the period: units}; of a grant the start is 0
    drawn    jsonb NOT NULL,        -- the same: what the region had drawn when it was heard
    waits    jsonb NOT NULL,        -- {account: seconds since 1970 at which it got less than it wanted}
    waits_until timestamptz,        -- others return what they do not need until then
    idle     boolean NOT NULL,      -- it holds units of the current period that it had not drawn
    heard_at timestamptz NOT NULL,
    PRIMARY KEY (org, region)
);
CREATE INDEX region_lease_waits ON region_lease (waits_until) WHERE waits_until IS NOT NULL;

-- When a control plane of each region was here last. The others tell an admin of one that is silent.
CREATE TABLE region_heard (
    region   text PRIMARY KEY,
    heard_at timestamptz NOT NULL
);
