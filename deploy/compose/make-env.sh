#!/bin/sh
# Writes .env beside compose.yaml with new secrets, and never over one that is there.
set -eu
cd "$(dirname "$0")"
if [ -e .env ]; then
    echo "$PWD/.env is there already" >&2
    exit 1
fi
secret() { openssl rand -hex "$1"; }
redis=$(secret 24) owner=$(secret 24) app=$(secret 24)
umask 077
cat > .env <<END
VALKEY_PASSWORD=$redis
QUOTAGATE_REDIS_URL=redis://:$redis@valkey:6379/0
POSTGRES_OWNER_PASSWORD=$owner
QUOTAGATE_POSTGRES_OWNER_DSN=postgresql://quotagate_owner:$owner@postgres:5432/quotagate
POSTGRES_APP_PASSWORD=$app
QUOTAGATE_POSTGRES_DSN=postgresql://quotagate:$app@postgres:5432/quotagate
QUOTAGATE_ADMIN_TOKEN=$(secret 32)
QUOTAGATE_JWT_SECRET=$(secret 32)
END
