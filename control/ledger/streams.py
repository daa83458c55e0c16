"""The event streams, for their readers. Every command names one stream, so that it works on a Cluster, too."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from time import monotonic
from typing import Any, NamedTuple, cast

from redis.asyncio import Redis
from redis.asyncio.cluster import RedisCluster
from redis.exceptions import RedisError

from common.redis_cluster.client import ClusterClient
from control.ledger.nodes import Node, forget_idle, nodes_of
from quota import generation, keys
from quota.ledger import ANOTHER, LedgerUnavailable, MemoryLost

Entries = Sequence[tuple[bytes, Sequence[bytes]]]
"""Stream entries as they come: id, and field, value, …"""

PAGE = 1000
POLL_SECONDS = 0.1  # on a Cluster, where no command waits for streams of several slots
SKEW_MS = 2000


class StreamId(NamedTuple):
    ms: int
    seq: int

    @classmethod
    def parse(cls, text: bytes) -> "StreamId":
        ms, _, seq = text.partition(b"-")
        return cls(int(ms), int(seq))

    def __str__(self) -> str:
        return f"{self.ms}-{self.seq}"


START = StreamId(0, 0)


class Streams:
    def __init__(self, redis: Redis | RedisCluster, shards: int, blocking: Redis | RedisCluster | None = None) -> None:
        """`redis` is a client of our own: its XRANGE replies stay lists, since dicts would take a fifth of our time.
        `blocking` is one whose replies may be a second late, for `wait`; None: so is `redis`."""
        self._redis = cast("Any", redis)
        self._redis.set_response_callback("XRANGE", lambda reply, **_: reply)
        self._blocking = cast("Any", blocking or redis)
        self._nodes = nodes_of(redis, shards)
        self._spread = isinstance(redis, ClusterClient)
        self.shards = shards

    async def wait(self, after: Mapping[int, StreamId], seconds: float) -> bool:
        """Whether a shard has an entry after `after`. It waits for the first one, at most `seconds`, and at most a
        second.

        One command for all of them, so that a quiet system costs nothing; on a Cluster they are looked at again and
        again."""
        if not after:
            await asyncio.sleep(seconds)
            return False
        if self._spread:
            return await self._look_until(after, min(seconds, 1.0))
        streams = {keys.events_key(shard): str(last) for shard, last in after.items()}
        block_ms = max(1, int(min(seconds, 1.0) * 1000))  # 0 would be for ever
        try:
            return bool(await self._blocking.xread(streams, count=1, block=block_ms))
        except RedisError as e:
            raise LedgerUnavailable(f"waiting for events: {e}") from e

    async def read(self, after: Mapping[int, StreamId], counts: Mapping[int, int]) -> dict[int, Entries]:
        """Up to `counts` entries of each shard, those after `after`; shards without any are left out."""
        try:
            async with self._redis.pipeline(transaction=False) as pipeline:
                for shard, last in after.items():
                    pipeline.xrange(keys.events_key(shard), f"({last}", "+", counts[shard])
                replies = await self._replies(pipeline)
        except RedisError as e:
            raise LedgerUnavailable(f"reading events: {e}") from e
        read = zip(after, replies, strict=True)
        return {shard: entries for shard, entries in read if entries and not isinstance(entries, Exception)}

    async def tail(self, shard: int, after: StreamId, generation: str | None = None) -> AsyncIterator[Entries]:
        """All entries of one shard after `after`, in pages; with `generation`, only from where the shard has that one.
        After a failover, a server that was put aside may still answer, and it has other entries.

        Raises LedgerUnavailable, MemoryLost."""
        while True:
            try:
                async with self._redis.pipeline(transaction=False) as pipeline:
                    pipeline.get(keys.generation_key(shard))
                    pipeline.xrange(keys.events_key(shard), f"({after}", "+", PAGE)
                    held, page = await pipeline.execute()
            except RedisError as e:
                raise LedgerUnavailable(f"reading events: {e}") from e
            if generation is not None and (held is None or held.decode() != generation):
                raise MemoryLost(f"reading events: {ANOTHER}")
            yield page
            if len(page) < PAGE:
                return
            after = StreamId.parse(page[-1][0])

    async def now_ms(self) -> int:
        """Redis TIME, the clock of the entries' ids; of the servers of a Cluster that which is behind the others."""
        times, failed = list[int](), None
        for node in await self._nodes.now():
            try:
                seconds, microseconds = await node.redis.time()
            except RedisError as e:
                failed = e
            else:
                times.append(int(seconds) * 1000 + int(microseconds) // 1000)
        if not times:
            raise LedgerUnavailable(f"time: {failed}") from failed
        return min(times)

    async def announce_written(self, after: Mapping[int, StreamId]) -> None:
        """Tells the gateways up to which time everything is in Postgres, for shards that are written up to `after`.

        If entries wait, it is the time of the first one. After a failover, ids may be ahead of the clock by as much as
        clocks differ."""
        if not after:
            return
        if self._spread:
            await self._announce_at_each(after)
            return
        streams = {keys.events_key(shard): str(last) for shard, last in after.items()}
        try:
            async with self._redis.pipeline(transaction=True) as pipeline:
                pipeline.time()
                pipeline.xread(streams, count=1)
                pipeline.mget([keys.generation_key(shard) for shard in after])
                (seconds, microseconds), waiting, generations = await pipeline.execute()
            now_ms = int(seconds) * 1000 + int(microseconds) // 1000
            unwritten = waiting.items() if isinstance(waiting, dict) else waiting
            oldest = {name.decode(): _first(entries) for name, entries in unwritten}
            written = {}
            for shard, held in zip(after, generations, strict=True):
                if (text := _written(held, now_ms, oldest.get(keys.events_key(shard)))) is not None:
                    written[str(shard)] = text
            if not written:
                return
            await self._redis.hset(keys.WRITTEN, mapping=written)
        except RedisError as e:
            raise LedgerUnavailable(f"telling what is written: {e}") from e

    async def _replies(self, pipeline: Any) -> list[Any]:
        """On a Cluster some of them may be errors."""
        replies: list[Any] = await pipeline.execute(raise_on_error=not self._spread)
        _require_any(replies)
        return replies

    async def _look_until(self, after: Mapping[int, StreamId], seconds: float) -> bool:
        deadline, one = monotonic() + seconds, dict.fromkeys(after, 1)
        while not await self.read(after, one):
            if monotonic() >= deadline:
                return False
            await asyncio.sleep(POLL_SECONDS)
        return True

    async def _announce_at_each(self, after: Mapping[int, StreamId]) -> None:
        """The same on a Cluster: each server has its own clock, and keeps what is said of its shards."""
        results: list[RedisError | None] = []
        for node in await self._nodes.now():
            shards = [shard for shard in node.shards if shard in after]
            try:
                await self._announce_at(node, {shard: after[shard] for shard in shards})
            except RedisError as e:
                results.append(e)
            else:
                results.append(None)
        try:
            _require_any(results)
        except RedisError as e:
            raise LedgerUnavailable(f"telling what is written: {e}") from e

    async def _announce_at(self, node: Node, after: Mapping[int, StreamId]) -> None:
        async with node.redis.pipeline(transaction=False) as pipeline:
            pipeline.time()  # first: an entry that comes later has a later id
            for shard, last in after.items():
                # In this order: of a stream that is lost in between, the generation is lost, too.
                pipeline.xrange(keys.events_key(shard), f"({last}", "+", 1)
                pipeline.get(keys.generation_key(shard))
            (seconds, microseconds), *replies = await pipeline.execute()
        now_ms = int(seconds) * 1000 + int(microseconds) // 1000
        async with node.redis.pipeline(transaction=False) as pipeline:
            for shard, waiting, held in zip(after, replies[::2], replies[1::2], strict=True):
                first = StreamId.parse(waiting[0][0]) if waiting else None
                if (text := _written(held, now_ms, first)) is not None:
                    pipeline.set(keys.written_key(shard), text)
            await pipeline.execute()

    async def trim(self, before_ms: Mapping[int, int]) -> int:
        """Drops each shard's entries older than that; returns how many they were."""
        try:
            async with self._redis.pipeline(transaction=False) as pipeline:
                for shard, ms in before_ms.items():
                    pipeline.xtrim(keys.events_key(shard), minid=f"{ms}-0", approximate=False)
                replies = await self._replies(pipeline)
        except RedisError as e:
            raise LedgerUnavailable(f"trimming events: {e}") from e
        return sum(reply for reply in replies if not isinstance(reply, Exception))

    async def forget_connections(self) -> None:
        """Closes idle connections: they may lead to the server that was in front before."""
        await forget_idle(self._redis)
        await forget_idle(self._blocking)

    async def held(self) -> int:
        """Entries in Redis, written or not."""
        try:
            async with self._redis.pipeline(transaction=False) as pipeline:
                for shard in range(self.shards):
                    pipeline.xlen(keys.events_key(shard))
                return sum(await pipeline.execute())
        except RedisError as e:
            raise LedgerUnavailable(f"counting events: {e}") from e


def _require_any(replies: Sequence[Any]) -> None:
    """Raises the first error where there is nothing else: a server of a Cluster that is away holds up none of the
    others."""
    failed = [reply for reply in replies if isinstance(reply, Exception)]
    if failed and len(failed) == len(replies):
        raise failed[0]


def _written(held: bytes | None, now_ms: int, first: StreamId | None) -> str | None:
    """What gateways are told of a shard with this generation, whose first unwritten entry is `first`."""
    # Without one, or while it is made, the stream has lost what nobody has written.
    if held is None or held.decode().startswith(generation.REBUILDING):
        return None
    until_ms = now_ms if first is None else min(now_ms, first.ms) - SKEW_MS
    return f"{generation.epoch_of(held)} {until_ms}"


def _first(entries: Any) -> StreamId:
    """The id of the first of a stream's entries, as XREAD has them: RESP3 nests them once more."""
    while not isinstance(entries, bytes):
        entries = entries[0]
    return StreamId.parse(entries)
