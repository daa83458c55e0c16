"""The event streams, for their readers. Every command names one stream, so that it works on a Cluster, too."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, NamedTuple, cast

from redis.asyncio import Redis
from redis.asyncio.cluster import RedisCluster
from redis.exceptions import RedisError

from quota import generation, keys
from quota.ledger import LedgerUnavailable

Entries = Sequence[tuple[bytes, Sequence[bytes]]]
"""Stream entries as they come: id, and field, value, …"""

PAGE = 1000
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
        self.shards = shards

    async def wait(self, after: Mapping[int, StreamId], seconds: float) -> bool:
        """Whether a shard has an entry after `after`. It waits for the first one, at most `seconds`, and at most a
        second.

        One command for all of them, so that a quiet system costs nothing."""
        if not after:
            await asyncio.sleep(seconds)
            return False
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
                replies = await pipeline.execute()
        except RedisError as e:
            raise LedgerUnavailable(f"reading events: {e}") from e
        return {shard: entries for shard, entries in zip(after, replies, strict=True) if entries}

    async def tail(self, shard: int, after: StreamId) -> AsyncIterator[Entries]:
        """All entries of one shard after `after`, in pages."""
        while True:
            page = (await self.read({shard: after}, {shard: PAGE})).get(shard, [])
            yield page
            if len(page) < PAGE:
                return
            after = StreamId.parse(page[-1][0])

    async def now_ms(self) -> int:
        """Redis TIME, the clock of the entries' ids."""
        try:
            seconds, microseconds = await self._redis.time()
        except RedisError as e:
            raise LedgerUnavailable(f"time: {e}") from e
        return int(seconds) * 1000 + int(microseconds) // 1000

    async def announce_written(self, after: Mapping[int, StreamId]) -> None:
        """Tells the gateways up to which time everything is in Postgres, for shards that are written up to `after`.

        If entries wait, it is the time of the first one. After a failover, ids may be ahead of the clock by as much as
        clocks differ."""
        if not after:
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
                # Without one, or while it is made, the stream has lost what nobody has written.
                if held is not None and not held.decode().startswith(generation.REBUILDING):
                    first = oldest.get(keys.events_key(shard))
                    until_ms = now_ms if first is None else min(now_ms, first.ms) - SKEW_MS
                    written[str(shard)] = f"{generation.epoch_of(held)} {until_ms}"
            if not written:
                return
            await self._redis.hset(keys.WRITTEN, mapping=written)
        except RedisError as e:
            raise LedgerUnavailable(f"telling what is written: {e}") from e

    async def trim(self, before_ms: Mapping[int, int]) -> int:
        """Drops each shard's entries older than that; returns how many they were."""
        try:
            async with self._redis.pipeline(transaction=False) as pipeline:
                for shard, ms in before_ms.items():
                    pipeline.xtrim(keys.events_key(shard), minid=f"{ms}-0", approximate=False)
                return sum(await pipeline.execute())
        except RedisError as e:
            raise LedgerUnavailable(f"trimming events: {e}") from e

    async def held(self) -> int:
        """Entries in Redis, written or not."""
        try:
            async with self._redis.pipeline(transaction=False) as pipeline:
                for shard in range(self.shards):
                    pipeline.xlen(keys.events_key(shard))
                return sum(await pipeline.execute())
        except RedisError as e:
            raise LedgerUnavailable(f"counting events: {e}") from e


def _first(entries: Any) -> StreamId:
    """The id of the first of a stream's entries, as XREAD has them: RESP3 nests them once more."""
    while not isinstance(entries, bytes):
        entries = entries[0]
    return StreamId.parse(entries)
