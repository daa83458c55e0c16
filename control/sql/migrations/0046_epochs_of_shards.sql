-- The shards that were vouched for in an epoch. In a Cluster, a server is vouched for anew without the others.
ALTER TABLE ledger_epoch ADD COLUMN shards integer[];   -- NULL: all of them
