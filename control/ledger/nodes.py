"""The servers that hold the shards: one, or each primary of a Cluster.

What is asked of a server itself, and not of whoever holds a key, is asked through these."""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import structlog
from redis.exceptions import RedisError

from common.redis_closing import close_idle
from common.redis_cluster.client import ClusterClient
from common.redis_cluster.topology import Address, slot_of
from quota import keys
from quota.ledger import ANOTHER, LedgerUnavailable, MemoryLost

log = structlog.get_logger()

COUNT_SECONDS = 0.2  # a server that does not answer for so long is not waited for


@dataclass(frozen=True, slots=True)
class Node:
    redis: Any
    """A client of redis-py whose connections lead to this server alone."""
    groups: tuple[tuple[int, ...], ...]
    """The shards that it holds now. Those of one group may be in one command: they lie in one slot, or there are no
    slots."""

    @property
    def shards(self) -> list[int]:
        return [shard for group in self.groups for shard in group]

    def only(self, shards: Collection[int]) -> "Node":
        """The same server with some of its shards."""
        groups = (tuple(shard for shard in group if shard in shards) for group in self.groups)
        return Node(self.redis, tuple(group for group in groups if group))


class Nodes(Protocol):
    async def now(self) -> Sequence[Node]:
        """As the shards are spread now; each shard is in one of them. Raises LedgerUnavailable."""

    async def publish(self, channel: str, message: str, generations: Mapping[int, str]) -> int:
        """To how many clients it goes. Raises redis-py's errors; MemoryLost where one server holds all shards, and is
        another one than that where they have these generations."""

    async def listeners(self, channel: str) -> int:
        """How many clients listen. Raises redis-py's errors."""

    async def channels(self, begin: str) -> set[str]:
        """Those that begin so, and have somebody who listens. Raises redis-py's errors."""

    async def forget_connections(self) -> None:
        """Closes idle connections: they may lead to the server that was in front before."""


class OneServer:
    """One address holds all shards."""

    def __init__(self, redis: Any, shards: int) -> None:
        self._node = Node(redis, groups_of(redis, shards))

    async def now(self) -> Sequence[Node]:
        return (self._node,)

    async def publish(self, channel: str, message: str, generations: Mapping[int, str]) -> int:
        shard, generation = next(iter(generations.items()))
        async with self._node.redis.pipeline(transaction=False) as pipeline:  # one connection, so it is one server
            pipeline.get(keys.generation_key(shard))
            pipeline.publish(channel, message)
            held, count = await pipeline.execute()
        if held is None or held.decode() != generation:
            raise MemoryLost(f"asking the gateways: {ANOTHER}")
        return int(count)

    async def listeners(self, channel: str) -> int:
        [(_, count)] = await self._node.redis.pubsub_numsub(channel)
        return int(count)

    async def channels(self, begin: str) -> set[str]:
        return set(map(_text, await self._node.redis.pubsub_channels(f"{begin}*")))

    async def forget_connections(self) -> None:
        await forget_idle(self._node.redis)


class ClusterNodes:
    """The primaries of a Cluster, asked each time who holds what."""

    def __init__(self, client: ClusterClient, shards: int) -> None:
        self._client = client
        self._slots = {shard: slot_of(keys.generation_key(shard)) for shard in range(shards)}

    async def now(self) -> Sequence[Node]:
        try:
            topology = await self._client.ask_topology()
        except RedisError as e:
            raise LedgerUnavailable(f"who holds the shards: {e}") from e
        held: defaultdict[Address | None, list[int]] = defaultdict(list)
        for shard, slot in self._slots.items():
            held[topology.owner(slot)].append(shard)
        return [
            Node(self._client.at(address), tuple((shard,) for shard in held[address]))
            for address in topology.primaries
            if address in held
        ]

    async def publish(self, channel: str, message: str, generations: Mapping[int, str]) -> int:
        """Each server counts its own clients alone: https://valkey.io/commands/publish/. They are counted first: who
        subscribes later may not be waited for."""
        count = await self.listeners(channel)
        await self._client.publish(channel, message)
        return count

    async def forget_connections(self) -> None:
        await forget_idle(self._client)

    async def listeners(self, channel: str) -> int:
        return sum(int(count) for [(_, count)] in await self._of_each(lambda redis: redis.pubsub_numsub(channel)))

    async def channels(self, begin: str) -> set[str]:
        found = await self._of_each(lambda redis: redis.pubsub_channels(f"{begin}*"))
        return {_text(name) for of_server in found for name in of_server}

    async def _of_each(self, ask: Callable[[Any], Awaitable[Any]]) -> list[Any]:
        """A server that is away, or hangs, has no clients that could hear."""
        topology = await self._client.ask_topology()
        addresses = list(dict.fromkeys([*topology.primaries, *topology.replicas]))
        asked = (asyncio.wait_for(ask(self._client.at(each)), COUNT_SECONDS) for each in addresses)
        answers = list[Any]()
        for address, answer in zip(addresses, await asyncio.gather(*asked, return_exceptions=True), strict=True):
            if isinstance(answer, RedisError | TimeoutError):
                log.info("a server of the cluster does not tell who listens", server=str(address), reason=str(answer))
            elif isinstance(answer, BaseException):
                raise answer
            else:
                answers.append(answer)
        return answers


def groups_of(redis: Any, shards: int) -> tuple[tuple[int, ...], ...]:
    """Shards of which one command may name several, since they lie in one slot, or there are no slots."""
    return tuple((shard,) for shard in range(shards)) if isinstance(redis, ClusterClient) else (tuple(range(shards)),)


def nodes_of(redis: Any, shards: int) -> Nodes:
    """Of a client as `common.redis_connections` makes it."""
    return ClusterNodes(redis, shards) if isinstance(redis, ClusterClient) else OneServer(redis, shards)


def _text(name: Any) -> str:
    return name.decode() if isinstance(name, bytes) else str(name)


async def forget_idle(redis: Any) -> None:
    """Closes the idle connections of a client, and has that of a Cluster ask anew who holds what."""
    try:
        if isinstance(redis, ClusterClient):
            redis.forget_topology()
            await redis.disconnect_idle()
        else:
            await close_idle(redis.connection_pool)
    except (RedisError, OSError) as e:
        log.info("a connection to the server before could not be ended", reason=str(e))
