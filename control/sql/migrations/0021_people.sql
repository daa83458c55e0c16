-- Users and their organizations, by the API or mirrored from an identity provider; admins of the vendor; and the end of
-- an organization.

-- Deleted: its entitlement is over, its tokens and keys are refused, and nothing of it can be changed. What it used and
-- paid stays.
ALTER TABLE organization ADD COLUMN deleted_at timestamptz;
-- Its name and its members follow the identity provider, and the API does not change them.
ALTER TABLE organization ADD COLUMN mirrored boolean NOT NULL DEFAULT false;

CREATE TABLE app_user (
    id         text PRIMARY KEY, -- as the user claim of tokens has it
    email      text,
    name       text,
    mirrored   boolean NOT NULL,
    created_at timestamptz NOT NULL,
    deleted_at timestamptz
);

CREATE TABLE membership (
    org        text NOT NULL REFERENCES organization (id),
    user_id    text NOT NULL REFERENCES app_user (id),
    role       text NOT NULL CHECK (role IN ('member', 'admin', 'owner')),
    created_at timestamptz NOT NULL,
    PRIMARY KEY (org, user_id)
);
CREATE INDEX membership_of_user ON membership (user_id);

-- Who signs in as whom of the vendor: by the subject of the identity provider, or by an e-mail address that the provider
-- has verified.
CREATE TABLE admin_role (
    kind       text NOT NULL CHECK (kind IN ('subject', 'email')),
    subject    text NOT NULL,
    role       text NOT NULL CHECK (role IN ('viewer', 'support', 'billing', 'admin')),
    created_at timestamptz NOT NULL,
    created_by text NOT NULL,
    PRIMARY KEY (kind, subject)
);
