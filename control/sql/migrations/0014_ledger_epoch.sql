-- Which Redis server the counters were vouched for on, one row each time: an epoch, which only grows. Redis holds the
-- epoch that it was vouched for in; a server that was put aside and comes back holds an older one.

CREATE TABLE ledger_epoch (
    epoch      bigint PRIMARY KEY CHECK (epoch > 0),
    server     text NOT NULL,           -- its run id
    vouched_at timestamptz NOT NULL     -- by this database's clock, as publication.published_at is
);
