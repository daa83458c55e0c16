-- People of organizations who are signed in to the portal. A session is looked up with every request, and with it who
-- the person is in the organization now. Of the secret in the cookie only a hash is here.
CREATE TABLE portal_session (
    id         uuid PRIMARY KEY,
    digest     bytea NOT NULL UNIQUE CHECK (length(digest) = 32),
    org        text NOT NULL REFERENCES organization (id),
    user_id    text,                          -- as in the user claim of tokens; NULL: nobody of the organization's users
    role       text NOT NULL,                 -- in the organization, as whoever opened it said; a membership that is known here counts instead
    opened_by  text NOT NULL,                 -- who made the link, or provider:subject
    return_url text,                          -- the vendor's page that the portal leads back to
    address    text NOT NULL,
    browser    text NOT NULL,
    issued_at  timestamptz NOT NULL,          -- when whoever opened it said so: revocations of what was issued before refuse it
    created_at timestamptz NOT NULL,
    used_at    timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    ended_at   timestamptz
);
CREATE INDEX portal_session_of_org ON portal_session (org, used_at DESC) WHERE ended_at IS NULL;
CREATE INDEX portal_session_expires ON portal_session (expires_at);

-- One-time links into the portal, which the vendor's server asks for. Of the code in a link only a hash is here.
CREATE TABLE portal_link (
    digest     bytea PRIMARY KEY CHECK (length(digest) = 32),
    org        text NOT NULL REFERENCES organization (id),
    user_id    text,
    role       text NOT NULL,
    return_url text,
    created_by text NOT NULL,
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    used_at    timestamptz
);
CREATE INDEX portal_link_expires ON portal_link (expires_at);
