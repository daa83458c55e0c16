"""Counters that Redis lost, computed exactly: Postgres up to the shard's watermark, and the stream's entries after it.

Nothing waits for the writer, and a writer that is behind, or dead, gives no unit away.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from control.db import Database, statements
from control.moments import moment
from control.usage.batch import Batch
from control.usage.streams import START, StreamId, Streams
from quota import keys
from quota.ledger import PREVIOUS_PERIODS_SECONDS
from quota.model import MeterUsage

SINCE_SECONDS = 2 * PREVIOUS_PERIODS_SECONDS  # what publish would drop again need not be sought
ATTEMPTS = 5


@dataclass(frozen=True, slots=True)
class Counters:
    usage: tuple[MeterUsage, ...] = ()
    grant_used: dict[str, int] = field(default_factory=dict)
    watermark: StreamId = START
    """The last stream entry that they include."""


async def written_counters(db: Database, org: str, shard: int, now: float) -> Counters:
    """What Postgres has counted, up to the watermark."""
    async with db.connection() as connection:
        row = await statements("usage").counters(
            connection, org=org, shard=shard, since=moment(max(0, now - SINCE_SECONDS))
        )
    watermark = START if row["stream_ms"] is None else StreamId(row["stream_ms"], row["stream_seq"])
    return Counters(tuple(MeterUsage(*counter) for counter in row["usage"]), row["grant_used"], watermark)


async def exact_counters(db: Database, streams: Streams, org: str, keep_seconds: int, now: float) -> Counters:
    """All that was charged to an organization that Redis does not hold, so that nothing is being added.

    Raises StoreUnavailable, LedgerUnavailable."""
    shard = keys.shard_of(org, streams.shards)
    for _ in range(ATTEMPTS):
        written = await written_counters(db, org, shard, now)
        batch = Batch()
        async for page in streams.tail(shard, written.watermark):
            batch.add(shard, page)
        # Entries younger than that are never trimmed. Where older ones were still to be written, the writer could have
        # written and trimmed them since we asked for the counters, and then the watermark has moved.
        if written.watermark.ms >= await streams.now_ms() - keep_seconds * 1000:
            break
        if (await written_counters(db, org, shard, now)).watermark == written.watermark:
            break
    return _sum(org, written, batch)


def _sum(org: str, written: Counters, tail: Batch) -> Counters:
    usage: dict[tuple[int, str], list[int]] = {}
    for period_start, meter, *units in _all(org, written.usage, tail):
        counter = usage.setdefault((period_start, meter), [0, 0, 0])
        for i, n in enumerate(units):
            counter[i] += n
    grants = dict(written.grant_used)
    for (owner, grant), n in tail.grants.items():
        if owner == org:
            grants[grant] = grants.get(grant, 0) + n
    return Counters(
        tuple(MeterUsage(start, meter, *units) for (start, meter), units in usage.items()), grants, written.watermark
    )


def _all(org: str, written: Iterable[MeterUsage], tail: Batch) -> Iterable[tuple[int, str, int, int, int]]:
    for u in written:
        yield u.period_start, u.meter, u.used, u.burnt, u.overage
    for (owner, period_start, meter), (used, burnt, overage) in tail.usage.items():
        if owner == org:
            yield period_start, meter, used, burnt, overage
