-- Activation codes, the sites that they activate, and the sites' refresh tokens ------------------------------------------

CREATE TABLE activation_code (
    id                uuid PRIMARY KEY,
    digest            bytea NOT NULL UNIQUE,    -- SHA-256; the code itself is nowhere
    handle            text NOT NULL,            -- its first characters, by which people call it
    org               text NOT NULL,            -- with a plan: the id that the organization will have
    plan              text,
    product           text NOT NULL,            -- '': any, and none is named
    sites             integer NOT NULL CHECK (sites >= 1),
    scopes            text[] NOT NULL,
    uncounted_domains text[] NOT NULL,
    access_seconds    integer,                  -- of its sites' access tokens; NULL: as in the settings
    note              text,
    created_by        text NOT NULL,
    created_at        timestamptz NOT NULL,
    expires_at        timestamptz NOT NULL,
    revoked_at        timestamptz,
    refusals          integer NOT NULL DEFAULT 0,
    refused_for       text,                     -- the last time
    refused_at        timestamptz
);
CREATE INDEX activation_code_org ON activation_code (org, id);

CREATE TABLE site (
    id            text PRIMARY KEY,             -- sorts by time
    org           text NOT NULL REFERENCES organization,
    code          uuid NOT NULL REFERENCES activation_code,
    product       text NOT NULL,
    name          text,
    domain        text NOT NULL,                -- as control/access/activation/domains.py writes it
    former_domain text,                         -- before it moved
    key           text NOT NULL,                -- kind and data; proves who the site is
    kind          text NOT NULL CHECK (kind IN ('production', 'staging')),
    clone_of      text REFERENCES site,
    state         text NOT NULL CHECK (state IN ('active', 'released', 'revoked')),
    ended_by      text,
    activated_at  timestamptz NOT NULL,
    seen_at       timestamptz NOT NULL,         -- activated or refreshed
    ended_at      timestamptz
);
CREATE INDEX site_org ON site (org, id);
CREATE INDEX site_seat ON site (code) WHERE state = 'active';
CREATE UNIQUE INDEX site_at_domain ON site (org, product, domain) WHERE state = 'active' AND kind = 'production';

CREATE TABLE refresh_family (
    id         text PRIMARY KEY,
    site       text NOT NULL REFERENCES site,
    tag_key    bytea NOT NULL,
    generation bigint NOT NULL,
    digest     bytea NOT NULL,                  -- SHA-256 of the current token's secret
    salt       bytea NOT NULL,
    attempt    bytea,
    rotated_at timestamptz NOT NULL,            -- when the current token was made
    ended_by   text
);
CREATE UNIQUE INDEX refresh_family_live ON refresh_family (site) WHERE ended_by IS NULL;
COMMENT ON TABLE refresh_family IS
    'One row for all refresh tokens that follow one another: what of them is stored is in control/access/activation/refresh_tokens.py.';
