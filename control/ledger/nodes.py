"""The servers that hold the shards: one, or each primary of a Cluster.

What is asked of a server itself, and not of whoever holds a key, is asked through these."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import structlog
from redis.exceptions import RedisError

log = structlog.get_logger()


class Node(NamedTuple):
    redis: Any
    """A client of redis-py whose connections lead to this server alone."""
    shards: tuple[int, ...]
    """Those that it holds now."""


class Nodes(Protocol):
    async def now(self) -> Sequence[Node]:
        """As the shards are spread now; each shard is in one of them. Raises LedgerUnavailable."""

    async def forget_connections(self) -> None:
        """Closes idle connections: they may lead to the server that was in front before."""


class OneServer:
    """One address holds all shards."""

    def __init__(self, redis: Any, shards: int) -> None:
        self._nodes = (Node(redis, tuple(range(shards))),)

    async def now(self) -> Sequence[Node]:
        return self._nodes

    async def forget_connections(self) -> None:
        await forget_idle(self._nodes[0].redis.connection_pool)


async def forget_idle(pool: Any) -> None:
    """Closes the idle connections of a pool of redis-py."""
    try:
        await pool.disconnect(inuse_connections=False)
    except (RedisError, OSError) as e:
        log.info("a connection to the server before could not be ended", reason=str(e))
