-- Why attempts failed, each of them: of Stripe's events, and of notifications. They go with what they were about.

CREATE TABLE webhook_attempt (
    event   text NOT NULL REFERENCES webhook_event ON DELETE CASCADE,
    at      timestamptz NOT NULL,
    attempt integer NOT NULL,               -- counted anew when somebody replays the event
    error   text NOT NULL
);
CREATE INDEX webhook_attempt_of_event ON webhook_attempt (event, at);

CREATE TABLE notification_attempt (
    notification uuid NOT NULL REFERENCES notification ON DELETE CASCADE,
    at           timestamptz NOT NULL,
    attempt      integer NOT NULL,
    error        text NOT NULL
);
CREATE INDEX notification_attempt_of_notification ON notification_attempt (notification, at);
