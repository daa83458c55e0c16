-- What was used on days that are over, of all organizations together: a year of it is read without its events.

CREATE TABLE usage_day (
    day     date NOT NULL,
    meter   text NOT NULL,
    calls   bigint,                                       -- charges; NULL: the day was in a file when it was counted
    units   bigint NOT NULL,
    overage bigint NOT NULL,                              -- of units, sold beyond allowance and grants
    PRIMARY KEY (day, meter)
);

-- Days that are counted, those without any usage too. An event that is written late takes its day out again.
CREATE TABLE usage_day_counted (
    day        date PRIMARY KEY,
    counted_at timestamptz NOT NULL
);
