-- What an upgrade in mid period gives until the period's end; the row after it gives the whole.

ALTER TABLE entitlement ADD COLUMN prorated jsonb NOT NULL DEFAULT '{}'; -- {meter: units}
