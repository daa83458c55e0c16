-- The mirror of the identity provider: what its events name is looked at there, so that their order, their repetition and
-- their loss do not matter.

CREATE TABLE mirror_event (
    id          text PRIMARY KEY, -- as the provider calls the delivery: the same one may come again
    type        text NOT NULL,
    received_at timestamptz NOT NULL
);
CREATE INDEX mirror_event_received ON mirror_event (received_at);

CREATE TABLE mirror_look (
    kind            text NOT NULL CHECK (kind IN ('user', 'organization', 'all')),
    subject         text NOT NULL,            -- the provider's id; '' of all
    asked           bigint NOT NULL DEFAULT 1, -- how often somebody asked for a look,
    looked          bigint NOT NULL DEFAULT 0, -- and how many of these the last look answers
    attempts        integer NOT NULL DEFAULT 0,
    next_attempt_at timestamptz NOT NULL,
    claimed_until   timestamptz,              -- one process is looking
    looked_at       timestamptz,
    last_error      text,
    PRIMARY KEY (kind, subject)
);
CREATE INDEX mirror_look_due ON mirror_look (next_attempt_at) WHERE asked > looked;
