"""PostgreSQL: connections, and what its errors mean. The statements are in `control/sql`."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Protocol

import asyncpg

from control import pooler, sql, tracing
from control.region import ALONE, Region
from control.sql.statements import Connection as Connection

MIGRATIONS = Path(__file__).parent / "sql" / "migrations"
ACQUIRE_SECONDS = 5.0
CLOSE_SECONDS = 1.0
FILTERED_SECONDS = 5.0
STATEMENTS_KEPT = 100  # prepared ones of a connection, as many as asyncpg keeps by itself
UNUSED_SECONDS = 60.0
"""A connection that nobody has used for so long is closed, but the last one. After an outage everybody wants one at the
same time, and each keeps what was prepared on it: some KiB for a statement here, and its plan in the server."""


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
    asyncpg.DeadlockDetectedError,  # nothing of it is done: who asks again is served
    asyncpg.InvalidCatalogNameError,  # no such database
    asyncpg.InvalidAuthorizationSpecificationError,  # no such role, or a wrong password
)

_NOT_MIGRATED = (asyncpg.UndefinedTableError, asyncpg.UndefinedColumnError, asyncpg.UndefinedFunctionError)
MIGRATE = "run `quotagate migrate`"

_POOLED = (asyncpg.DuplicatePreparedStatementError, asyncpg.InvalidSQLStatementNameError)
SESSION_NEEDED = (
    "a pooler that pools transactions is in between, and locks of a session need one: name PostgreSQL itself, or a "
    "pool of sessions, in postgres.session_dsn"
)


@contextmanager
def translated() -> Iterator[None]:
    """Raises StoreUnavailable, TextUnusable, RightsMissing for what asyncpg raises."""
    try:
        yield
    except _GONE as e:
        raise StoreUnavailable(f"Postgres: {e or type(e).__name__}") from e
    except _NOT_MIGRATED as e:
        raise StoreUnavailable(f"Postgres: the database has no schema of this release ({e}); {MIGRATE}") from e
    except _POOLED as e:
        raise StoreUnavailable(f"Postgres: {SESSION_NEEDED} ({e})") from e
    except (asyncpg.CharacterNotInRepertoireError, asyncpg.UntranslatableCharacterError) as e:
        raise TextUnusable("A text contains the character NUL, which cannot be stored") from e
    except asyncpg.InsufficientPrivilegeError as e:
        raise RightsMissing(f"Postgres: {e}") from e


_SERVER_SETTINGS = {"application_name": "quotagate", "timezone": "UTC"}


class Database:
    """A pool of connections. Every error that means "Postgres is away" leaves as StoreUnavailable."""

    def __init__(
        self,
        pool: "asyncpg.Pool[asyncpg.Record]",
        unsettled: set[int],
        session_dsn: str,
        statements_kept: int,
        region: Region = ALONE,
    ) -> None:
        """`unsettled`: the processes of PostgreSQL on whose connections something was given up."""
        self.region = region
        self._pool = pool
        self._unsettled = unsettled
        self._session_dsn = session_dsn
        self._statements_kept = statements_kept

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        dsn: str,
        connections_max: int = 16,
        timeout_seconds: float = 30.0,
        session_dsn: str | None = None,
        region: Region = ALONE,
    ) -> "AsyncIterator[Database]":
        """`region`: whose ledger this process works with, among those that share the database.

        `session_dsn`: where a connection is a session of PostgreSQL's own; None: at `dsn`. Through a pooler no
        statement is prepared for longer than it runs, since its next run may be at another server connection."""
        with translated():
            pooled = session_dsn is not None or await _is_pooled(dsn)
            statements_kept = 0 if pooled else STATEMENTS_KEPT
            unsettled = set[int]()
            pool = await asyncpg.create_pool(
                dsn,
                min_size=1,
                max_size=connections_max,
                command_timeout=timeout_seconds,
                max_inactive_connection_lifetime=UNUSED_SECONDS,
                init=_set_codecs,
                reset=partial(_reset, unsettled),
                server_settings=_SERVER_SETTINGS,
                statement_cache_size=statements_kept,
            )
        try:
            yield cls(pool, unsettled, session_dsn or dsn, statements_kept, region)
        finally:
            try:
                await asyncio.wait_for(pool.close(), ACQUIRE_SECONDS)
            except (TimeoutError, *_GONE):
                pool.terminate()

    @property
    def is_pooled(self) -> bool:
        """Whether a pooler is in between, or may be."""
        return self._statements_kept == 0

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        with translated():
            async with self._pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
                try:
                    yield connection
                except BaseException:
                    self._unsettled.add(connection.get_server_pid())
                    raise

    async def session(self, timeout_seconds: float) -> "Session":
        """A connection outside the pool, for its owner alone. A statement on it that takes longer is given up.

        Raises StoreUnavailable, also where a pooler would share it with others."""
        another = partial(_connected, self._session_dsn, timeout_seconds, self._statements_kept)
        with translated():
            connection = await _connect(self._session_dsn, timeout_seconds, self._statements_kept)
            try:
                kept = await pooler.keeps_sessions(connection, another)
            except BaseException:
                connection.terminate()
                raise
        session = Session(connection)
        if not kept:
            await session.close()
            raise StoreUnavailable(f"Postgres: {SESSION_NEEDED}")
        return session

    async def check_session(self, timeout_seconds: float) -> None:
        """Raises StoreUnavailable where there are no sessions, or they are of another database than all else."""
        session = await self.session(timeout_seconds)
        try:
            async with session.connection() as own, self.connection() as connection:
                there, here = await sql.health.place(own), await sql.health.place(connection)
        finally:
            await session.close()
        if there != here:
            raise StoreUnavailable(
                "Postgres: postgres.session_dsn leads to another database than postgres.dsn, where nobody sees its "
                f"locks: {there} is not {here}"
            )

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


class Reads(Protocol):
    """What a read needs of a database: the primary, or where it may be a little old (control/replica.py)."""

    def connection(self) -> AbstractAsyncContextManager[Connection]: ...
    def snapshot(self) -> AbstractAsyncContextManager[Connection]: ...


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


async def _connect(dsn: str, timeout_seconds: float, statements_kept: int) -> "asyncpg.Connection[asyncpg.Record]":
    return await asyncpg.connect(
        dsn,
        timeout=timeout_seconds,
        command_timeout=timeout_seconds,
        server_settings=_SERVER_SETTINGS,
        statement_cache_size=statements_kept,
    )


@asynccontextmanager
async def _connected(
    dsn: str, timeout_seconds: float, statements_kept: int
) -> "AsyncIterator[asyncpg.Connection[asyncpg.Record]]":
    connection = await _connect(dsn, timeout_seconds, statements_kept)
    try:
        yield connection
    finally:
        await connection.close(timeout=CLOSE_SECONDS)


async def _is_pooled(dsn: str) -> bool:
    async with _connected(dsn, ACQUIRE_SECONDS, 0) as connection:
        return await pooler.is_between(connection)


async def _reset(unsettled: set[int], connection: "asyncpg.Connection[asyncpg.Record]") -> None:
    # Nothing here sets anything beyond its own transaction, so a connection goes back to the pool as it is. asyncpg's
    # own reset is a transaction more for each use: half of what an idle control plane asked of Postgres. But a
    # statement is prepared without a Sync: who gives up then, or has a value that cannot be encoded, leaves PostgreSQL
    # in a transaction that asyncpg does not know of, and in which no snapshot can begin.
    if connection.get_server_pid() in unsettled:
        unsettled.discard(connection.get_server_pid())
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
