-- What admins do about an incident, and the indexes of what they look at all day.

ALTER TABLE incident
    ADD COLUMN acknowledged_at timestamptz,               -- NULL: nobody has said that he sees to it
    ADD COLUMN acknowledged_by text,
    ADD CHECK (num_nulls(acknowledged_at, acknowledged_by) IN (0, 2));
CREATE INDEX incident_of_kind ON incident (kind, (closed_at IS NULL), id);
CREATE INDEX incident_of_organization ON incident (org, (closed_at IS NULL), id) WHERE org IS NOT NULL;

CREATE TABLE incident_note (
    id       uuid PRIMARY KEY,                            -- sorts by time
    incident uuid NOT NULL REFERENCES incident ON DELETE CASCADE,
    at       timestamptz NOT NULL,
    author   text NOT NULL,
    text     text NOT NULL
);
CREATE INDEX incident_note_of_incident ON incident_note (incident, id);

-- Lists of one state, and how many wait or were given up, without a look at those that are done.
CREATE INDEX webhook_event_of_state ON webhook_event ((coalesce(outcome, 'waiting')), received_at, id);
CREATE INDEX notification_of_state ON notification ((coalesce(outcome, 'pending')), id);
