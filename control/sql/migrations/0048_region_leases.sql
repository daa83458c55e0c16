-- What the home has reserved for each region of an organization's limits (docs/decisions/0059). Whoever changes a row holds
-- the lock of the organization's row of `publication`, so that all regions of an organization are answered one by one.

CREATE TABLE region_lease (
    org      text NOT NULL REFERENCES organization,
    region   text NOT NULL,
    epoch    bigint NOT NULL,       -- of the region's ledger; it grows each time that the ledger has lost its memory
    returns  bigint NOT NULL,       -- how often the region has lowered what it holds, as far as it was heard
    number   bigint NOT NULL,       -- of its last lease
    reserved jsonb NOT NULL,        -- {account@start of the period: units}; of a grant the start is 0
    waits    jsonb NOT NULL,        -- {account: seconds since 1970 at which it got less than it wanted}
    heard_at timestamptz NOT NULL,
    PRIMARY KEY (org, region)
);
