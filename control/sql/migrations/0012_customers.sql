-- An organization that has paid as two customers is served for both; one of them is its own.

ALTER TABLE stripe_customer ADD COLUMN main boolean NOT NULL DEFAULT true; -- whom portal, credit and checkouts are for
DROP INDEX stripe_customer_of_organization;
CREATE UNIQUE INDEX stripe_customer_of_organization ON stripe_customer (org) WHERE deleted_at IS NULL AND main;
CREATE INDEX stripe_customers_of_organization ON stripe_customer (org);

-- Pages where somebody could pay for an organization: one at a time.
CREATE TABLE checkout_session (
    id         text PRIMARY KEY,
    org        text NOT NULL,                                 -- it need not be there yet
    seq        bigint GENERATED ALWAYS AS IDENTITY,           -- the older one expires
    expires_at timestamptz NOT NULL,
    closed_at  timestamptz                                    -- paid, or expired
);
CREATE INDEX checkout_session_open ON checkout_session (org, seq) WHERE closed_at IS NULL;
