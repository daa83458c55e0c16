-- How long takes took, as gateways tell it once a minute: of all of them together, by minute.

CREATE TABLE check_time (
    minute timestamptz NOT NULL,
    bucket smallint NOT NULL,                             -- the bits of the microseconds: 10 is 512 to 1023
    checks bigint NOT NULL,
    PRIMARY KEY (minute, bucket)
);

-- The last entry of the stream that is in the table: what was read again is not counted again.
CREATE TABLE check_time_position (
    one        boolean PRIMARY KEY DEFAULT true CHECK (one),
    stream_ms  bigint NOT NULL,
    stream_seq bigint NOT NULL
);
INSERT INTO check_time_position (stream_ms, stream_seq) VALUES (0, 0);
