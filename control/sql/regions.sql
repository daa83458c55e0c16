-- name: lock_organization(org)$
-- Until the transaction ends, no other region of the organization is answered. The time, by this database's clock; nothing
-- for an organization of which nothing was ever published.
SELECT extract(epoch FROM clock_timestamp())::float8 FROM publication WHERE org = :org FOR UPDATE;

-- name: leases(org)
-- What is reserved for each of its regions.
SELECT region, epoch, returns, number, reserved, waits FROM region_lease WHERE org = :org;

-- name: keep_lease(org, region, epoch, returns, number, reserved, waits)!
-- What is reserved from now on.
INSERT INTO region_lease AS l (org, region, epoch, returns, number, reserved, waits, heard_at)
VALUES (:org, :region, :epoch, :returns, :number, :reserved, :waits, clock_timestamp())
ON CONFLICT (org, region) DO UPDATE
SET epoch = excluded.epoch, returns = excluded.returns, number = excluded.number, reserved = excluded.reserved,
    waits = excluded.waits, heard_at = excluded.heard_at;
