-- Whether what gateways would refuse an organization is only recorded, and the request goes on.
ALTER TABLE organization ADD COLUMN shadow boolean NOT NULL DEFAULT false;
