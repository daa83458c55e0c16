"""How a connection to the node that holds the shards is made: dialed, let in, and looked at before it is used."""

import asyncio
import os
import ssl
from collections.abc import Awaitable, Callable
from typing import Final

import structlog
from redis.exceptions import RedisError

from common import redis_server, redis_tls, redis_url
from common.certificates import Certificates
from common.clock import Clock, system_clock
from common.redis_cluster.topology import Address
from common.redis_sentinel import Primary, Sentinels
from common.redis_sentinel_url import is_sentinel
from gateway.redis.connection import Connection, ConnectionOwner, Lost
from gateway.redis.reconnection import CONNECT_TIMEOUT_SECONDS
from quota import keys
from quota.ledger import ShardMismatch
from quota.scripts import script

log = structlog.get_logger()

CLOCK_SKEW_SECONDS_MAX: Final = 2.0
"""As the control plane has it where its settings say nothing."""

Check = Callable[[Connection], Awaitable[None]]
"""A last word of the handshake. Raises Lost where the connection must not be used."""


class Dialer:
    __slots__ = (
        "_certificates",
        "_client_id",
        "_clock",
        "_loop",
        "_name",
        "_of_cluster",
        "_redis_ahead_ms",
        "_script",
        "_shards",
        "_url",
        "primary",
        "sentinels",
        "server",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        url: str,
        shards: int,
        *,
        of_cluster: bool = False,
        clock: Clock = system_clock,
    ) -> None:
        """`of_cluster`: it leads to one server of a Cluster."""
        self._clock = clock
        self._of_cluster = of_cluster
        self._loop = loop
        self._url = url
        self._shards = shards
        self._certificates: Certificates[ssl.SSLContext] | None = None
        self._script = script("take")
        self._name = b"quotagate-%b" % os.urandom(8).hex().encode()  # of its connections
        self._client_id: int | None = None  # of the newest connection, inside Redis
        self._redis_ahead_ms: float | None = None  # of this loop's clock
        self.sentinels = Sentinels(url) if is_sentinel(url) else None
        """Who say where to dial; None: the URL does."""
        self.primary: Primary | None = None
        """Whom they named when it was dialed last."""
        self.server: str | None = None
        """Whom it has dialed last: host:port, or a path."""

    def redis_ms(self) -> int:
        """Redis time now, as far as this gateway knows it: milliseconds since the epoch, or 0."""
        return int(self._loop.time() * 1000 + self._redis_ahead_ms) if self._redis_ahead_ms is not None else 0

    async def dial(self, owner: ConnectionOwner, *checks: Check) -> Connection:
        """A connection on which takes may be sent. Raises OSError, Lost, ValueError."""
        options = redis_url.parts(self._url)
        if self._certificates is None:
            self._certificates = redis_url.certificates(self._url)
        tls = None if self._certificates is None else await self._certificates.current()
        if self.sentinels is not None:
            self.primary = await self._named(self.sentinels)
            options["host"], options["port"] = self.primary
        connection = Connection(self._loop, owner, CONNECT_TIMEOUT_SECONDS)
        if "path" in options:
            self.server = options["path"]
            await self._loop.create_unix_connection(lambda: connection, options["path"])
        else:
            host, port = options.get("host", "localhost"), options.get("port", 6379)
            self.server = str(Address(host, port))
            await self._connect(lambda: connection, host, port, tls)
        try:
            await self._enter(connection, options.get("username"), options.get("password"))
            if database := options.get("db"):
                await connection.ask("SELECT", database)
            if not self._of_cluster:  # there another server may hold it, and it is compared at the start
                await self._compare_layout(connection)
            await self._end_predecessor(connection)
            await connection.ask("SCRIPT", "LOAD", self._script.source)
            await connection.ask("EVALSHA", self._script.sha, 0)  # no take: whether they may be sent
            for check in checks:
                await check(connection)
        except BaseException:
            connection.abort("handshake failed")
            raise
        return connection

    async def _connect(self, make: Callable[[], Connection], host: str, port: int, tls: ssl.SSLContext | None) -> None:
        if tls is None:
            await self._loop.create_connection(make, host, port)
            return
        seconds = redis_tls.handshake_seconds(CONNECT_TIMEOUT_SECONDS)
        try:
            await self._loop.create_connection(make, host, port, ssl=tls, ssl_handshake_timeout=seconds)
        except ConnectionAbortedError as e:
            if e.errno is not None:  # by the network, and not by the event loop after its time for the handshake
                raise
            raise Lost(redis_tls.NO_HANDSHAKE, applied=False) from None

    async def _named(self, sentinels: Sentinels) -> Primary:
        try:
            return await sentinels.primary()
        except RedisError as e:
            raise Lost(str(e), applied=False) from e

    async def _compare_layout(self, connection: Connection) -> None:
        await connection.ask("SET", keys.LAYOUT, self._shards, "NX")
        installed = int(await connection.ask("GET", keys.LAYOUT) or self._shards)
        if installed != self._shards:
            raise Lost(str(ShardMismatch(self._shards, installed)), applied=False)

    async def _enter(self, connection: Connection, username: str | None, password: str | None) -> None:
        """Says who we are, and looks at who answers."""
        denied: Lost | None = None
        if username is not None or password is not None:
            try:
                await connection.ask("AUTH", username or "default", password or "")
            except Lost as e:  # a Sentinel knows no such password, and its own name says more
                denied = e
        try:
            info = redis_server.fields_of(await connection.ask("INFO"))
        except Lost as e:
            if connection.closed and connection.lost is not None:
                raise Lost(f"Redis {redis_tls.closed(self._url)}", applied=False) from None
            if connection.lost is not None or denied is not None:
                raise denied or e from None
            log.warning("redis does not tell its role, so a replica shows only when it refuses", reason=str(e))
            return
        if reason := redis_server.unsupported(info, of_cluster=self._of_cluster):
            raise Lost(reason, applied=False)
        if denied is not None:
            raise denied
        if reason := redis_server.not_a_primary(info):
            raise Lost(reason, applied=False)
        if reason := redis_server.evicting(info):  # a start would have refused it; now requests would fail for it
            log.warning("redis may lose what is charged", reason=reason)

    async def _end_predecessor(self, connection: Connection) -> None:
        """Ends the connection before this one inside Redis, too: a take that still lies in its socket there would be
        charged after it was looked for and not found."""
        try:
            # Numbers begin anew with a Redis that was restarted, and may be those of others then.
            if self._client_id is not None and self._name in await connection.ask(
                "CLIENT", "LIST", "ID", self._client_id
            ):
                await connection.ask("CLIENT", "KILL", "ID", self._client_id)
            await connection.ask("CLIENT", "SETNAME", self._name)
            self._client_id = int(await connection.ask("CLIENT", "ID"))
            seconds, microseconds = await connection.ask("TIME")
        except Lost as e:
            if connection.lost is not None:
                raise
            log.warning("redis does not let the gateway end its old connections", reason=str(e))
            return
        self._redis_ahead_ms = int(seconds) * 1000 + int(microseconds) / 1000 - self._loop.time() * 1000
        ahead_seconds = self._clock() - int(seconds) - int(microseconds) / 1e6
        if abs(ahead_seconds) > CLOCK_SKEW_SECONDS_MAX:
            log.warning(
                "the clock of this machine, by which tokens expire, is off from that of redis, by which periods end",
                seconds_ahead_of_redis=round(ahead_seconds, 3),
            )
