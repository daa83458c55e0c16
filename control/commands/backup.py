"""What `quotagate backup` and `quotagate restore` do."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

from common import redis_connections
from common.clock import system_clock
from common.settings_file import load
from control import roles
from control.backup import restoring, taking
from control.backup.files import Manifest
from control.db import Database
from control.ledger.streams import Streams
from control.progress import Watch
from control.settings.control_plane import Settings
from quota.ledger import Ledger

CONNECTIONS = 4
TABLE_SECONDS = 86_400.0  # a table of years takes hours
REDIS_SECONDS = 30.0


def take(config_path: Path | None, directory: Path, watch: Watch) -> Manifest:
    """Raises SettingsError, BackupRefused, StoreUnavailable, LedgerError, OSError."""
    settings = load(config_path, "control.yaml", Settings)

    async def run() -> Manifest:
        dsn = settings.postgres.dsn.get_secret_value()
        async with _ledger(settings) as ledger, _database(settings, dsn) as db:
            await db.check_schema()
            await ledger.check_layout()
            return await taking.take(db, ledger, Streams(ledger.redis, ledger.shards), directory, watch)

    return asyncio.run(run())


def restore(
    config_path: Path | None,
    dsn: str,
    application_role: str | None,
    directory: Path,
    watch: Watch,
    *,
    keep_redis: bool,
) -> Manifest:
    """Raises SettingsError, BackupRefused, StoreUnavailable, RightsMissing, LedgerError, OSError."""
    settings = load(config_path, "control.yaml", Settings)
    role = application_role or roles.APPLICATION_ROLE

    async def run() -> Manifest:
        async with _ledger(settings) as ledger, _database(settings, dsn) as db:
            return await restoring.restore(
                db, ledger, directory, role, keep_redis=keep_redis, clock=system_clock, watch=watch
            )

    return asyncio.run(run())


def _database(settings: Settings, dsn: str) -> AbstractAsyncContextManager[Database]:
    return Database.open(dsn, CONNECTIONS, TABLE_SECONDS, region=settings.own_region)


@asynccontextmanager
async def _ledger(settings: Settings) -> AsyncIterator[Ledger]:
    client = redis_connections.client(
        settings.redis.url.get_secret_value(),
        max_connections=CONNECTIONS,
        timeout=REDIS_SECONDS,
        socket_timeout=REDIS_SECONDS,
        socket_connect_timeout=REDIS_SECONDS,
    )
    try:
        yield Ledger(client, settings.redis.shards)
    finally:
        await client.aclose()
