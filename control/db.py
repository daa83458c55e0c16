"""PostgreSQL: connections, and what its errors mean. The statements are in `control/sql`."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Protocol

import asyncpg

from control import sql, tracing
from control.sql.statements import Connection as Connection

MIGRATIONS = Path(__file__).parent / "sql" / "migrations"
ACQUIRE_SECONDS = 5.0
CLOSE_SECONDS = 1.0
FILTERED_SECONDS = 5.0


class StoreUnavailable(Exception):
    """Postgres does not answer, or went away in the middle."""


class TextUnusable(ValueError):
    """A text contains the character NUL, which Postgres cannot store."""


class ReadTooLong(Exception):
    """What is asked for would take too long to find."""


class RightsMissing(Exception):
    """The connected role lacks a right; the message says what would help."""


_GONE = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.IdleSessionTimeoutError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.TooManyConnectionsError,
    asyncpg.LockNotAvailableError,  # where a statement says how long it waits for others
    asyncpg.InvalidCatalogNameError,  # no such database
    asyncpg.InvalidAuthorizationSpecificationError,  # no such role, or a wrong password
)

_NOT_MIGRATED = (asyncpg.UndefinedTableError, asyncpg.UndefinedColumnError, asyncpg.UndefinedFunctionError)
MIGRATE = "run `quotagate migrate`"


@contextmanager
def translated() -> Iterator[None]:
    """Raises StoreUnavailable, TextUnusable, RightsMissing for what asyncpg raises."""
    try:
        yield
    except _GONE as e:
        raise StoreUnavailable(f"Postgres: {e or type(e).__name__}") from e
    except _NOT_MIGRATED as e:
        raise StoreUnavailable(f"Postgres: the database has no schema of this release ({e}); {MIGRATE}") from e
    except (asyncpg.CharacterNotInRepertoireError, asyncpg.UntranslatableCharacterError) as e:
        raise TextUnusable("A text contains the character NUL, which cannot be stored") from e
    except asyncpg.InsufficientPrivilegeError as e:
        raise RightsMissing(f"Postgres: {e}") from e


_SERVER_SETTINGS = {"application_name": "quotagate", "timezone": "UTC"}


class Database:
    """A pool of connections. Every error that means "Postgres is away" leaves as StoreUnavailable."""

    def __init__(self, pool: "asyncpg.Pool[asyncpg.Record]", dsn: str) -> None:
        self._pool = pool
        self._dsn = dsn

    @classmethod
    @asynccontextmanager
    async def open(
        cls, dsn: str, connections_max: int = 16, timeout_seconds: float = 30.0
    ) -> "AsyncIterator[Database]":
        with translated():
            pool = await asyncpg.create_pool(
                dsn,
                min_size=1,
                max_size=connections_max,
                command_timeout=timeout_seconds,
                init=_set_codecs,
                reset=_reset,
                server_settings=_SERVER_SETTINGS,
            )
        try:
            yield cls(pool, dsn)
        finally:
            try:
                await asyncio.wait_for(pool.close(), ACQUIRE_SECONDS)
            except (TimeoutError, *_GONE):
                pool.terminate()

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        with translated():
            async with self._pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
                yield connection

    async def session(self, timeout_seconds: float) -> "Session":
        """A connection outside the pool, for its owner alone. A statement on it that takes longer is given up."""
        with translated():
            connection = await asyncpg.connect(
                self._dsn,
                timeout=timeout_seconds,
                command_timeout=timeout_seconds,
                server_settings=_SERVER_SETTINGS,
            )
        return Session(connection)

    async def ping(self) -> None:
        """Raises StoreUnavailable, also where nobody has migrated the database."""
        async with self.connection() as connection:
            await sql.health.ping(connection)

    async def check_schema(self) -> None:
        """Raises StoreUnavailable where the schema is missing or older than this release needs. A newer one is fine:
        while a release is rolled out, the one before it still runs."""
        async with self.connection() as connection:
            held = await sql.health.schema_version(connection)
        needed = schema_versions()
        if held in needed and held != needed[-1]:
            raise StoreUnavailable(f"Postgres: the schema is {held}, and this release needs {needed[-1]}; {MIGRATE}")

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        async with self.connection() as connection, connection.transaction():
            if (traceparent := tracing.traceparent()) is not None:
                await sql.health.follow_trace(connection, traceparent=traceparent)
            yield connection

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[Connection]:
        """For several reads of one moment."""
        async with self.connection() as connection, connection.transaction(isolation="repeatable_read", readonly=True):
            yield connection

    @asynccontextmanager
    async def planned_anew(self, seconds: float = FILTERED_SECONDS) -> AsyncIterator[Connection]:
        """For reads with filters that may be there or not: a plan that is kept for all values reads far too much for a
        rare one. Raises ReadTooLong where a statement takes longer than `seconds`."""
        async with self.snapshot() as connection:
            await sql.health.plan_anew(connection, most_ms=str(int(seconds * 1000)))
            try:
                yield connection
            except asyncpg.QueryCanceledError as e:
                raise ReadTooLong from e


class Transactions(Protocol):
    """What a change needs of a database: the pool of connections, or a transaction that is under way (`Joined`)."""

    def connection(self) -> AbstractAsyncContextManager[Connection]: ...
    def transaction(self) -> AbstractAsyncContextManager[Connection]: ...


class Joined:
    """A transaction that is under way, for changes that are committed with it or not at all."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        yield self._connection

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        async with self._connection.transaction():  # a savepoint
            yield self._connection


class Session:
    """One connection, for what belongs to a session of Postgres and ends with it. After a failure it is closed."""

    def __init__(self, connection: "asyncpg.Connection[asyncpg.Record]") -> None:
        self._connection = connection

    @property
    def closed(self) -> bool:
        return bool(self._connection.is_closed())

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        try:
            with translated():
                yield self._connection
        except StoreUnavailable:
            self._connection.terminate()
            raise

    async def close(self) -> None:
        try:
            await self._connection.close(timeout=CLOSE_SECONDS)
        except (TimeoutError, *_GONE):
            self._connection.terminate()


def schema_versions() -> list[str]:
    """Of all migrations that this release has, the oldest first."""
    return sorted(file.name[:4] for file in MIGRATIONS.glob("*.sql"))


async def _reset(connection: "asyncpg.Connection[asyncpg.Record]") -> None:
    # Nothing here sets anything beyond its own transaction, so a connection goes back to the pool as it is. asyncpg's
    # own reset is a transaction more for each use: half of what an idle control plane asked of Postgres.
    if connection.is_in_transaction():
        await connection.reset()


async def _set_codecs(connection: "asyncpg.Connection[asyncpg.Record]") -> None:
    # In the binary format, which COPY needs; its first byte is the version of jsonb's wire form.
    await connection.set_type_codec(
        "jsonb",
        encoder=lambda value: b"\x01" + json.dumps(value, separators=(",", ":")).encode(),
        decoder=lambda data: json.loads(data[1:]),
        schema="pg_catalog",
        format="binary",
    )
