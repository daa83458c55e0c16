-- What admins do to organizations: asked for, approved where that is needed, done, undone. The journal tells it, too; this
-- is what the next step goes by.
CREATE TABLE admin_action (
    id          uuid PRIMARY KEY,
    org         text NOT NULL REFERENCES organization,
    name        text NOT NULL,                 -- as in control/actions/catalogue.py
    fields      jsonb NOT NULL,
    reason      text NOT NULL,
    token       text NOT NULL UNIQUE,          -- of the preview that it goes by: one preview, one action
    state       text NOT NULL CHECK (state IN
        ('waiting', 'declined', 'withdrawn', 'under_way', 'done', 'refused', 'unanswered', 'undoing', 'undone')),
    asked_by    text NOT NULL,
    asked_at    timestamptz NOT NULL,
    decided_by  text,                          -- the second person, where one is needed
    decided_at  timestamptz,
    note        text,                          -- why it was declined, or what Stripe said
    done        jsonb,                         -- what came of it
    undo        jsonb,                         -- what undoing needs; NULL: it cannot be undone
    undone_by   text,
    undone_at   timestamptz,
    undo_reason text
);
CREATE INDEX admin_action_of_organization ON admin_action (org, id);
CREATE INDEX admin_action_waiting ON admin_action (id) WHERE state = 'waiting';
