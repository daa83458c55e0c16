-- The keys with which the control plane signs tokens, when it issues them. A private key is sealed with a master key
-- that is not in the database; it is destroyed when the key is retired, and the rest of the row stays as a record.

CREATE TABLE signing_key (
    id            text PRIMARY KEY,          -- `kid`: the thumbprint of the public key
    algorithm     text NOT NULL CHECK (algorithm IN ('EdDSA', 'ES256')),
    public_jwk    jsonb NOT NULL,
    sealed        bytea,                     -- the private key; NULL: destroyed
    created_at    timestamptz NOT NULL,
    signs_from    timestamptz NOT NULL,      -- it signs until the next one does
    token_seconds int NOT NULL CHECK (token_seconds > 0), -- the longest life of a token that it may have signed
    retired_at    timestamptz,               -- NULL: it is published
    CHECK ((retired_at IS NULL) = (sealed IS NOT NULL))
);
