"""redis-py's connections, for everybody but the hot path: made to a primary only, and given up when it is one no more.

redis-py keeps a connection whose server answers with an error. After a failover behind one address that would be for
ever: the demoted server keeps its connections, and refuses every write on them.
"""

from typing import Any, ClassVar, cast
from urllib.parse import urlsplit

import structlog
from redis.asyncio import BlockingConnectionPool, ConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import ConstantBackoff
from redis.exceptions import AuthenticationError, ReadOnlyError, RedisError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError

from common import redis_server, redis_url
from common.certificates import Certificates
from common.redis_server import Course
from quota.ledger import UnsupportedServer

log = structlog.get_logger()

AGAIN_SECONDS = 0.05


def client(url: str, pool: type[ConnectionPool] = BlockingConnectionPool, **options: Any) -> Redis:
    """A client that owns its pool. `options` are the pool's, by redis-py's names."""
    # One more try: a connection that Redis dropped while it was idle shows only when it is used, and so does one whose
    # server is a replica by now. A Redis that hangs is not asked again.
    again = Retry(ConstantBackoff(AGAIN_SECONDS), 1, (RedisConnectionError, ReadOnlyError))
    made = pool.from_url(url, **({"retry": again, "redis_connect_func": enter} | options))
    secured = (_Securing,) if urlsplit(url).scheme == "rediss" else ()
    made.connection_class = type("LedgerConnection", (_Leaving, *secured, made.connection_class), {"url": url})
    return Redis.from_pool(made)


async def enter(connection: Any) -> None:
    """What a new connection begins with. Raises UnsupportedServer, ReadOnlyError of a replica, and what else redis-py
    does."""
    denied: AuthenticationError | None = None
    try:
        await connection.on_connect()
    except AuthenticationError as e:  # a Sentinel knows no such password, and is better told by its name
        denied = e
    try:
        info = await ask(connection, "INFO")
    except ResponseError as e:
        if denied is not None:
            raise denied from None
        log.warning("redis does not tell its role, so a replica shows only when it refuses", reason=str(e))
        return
    fields = redis_server.fields_of(info if isinstance(info, bytes) else str(info).encode())
    if reason := redis_server.unsupported(fields):
        raise UnsupportedServer(reason)
    if denied is not None:
        raise denied
    if reason := redis_server.not_a_primary(fields):
        raise ReadOnlyError(reason)


async def ask(connection: Any, *command: str) -> Any:
    """One command on a connection that is being made."""
    await connection.send_command(*command, check_health=False)
    return await connection.read_response()


class _Securing:
    """In front of a connection class with TLS: redis-py reads the files once for each connection that it keeps, however
    often it makes it again."""

    url: ClassVar[str]
    certificates: ClassVar[Certificates | None] = None

    async def _connect(self) -> None:
        kind = type(self)
        try:
            if kind.certificates is None:
                kind.certificates = redis_url.certificates(kind.url)
            if kind.certificates is not None:
                cast("Any", self).ssl_context.context = await kind.certificates.current()
        except ValueError as e:
            raise RedisConnectionError(str(e)) from None
        await cast("Any", super())._connect()


class _Leaving:
    """In front of a connection class of redis-py: the pool closes the connection when it comes back to it."""

    async def read_response(self, *args: Any, **options: Any) -> Any:
        try:
            reply = await cast("Any", super()).read_response(*args, **options)
        except RedisError as e:
            self._judge(e)
            raise
        # A script tells the error of each of its requests in its place, and a server refuses all of them.
        if type(reply) is list and reply and isinstance(reply[0], ResponseError):
            self._judge(reply[0])
        return reply

    def _judge(self, error: RedisError) -> None:
        text = f"{error.status_code} {error}" if error.status_code else str(error)
        refused = redis_server.refused(text)
        if refused is not None and refused.course is Course.DIAL_AGAIN:
            cast("Any", self).mark_for_reconnect()
