"""What a backup has of Redis: the events that PostgreSQL does not have yet, and marks of what must not be done again.

Everything else there is made from PostgreSQL (docs/decisions/0011).
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, Final, cast

from redis.exceptions import RedisError

from common.redis_cluster.client import ClusterClient
from control.backup.files import line_of, values_of
from control.ledger.streams import StreamId, Streams
from quota import keys
from quota.ledger import Ledger, LedgerUnavailable
from quota.wire import IDEMPOTENCY_SECONDS, REPLAYED_SECONDS

MARKS_PATTERN: Final = "qg:{q*}:once:*"
LEDGER_PATTERNS: Final = ("qg:{q*}:org:*", "qg:{q*}:events")
FORGOTTEN_PATTERNS: Final = ("qg:{q*}:org:*", "qg:{q*}:generation", "qg:{q*}:keys")
AT_ONCE = 500

Entry = tuple[bytes, list[bytes]]
"""An entry of a stream: id, and field, value, …"""


@dataclass(frozen=True, slots=True)
class RedisPoint:
    """A moment of Redis."""

    at_ms: int
    last: Mapping[int, StreamId]
    """The last entry of each shard that has any."""


async def point_of(ledger: Ledger, streams: Streams) -> RedisPoint:
    """Now, in one transaction of Redis. On a Cluster the time is read first, that of the server which is behind: what
    was marked before it was charged before the streams are looked at. Raises LedgerUnavailable."""
    of_cluster = isinstance(ledger.redis, ClusterClient)
    before_ms = await streams.now_ms() if of_cluster else None
    try:
        async with cast("Any", ledger.redis).pipeline(transaction=not of_cluster) as pipeline:
            pipeline.time()
            for shard in range(ledger.shards):
                pipeline.execute_command("XREVRANGE", keys.events_key(shard), "+", "-", "COUNT", 1)
            (seconds, microseconds), *newest = await pipeline.execute()
    except RedisError as e:
        raise LedgerUnavailable(f"reading the end of the streams: {e}") from e
    last = {shard: StreamId.parse(entries[0][0]) for shard, entries in enumerate(newest) if entries}
    at_ms = int(seconds) * 1000 + int(microseconds) // 1000
    return RedisPoint(at_ms if before_ms is None else before_ms, last)


async def write_events(streams: Streams, written: Mapping[int, StreamId], point: RedisPoint, file: BinaryIO) -> int:
    """The entries behind `written` up to the point; how many. Raises LedgerUnavailable."""
    count = 0
    for shard, last in point.last.items():
        after = written.get(shard, StreamId(0, 0))
        if after >= last:
            continue
        async for page in streams.tail(shard, after):
            up_to = [entry for entry in page if StreamId.parse(entry[0]) <= last]
            file.writelines(line_of([shard, id_, *fields]) for id_, fields in up_to)
            count += len(up_to)
            if len(up_to) < len(page):
                break
    return count


def events_in(file: BinaryIO) -> list[tuple[int, Entry]]:
    """Up to AT_ONCE entries, each with its shard; none at the end."""
    entries: list[tuple[int, Entry]] = []
    while len(entries) < AT_ONCE and (line := file.readline()):
        shard, id_, *fields = values_of(line)
        entries.append((shard, (id_, fields)))
    return entries


async def write_marks(ledger: Ledger, point: RedisPoint, file: BinaryIO) -> int:
    """Marks that were set before the point; how many. Raises LedgerUnavailable.

    A later one is of a charge that is not in the backup: with it, a repetition would be served for nothing."""
    redis, count = cast("Any", ledger.redis), 0
    try:
        async for names in _found(redis, MARKS_PATTERN):
            async with redis.pipeline(transaction=False) as pipeline:
                for name in names:
                    pipeline.get(name)
                    pipeline.execute_command("PEXPIRETIME", name)
                replies = await pipeline.execute()
            for name, value, expires_ms in zip(names, replies[::2], replies[1::2], strict=True):
                lifetime = REPLAYED_SECONDS if b":replay:" in name else IDEMPOTENCY_SECONDS
                if value is not None and 0 < expires_ms <= point.at_ms + lifetime * 1000:
                    file.write(line_of([name, value, expires_ms]))
                    count += 1
    except RedisError as e:
        raise LedgerUnavailable(f"reading marks: {e}") from e
    return count


async def restore_marks(ledger: Ledger, file: BinaryIO) -> None:
    """Those that have expired meanwhile are dropped by Redis itself. Raises LedgerUnavailable."""
    redis = cast("Any", ledger.redis)
    try:
        while lines := [values_of(line) for line in (file.readline() for _ in range(AT_ONCE)) if line]:
            async with redis.pipeline(transaction=False) as pipeline:
                for name, value, expires_ms in lines:
                    pipeline.execute_command("SET", name, value, "NX", "PXAT", expires_ms)
                await pipeline.execute()
    except RedisError as e:
        raise LedgerUnavailable(f"restoring marks: {e}") from e


async def is_in_use(ledger: Ledger) -> bool:
    """Whether Redis holds organizations or events. Raises LedgerUnavailable."""
    try:
        for pattern in LEDGER_PATTERNS:
            async for _ in _found(cast("Any", ledger.redis), pattern):
                return True
    except RedisError as e:
        raise LedgerUnavailable(f"looking for organizations: {e}") from e
    return False


async def forget_counted(ledger: Ledger) -> None:
    """Has Redis loaded anew from PostgreSQL, as after a flush; events and marks stay. Raises LedgerUnavailable."""
    redis = cast("Any", ledger.redis)
    try:
        for pattern in FORGOTTEN_PATTERNS:
            async for names in _found(redis, pattern):
                async with redis.pipeline(transaction=False) as pipeline:
                    for name in names:
                        pipeline.unlink(name)
                    await pipeline.execute()
    except RedisError as e:
        raise LedgerUnavailable(f"forgetting what was counted: {e}") from e


async def _found(redis: Any, pattern: str) -> AsyncIterator[list[bytes]]:
    """Names, some at a time, never none."""
    servers: Sequence[Any] = await redis.servers() if isinstance(redis, ClusterClient) else (redis,)
    for server in servers:
        cursor = None
        while cursor != 0:
            cursor, names = await server.scan(cursor or 0, match=pattern, count=AT_ONCE)
            if names:
                yield names
