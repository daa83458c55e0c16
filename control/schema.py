"""The schema: migrations, and after them the rights of the application's role (docs/decisions/0024)."""

import asyncio
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from control import roles, sql
from control.db import (
    ACQUIRE_SECONDS,
    CLOSE_SECONDS,
    MIGRATIONS,
    Connection,
    RightsMissing,
    StoreUnavailable,
    translated,
)
from control.progress import Unwatched, Watch

UNWATCHED = Unwatched()
MIGRATION_LOCK = 0x71756F7461  # "quota": two that migrate at once take turns


@dataclass(frozen=True, slots=True)
class Migration:
    version: str
    file: Path


def migrations(directory: Path = MIGRATIONS) -> list[Migration]:
    """The oldest first."""
    return [Migration(file.name[:4], file) for file in sorted(directory.glob("*.sql"))]


def missing(migrations_known: list[Migration], held: str | None, newest: str | None = None) -> list[Migration]:
    """What a database at the version `held` lacks, up to `newest`; None: it was never migrated, and up to the last one.

    Pure. Raises StoreUnavailable where the database is at a version that nobody here knows."""
    versions = [each.version for each in migrations_known]
    if held is not None and held not in versions:
        raise StoreUnavailable(f"Postgres: the schema is {held}, which this release ({versions[-1]}) does not know")
    return [
        each
        for each in migrations_known
        if (held is None or each.version > held) and (not newest or each.version <= newest)
    ]


def migrate(
    dsn: str,
    application_role: str | None = None,
    revision: str | None = None,
    directory: Path = MIGRATIONS,
    watch: Watch = UNWATCHED,
) -> list[str]:
    """Brings the schema to the newest version, as its owner, and gives the application role (None: quotagate_app) its
    rights; several at once are safe. Returns the versions that were added. `revision`: to an older one, and
    `directory`: of other migrations, for tests. Raises StoreUnavailable, RightsMissing.

    Synchronous, with an event loop of its own: for the command line and for tests."""
    with translated():
        return asyncio.run(_migrate(dsn, application_role or roles.APPLICATION_ROLE, revision, directory, watch))


async def _migrate(dsn: str, application_role: str, revision: str | None, directory: Path, watch: Watch) -> list[str]:
    connection = await asyncpg.connect(dsn, timeout=ACQUIRE_SECONDS)
    try:
        # One transaction: after a failure the schema is what it was.
        async with connection.transaction():
            added = await upgrade(connection, revision, directory, watch)
            await roles.grant(connection, application_role)
    except asyncpg.InsufficientPrivilegeError as e:
        raise RightsMissing(f"Postgres: {e}; migrate as the owner of the database") from e
    finally:
        await connection.close(timeout=CLOSE_SECONDS)
    return added


async def upgrade(
    connection: Connection,
    revision: str | None = None,
    directory: Path = MIGRATIONS,
    watch: Watch = UNWATCHED,
) -> list[str]:
    """In a transaction of the caller, who is the owner. Returns the versions that were added."""
    await sql.schema.lock_migration(connection, key=MIGRATION_LOCK)
    held = None
    if await sql.schema.has_version(connection):
        held = await sql.health.schema_version(connection)
    else:
        await sql.schema.create_version(connection)
    added = missing(migrations(directory), held, revision)
    with watch.part("Migrating", len(added)) as tick:
        for migration in added:
            await connection.execute(migration.file.read_text(encoding="utf-8"))
            await sql.schema.set_version(connection, version=migration.version)
            tick(1)
    return [migration.version for migration in added]
