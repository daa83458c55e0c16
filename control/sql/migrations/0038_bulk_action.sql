-- One action of an admin, done to many organizations in the background.
CREATE TABLE bulk_action (
    id             uuid PRIMARY KEY,
    name           text NOT NULL,                 -- as in control/actions/catalogue.py
    fields         jsonb NOT NULL,
    filter         jsonb NOT NULL,                -- by which the organizations were chosen
    reason         text NOT NULL,
    asked_by       text NOT NULL,
    correlation_id text NOT NULL,
    asked_at       timestamptz NOT NULL,
    stopped_at     timestamptz                    -- by an admin: what was not done by then is not done
);

CREATE TABLE bulk_action_item (
    bulk  uuid NOT NULL REFERENCES bulk_action,
    org   text NOT NULL REFERENCES organization,
    state text NOT NULL CHECK (state IN ('waiting', 'under_way', 'done', 'asked', 'refused', 'stopped')),
    token text,                                   -- of the preview that it goes by: begun again, it is done once
    claimed_until timestamptz,                    -- then another process may go on with it
    note  text,                                   -- why it was refused
    PRIMARY KEY (bulk, org)
);
CREATE INDEX bulk_action_item_open ON bulk_action_item (bulk, org) WHERE state IN ('waiting', 'under_way');
