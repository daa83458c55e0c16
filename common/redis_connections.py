"""redis-py's connections, for all code but the hot path: made to a primary only, and closed when it is demoted.

redis-py keeps a connection whose server answers with an error. After a failover behind one address it would keep it
forever: the demoted server leaves its connections open, and refuses every write on them.
"""

import ssl
from collections.abc import Sequence
from functools import partial
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
from common.redis_cluster.client import ClusterClient
from common.redis_cluster.topology import Address
from common.redis_server import Course
from quota.ledger import UnsupportedServer

log = structlog.get_logger()

RETRY_SECONDS = 0.05


def client(url: str, pool: type[ConnectionPool] = BlockingConnectionPool, **options: Any) -> Redis:
    """A client that owns its pool. `options` are the pool's, by redis-py's names."""
    # One more try: only a use shows that Redis closed an idle connection, or that its server has become a replica. A
    # Redis that hangs is not tried again.
    retry = Retry(ConstantBackoff(RETRY_SECONDS), 1, (RedisConnectionError, ReadOnlyError))
    connections = pool.from_url(url, **({"retry": retry, "redis_connect_func": enter} | options))
    secured = (_WithCertificates,) if urlsplit(url).scheme == "rediss" else ()
    connections.connection_class = type(
        "LedgerConnection", (_Demotable, *secured, connections.connection_class), {"url": url}
    )
    return Redis.from_pool(connections)


def cluster_client(
    seeds: Sequence[Address], url: str, pool: type[ConnectionPool] = BlockingConnectionPool, **options: Any
) -> ClusterClient:
    """A client of a Cluster, each of whose servers has a pool of its own. `url`: what their addresses have in common,
    with `{server}` in place of host and port: `redis://{server}/0`. `options` are those of each pool."""

    def connect(address: Address) -> Redis:
        given = {"redis_connect_func": partial(enter, of_cluster=True)} | options
        return client(url.replace("{server}", str(address)), pool, **given)

    return ClusterClient(seeds, connect)


def twin(redis: Redis) -> Redis:
    """Another client over the same connections, with callbacks of its own. It closes none."""
    return redis.twin() if isinstance(redis, ClusterClient) else Redis(connection_pool=redis.connection_pool)


async def enter(connection: Any, *, of_cluster: bool = False) -> None:
    """The first commands on a new connection. `of_cluster`: to a node of a Cluster. Raises UnsupportedServer,
    ReadOnlyError for a replica, and the errors of redis-py."""
    denied: AuthenticationError | None = None
    try:
        await connection.on_connect()
    except AuthenticationError as e:  # a Sentinel does not know this password; what it is says more than this error
        denied = e
    try:
        info = await ask(connection, "INFO")
    except ResponseError as e:
        if denied is not None:
            raise denied from None
        log.warning("redis does not tell its role, so a replica shows only when it refuses", reason=str(e))
        return
    fields = redis_server.fields_of(info if isinstance(info, bytes) else str(info).encode())
    if reason := redis_server.unsupported(fields, of_cluster=of_cluster):
        raise UnsupportedServer(reason)
    if denied is not None:
        raise denied
    if reason := redis_server.not_a_primary(fields):
        raise ReadOnlyError(reason)


async def ask(connection: Any, *command: str) -> Any:
    """One command on a connection that is being made."""
    await connection.send_command(*command, check_health=False)
    return await connection.read_response()


class _WithCertificates:
    """Before a connection class with TLS: redis-py itself reads the files once for each object, although that
    may connect again and again."""

    url: ClassVar[str]
    certificates: ClassVar[Certificates[ssl.SSLContext] | None] = None

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


class _Demotable:
    """Before a connection class of redis-py: the pool closes the connection of a demoted server when it is returned."""

    async def read_response(self, *args: Any, **options: Any) -> Any:
        try:
            reply = await cast("Any", super()).read_response(*args, **options)
        except RedisError as e:
            self._judge(e)
            raise
        # The reply of a script has an error in the place of each request, and a server refuses all of them alike.
        if type(reply) is list and reply and isinstance(reply[0], ResponseError):
            self._judge(reply[0])
        return reply

    def _judge(self, error: RedisError) -> None:
        text = f"{error.status_code} {error}" if error.status_code else str(error)
        refused = redis_server.refused(text)
        if refused is not None and refused.course is Course.DIAL_AGAIN:
            cast("Any", self).mark_for_reconnect()
