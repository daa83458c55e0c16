-- How long periods are; they are counted from period_anchor.

ALTER TABLE entitlement
    ADD COLUMN period_every integer NOT NULL DEFAULT 1 CHECK (period_every > 0),
    ADD COLUMN period_unit text NOT NULL DEFAULT 'month' CHECK (period_unit IN ('day', 'week', 'month')),
    ADD COLUMN period_bounds bigint[] NOT NULL DEFAULT '{}', -- seconds since 1970; not empty: periods lie between these
    ADD COLUMN period_starts_at timestamptz;                 -- where a first period begins that lasts until the anchor
