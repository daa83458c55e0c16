-- People who are signed in to the console. A session is looked up with every request, so one that is ended here has
-- ended everywhere. Of the secret in the cookie only a hash is here.
CREATE TABLE session (
    id         uuid PRIMARY KEY,
    digest     bytea NOT NULL UNIQUE CHECK (length(digest) = 32),
    person     text NOT NULL,                 -- provider:subject, or link:<who made the link>
    provider   text,                          -- by its name in the settings; NULL: a one-time link
    email      text,                          -- as the provider has verified it
    name       text,
    roles      text[] NOT NULL,               -- what the provider's claim or the link gave; assignments are added at each request
    address    text NOT NULL,
    browser    text NOT NULL,
    created_at timestamptz NOT NULL,
    used_at    timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    ended_at   timestamptz
);
CREATE INDEX session_of_person ON session (person) WHERE ended_at IS NULL;
CREATE INDEX session_expires ON session (expires_at);

-- One-time links into the console. Of the code in a link only a hash is here.
CREATE TABLE console_link (
    digest     bytea PRIMARY KEY CHECK (length(digest) = 32),
    role       text NOT NULL,
    created_by text NOT NULL,
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    used_at    timestamptz
);
