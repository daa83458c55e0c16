"""The servers that could take the place of those that hold the ledger, and whether they would keep what is charged."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

from redis.asyncio import Redis
from redis.asyncio.cluster import RedisCluster
from redis.exceptions import RedisError

from common import redis_connections, redis_keeping
from common.redis_cluster.client import ClusterClient
from common.redis_cluster.topology import Address
from common.redis_keeping import Losses, Persistence
from common.redis_sentinel_url import is_sentinel, taken_apart
from quota.ledger import LedgerUnavailable

TIMEOUT_SECONDS: Final = 2.0


async def losses(redis: Redis | RedisCluster, url: str, persistence: Persistence) -> Mapping[Address, Losses | None]:
    """Of each replica, by the primary or the Cluster; None: it does not answer. Behind one address nobody knows how its
    replicas are reached, so that there are none. Raises LedgerUnavailable."""
    try:
        addresses = await _addresses(redis, url)
    except RedisError as e:
        raise LedgerUnavailable(f"replicas: {e}") from e
    found = await asyncio.gather(*(_losses(redis, url, address, persistence) for address in addresses))
    return dict(zip(addresses, found, strict=True))


async def _addresses(redis: Any, url: str) -> list[Address]:
    if isinstance(redis, ClusterClient):
        return sorted((await redis.ask_topology()).replicas)
    if not is_sentinel(url):
        return []
    info = await redis.info("replication")
    following = [value for name, value in info.items() if name.startswith("slave") and isinstance(value, dict)]
    return sorted(Address(str(each["ip"]), int(each["port"])) for each in following)


async def _losses(redis: Any, url: str, address: Address, persistence: Persistence) -> Losses | None:
    try:
        async with _client(redis, url, address) as replica:
            return await redis_keeping.of_server(replica, persistence)
    except LedgerUnavailable:
        return None


@asynccontextmanager
async def _client(redis: Any, url: str, address: Address) -> AsyncIterator[Any]:
    if isinstance(redis, ClusterClient):
        yield redis.at(address)  # which it closes itself
        return
    options: dict[str, Any] = {"socket_timeout": TIMEOUT_SECONDS, "socket_connect_timeout": TIMEOUT_SECONDS}
    # Without what is asked of a new connection: a replica would be refused.
    plain = taken_apart(url).server(str(address))
    async with redis_connections.client(plain, redis_connect_func=None, **options) as client:
        yield client
