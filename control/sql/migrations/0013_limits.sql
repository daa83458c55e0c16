-- Meters that have used all of their allowance, which may be at their limit --------------------------------------------

CREATE TABLE limit_watch (
    org          text NOT NULL,
    meter        text NOT NULL,
    period_start timestamptz NOT NULL,
    period_end   timestamptz NOT NULL,
    looked_at    timestamptz,               -- NULL: not yet
    PRIMARY KEY (org, meter, period_start)
);
CREATE INDEX limit_watch_due ON limit_watch (looked_at NULLS FIRST);
COMMENT ON TABLE limit_watch IS
    'Kept until the period is over: grants, refunds and other allowances let a meter go on, and come to its limit again.';

-- Those that were there before.
INSERT INTO threshold_review (org, from_at)
SELECT DISTINCT org, now() FROM threshold_event WHERE percent >= 100 AND reached_at > now() - interval '400 days';
