-- Caps of overage that organizations set for themselves. They are the organization's, not of its terms: a change of the
-- plan does not drop them.
CREATE TABLE overage_cap (
    org            text NOT NULL REFERENCES organization,
    meter          text NOT NULL,
    effective_from timestamptz NOT NULL,                       -- until the next one of organization and meter
    units          bigint CHECK (units >= 0),                  -- NULL: none from then on
    units_before   bigint,                                     -- what was in force before; NULL: none
    set_by         text NOT NULL,                              -- as the journal names the actor
    PRIMARY KEY (org, meter, effective_from)
);
