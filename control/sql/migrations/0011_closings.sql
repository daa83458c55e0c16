-- Items that billed overage and are gone, with their subscription or alone, until it is known whether what was used was billed.

CREATE TABLE overage_closing (
    subscription     text NOT NULL,
    item             text NOT NULL,
    org              text NOT NULL REFERENCES organization,
    customer         text NOT NULL,
    price            text NOT NULL,
    meter            text NOT NULL,
    period_from      timestamptz NOT NULL,                    -- of the item's last period
    counted_from     timestamptz NOT NULL,                    -- an item that came in mid period counts from then on
    period_to        timestamptz NOT NULL,                    -- the last period's end, if the item had stayed
    closed_at        timestamptz NOT NULL,
    ended            boolean NOT NULL,                        -- the whole subscription is over
    replaced         boolean NOT NULL,                        -- another item of it bills the meter from then on
    prorates_removed boolean NOT NULL,                        -- Stripe bills what was used when an item goes
    next_check_at    timestamptz NOT NULL,
    settled_at       timestamptz,
    PRIMARY KEY (subscription, item)
);
CREATE INDEX overage_closing_open ON overage_closing (next_check_at) WHERE settled_at IS NULL;
