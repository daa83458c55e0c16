"""Who may use what: plans, entitlements and grants, and their way from Postgres to Redis."""
