"""The schema: migrations, and after them the rights of the application's role."""

import asyncio
from typing import Any

import asyncpg  # type: ignore[import-untyped]  # ships no py.typed

from control import roles
from control.db import ACQUIRE_SECONDS, SQL, RightsMissing, schema_versions, translated

MIGRATION_LOCK = 0x71756F7461  # "quota": two that migrate at once take turns


def migrate(dsn: str, application_role: str | None = None, revision: str = "head") -> list[str]:
    """Brings the schema to the newest version, as its owner, and gives the application role (None: quotagate_app) its
    rights; several at once are safe. `revision`: to an older one, for tests. Returns the versions that were added.
    Raises StoreUnavailable, RightsMissing.

    Synchronous, with an event loop of its own: for the command line and for tests."""
    with translated():
        return asyncio.run(_migrate(dsn, application_role, revision))


async def _migrate(dsn: str, application_role: str | None, revision: str) -> list[str]:
    # Not at the top: alembic and SQLAlchemy take half a second to import, and a server does without them.
    from alembic import command
    from alembic.config import Config
    from alembic.runtime.migration import MigrationContext
    from sqlalchemy import Connection as AlchemyConnection
    from sqlalchemy import text
    from sqlalchemy.exc import DBAPIError
    from sqlalchemy.ext.asyncio import create_async_engine
    from sqlalchemy.pool import NullPool

    def upgrade(connection: AlchemyConnection) -> list[str]:
        # It also begins the transaction, which everything below stays within.
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": MIGRATION_LOCK})
        config = Config(attributes={"connection": connection})
        config.set_main_option("script_location", str(SQL / "migrations").replace("%", "%%"))
        before = MigrationContext.configure(connection).get_current_revision()
        try:
            command.upgrade(config, revision)
            driver: Any = connection.connection.dbapi_connection
            driver.run_async(lambda raw: roles.grant(raw, application_role or roles.APPLICATION_ROLE))
        except (asyncpg.InsufficientPrivilegeError, DBAPIError) as e:
            cause = e.orig if isinstance(e, DBAPIError) else e
            if getattr(cause, "sqlstate", None) != asyncpg.InsufficientPrivilegeError.sqlstate:
                raise
            raise RightsMissing(f"Postgres: {cause}; migrate as the owner of the database") from e
        return [version for version in schema_versions() if before is None or version > before]

    engine = create_async_engine(
        "postgresql+asyncpg://", poolclass=NullPool, async_creator=lambda: asyncpg.connect(dsn, timeout=ACQUIRE_SECONDS)
    )
    try:
        async with engine.begin() as connection:
            return await connection.run_sync(upgrade)
    except DBAPIError as e:  # SQLAlchemy wraps what asyncpg said, twice
        raise (e.orig.__cause__ or e.orig if e.orig is not None else e) from e
