#!/bin/sh
# Runs once, when PostgreSQL's volume is empty: the role that the control plane logs in as can change neither the journal nor
# a usage event (docs/audit.md). `quotagate migrate` gives quotagate_app its rights.
set -eu
psql --quiet --set ON_ERROR_STOP=1 --set password="$POSTGRES_APP_PASSWORD" \
    --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" <<'END'
CREATE ROLE quotagate_app NOLOGIN;
CREATE ROLE quotagate LOGIN PASSWORD :'password' IN ROLE quotagate_app;
END
