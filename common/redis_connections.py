"""redis-py's connections, for all code but the hot path: made to a primary only, and closed when it is demoted.

redis-py keeps a connection whose server answers with an error. After a failover behind one address it would keep it
forever: the demoted server leaves its connections open, and refuses every write on them.
"""

import asyncio
from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar, NoReturn, cast
from weakref import WeakSet

import structlog
from redis.asyncio import BlockingConnectionPool, ConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import ConstantBackoff
from redis.exceptions import AuthenticationError, ReadOnlyError, RedisError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError

from common import redis_server, redis_tls, redis_url
from common.redis_closing import ClosedInOneStep
from common.redis_cluster import address as cluster_address
from common.redis_cluster.address import is_cluster
from common.redis_cluster.client import ClusterClient
from common.redis_sentinel import Primary, Sentinels, SentinelWatch
from common.redis_sentinel_url import is_sentinel, taken_apart
from common.redis_server import Course
from common.redis_tls import WithCertificates
from quota.ledger import UnsupportedServer

log = structlog.get_logger()

RETRY_SECONDS = 0.05


def client(url: str, pool: type[ConnectionPool] = BlockingConnectionPool, **options: Any) -> Redis:
    """A client that owns its pool, or of a Cluster its pools. `options` are those of each pool, by redis-py's names."""
    return _of_cluster(url, pool, options) if is_cluster(url) else _of_server(url, pool, options)


def _of_server(url: str, pool: type[ConnectionPool], options: Mapping[str, Any]) -> Redis:
    # One more try: only a use shows that Redis closed an idle connection, or that its server has become a replica. A
    # Redis that hangs is not tried again.
    retry = Retry(ConstantBackoff(RETRY_SECONDS), 1, (RedisConnectionError, ReadOnlyError))
    given = {"retry": retry, "redis_connect_func": enter, **options}
    if not is_sentinel(url):
        connections = pool.from_url(url, **given)
        _become(connections, url, _Demotable)
        return Redis.from_pool(connections)
    connections = pool.from_url(taken_apart(url).servers, **given)
    client = cast("_BehindSentinels", _BehindSentinels.from_pool(connections))
    client.way = _Way(url)
    _become(connections, url, _Found, _Demotable, way=client.way)
    return client


def _become(connections: ConnectionPool, url: str, *before: type, **fields: Any) -> None:
    """Its connections have these classes before redis-py's own."""
    secured = (WithCertificates,) if redis_url.has_tls(url) else ()
    classes = (*before, ClosedInOneStep, *secured, connections.connection_class)
    connections.connection_class = type("LedgerConnection", classes, {"url": url, **fields})


def _of_cluster(url: str, pool: type[ConnectionPool], options: Mapping[str, Any]) -> Redis:
    apart = cluster_address.taken_apart(url)
    given = {"redis_connect_func": partial(enter, of_cluster=True), **options}
    return ClusterClient(apart.seeds, lambda address: _of_server(apart.of(address), pool, given))


def twin(redis: Redis) -> Redis:
    """Another client over the same connections, with callbacks of its own. It closes none."""
    return redis.twin() if isinstance(redis, ClusterClient) else Redis(connection_pool=redis.connection_pool)


async def enter(connection: Any, *, of_cluster: bool = False) -> None:
    """The first commands on a new connection. `of_cluster`: to a node of a Cluster, which may be a replica. Raises
    UnsupportedServer, ReadOnlyError for a replica of one server, and the errors of redis-py."""
    try:
        await redis_tls.first_commands(connection, connection.url)
    except AuthenticationError as e:
        await _refuse(connection, e, of_cluster=of_cluster)
    try:
        info = await ask(connection, "INFO")
    except ResponseError as e:
        log.warning("redis does not tell its role, so a replica shows only when it refuses", reason=str(e))
        return
    fields = _require_supported(info, of_cluster=of_cluster)
    if not of_cluster and (reason := redis_server.not_a_primary(fields)):  # there a replica says who has the key
        raise ReadOnlyError(reason)


async def _refuse(connection: Any, denied: AuthenticationError, *, of_cluster: bool) -> NoReturn:
    """A server that does not let us in. A Sentinel does not know this password: what it is says more than that."""
    # On a connection of its own: redis-py or the server may have closed this one. It would come back here.
    entering, connection.redis_connect_func = connection.redis_connect_func, _let_be
    await connection.disconnect(nowait=True)
    try:
        _require_supported(await ask(connection, "INFO"), of_cluster=of_cluster)
    except UnsupportedServer:
        raise
    except RedisError:  # it tells nobody else
        pass
    finally:
        connection.redis_connect_func = entering
    user = connection.username or "default"
    raise AuthenticationError(f"{redis_tls.where(connection)} does not let the user {user} in: {denied}") from None


async def _let_be(connection: Any) -> None:
    """Without the first commands: replies alone are read."""
    connection._parser.on_connect(connection)  # redis-py has no other way to begin without HELLO


def _require_supported(info: Any, *, of_cluster: bool) -> redis_server.Info:
    """The fields of INFO. Raises UnsupportedServer."""
    fields = redis_server.fields_of(info if isinstance(info, bytes) else str(info).encode())
    if reason := redis_server.unsupported(fields, of_cluster=of_cluster):
        raise UnsupportedServer(reason)
    return fields


async def ask(connection: Any, *command: str) -> Any:
    """One command on a connection that is being made."""
    await connection.send_command(*command, check_health=False)
    return await connection.read_response()


class _Way:
    """To the primary that the Sentinels name. A connection that leads elsewhere ends, whatever waits for a reply there:
    a server that was cut off ends none."""

    def __init__(self, url: str) -> None:
        self._sentinels = Sentinels(url)
        self._watch = SentinelWatch(self._sentinels, self._on_named)
        self._connections = WeakSet[Any]()
        self._ending = set[asyncio.Task[None]]()

    async def find(self, connection: Any) -> None:
        """Says where it connects to. Raises UnsupportedServer, redis-py's ConnectionError."""
        self._watch.start()
        self._connections.add(connection)
        connection.host, connection.port = await self._sentinels.primary()

    async def aclose(self) -> None:
        await self._watch.aclose()
        await self._sentinels.aclose()

    def _on_named(self, primary: Primary) -> None:
        elsewhere = [each for each in self._connections if each.is_connected and (each.host, each.port) != primary]
        if elsewhere:
            log.warning("redis is left for another primary", primary=f"{primary.host}:{primary.port}")
        for connection in elsewhere:
            task = asyncio.get_running_loop().create_task(connection.disconnect(nowait=True), name="redis-leave")
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)


class _BehindSentinels(Redis):
    way: _Way

    async def aclose(self, close_connection_pool: bool | None = None) -> None:
        await self.way.aclose()
        await super().aclose(close_connection_pool)


class _Found:
    """Before a connection class of redis-py: where it connects to, the Sentinels say each time."""

    way: ClassVar[_Way]

    async def connect_check_health(self, *args: Any, **options: Any) -> None:
        if not cast("Any", self).is_connected:
            await self.way.find(self)
        await cast("Any", super()).connect_check_health(*args, **options)


class _Demotable:
    """Before a connection class of redis-py: the pool closes the connection of a demoted server when it is returned.
    One whose first commands were cancelled is closed as well: else it would be used without what they find out."""

    async def connect_check_health(self, *args: Any, **options: Any) -> None:
        connection = cast("Any", super())
        try:
            await connection.connect_check_health(*args, **options)
        except BaseException:
            await connection.disconnect(nowait=True)
            raise

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
