-- Tokens of the vendor's machines, and of organizations' machines. The bootstrap token of the settings is one of them,
-- so that it can be revoked. Only a token's SHA-256 is stored: it has 166 random bits.

CREATE TABLE service_token (
    id           uuid PRIMARY KEY,
    name         text NOT NULL,
    hash         bytea NOT NULL UNIQUE,
    org          text REFERENCES organization (id), -- NULL: it reaches all organizations
    role         text,                              -- one of the roles, whose permissions a release may extend,
    permissions  text[],                            -- or just these
    created_at   timestamptz NOT NULL,
    created_by   text NOT NULL,
    expires_at   timestamptz,
    last_used_at timestamptz,                       -- to the minute
    revoked_at   timestamptz,
    CHECK ((role IS NULL) <> (permissions IS NULL))
);

-- The journal names a service token by its name.
CREATE UNIQUE INDEX service_token_name ON service_token (name) WHERE revoked_at IS NULL;
-- The one of the settings is filed once, also if it was revoked.
CREATE UNIQUE INDEX service_token_bootstrap ON service_token (name) WHERE name = 'bootstrap';
