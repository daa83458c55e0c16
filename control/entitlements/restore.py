"""Counters that Redis lost, computed exactly: what Postgres has of its region up to the shard's watermark, and the
stream's entries after it.

This does not wait for the writer, and a writer that is behind, or dead, gives no unit away.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from control import sql
from control.db import Connection, Database
from control.entitlements import restore_nodes
from control.ledger.event_batch import EventBatch
from control.ledger.streams import START, StreamId, Streams
from control.moments import moment
from control.region import Region
from quota import keys
from quota.model import MeterUsage, NodeUsage

SINCE_SECONDS = 2 * 366 * 86_400  # of a period's start: a year's period, and what publish keeps before it
ATTEMPTS = 5


@dataclass(frozen=True, slots=True)
class Counters:
    usage: tuple[MeterUsage, ...] = ()
    grant_used: dict[str, int] = field(default_factory=dict)
    watermark: StreamId = START
    """The last stream entry that they include."""
    nodes: tuple[NodeUsage, ...] = ()
    """What keys have used of quotas of their own."""


async def written_counters(db: Database, orgs: Sequence[str], shard: int, now: float) -> dict[str, Counters]:
    """What Postgres has counted in this region, of organizations of one shard, up to its watermark."""
    async with db.connection() as connection:
        return await written_counters_of(connection, db.region, orgs, shard, now)


async def written_counters_of(
    connection: Connection, region: Region, orgs: Sequence[str], shard: int, now: float
) -> dict[str, Counters]:
    """The same over a connection whose transaction reads more at the same moment."""
    row = await sql.usage.counters(
        connection,
        region=region.number,
        orgs=list(orgs),
        shard=region.stored(shard),
        since=moment(max(0, now - SINCE_SECONDS)),
    )
    watermark = START if row.stream_ms is None or row.stream_seq is None else StreamId(row.stream_ms, row.stream_seq)
    usage: defaultdict[str, list[MeterUsage]] = defaultdict(list)
    grants: defaultdict[str, dict[str, int]] = defaultdict(dict)
    for org, *counter in row.usage:
        usage[org].append(MeterUsage(*counter))
    for org, grant, used in row.grant_used:
        grants[org][grant] = used
    return {org: Counters(tuple(usage[org]), grants[org], watermark) for org in orgs}


async def exact_counters(
    db: Database,
    streams: Streams,
    org: str,
    keep_seconds: int,
    now: float,
    period_start: int | None = None,
    generation: str | None = None,
) -> Counters:
    """All that was charged to an organization that Redis does not hold, so that nothing is being added.

    `period_start`: of its current period, for quotas of keys. `generation`: of its shard; where another server answers
    than the one that has it, MemoryLost is raised. Raises StoreUnavailable, LedgerUnavailable."""
    shard = keys.shard_of(org, streams.shards)
    for _ in range(ATTEMPTS):
        async with db.snapshot() as connection:
            written = (await written_counters_of(connection, db.region, [org], shard, now))[org]
            limited = await sql.keys.limited(connection, orgs=[org])
            windows = [w for key in limited for w in restore_nodes.windows(key, now, period_start)]
            own = (await restore_nodes.written(connection, db.region, windows)).used if windows else {}
        batch = EventBatch(db.region)
        async for page in streams.tail(shard, written.watermark, generation):
            batch.add(shard, page)
        # Entries younger than that are never trimmed. Where older ones were still to be written, the writer could have
        # written and trimmed them since we asked for the counters, and then the watermark has moved.
        if written.watermark.ms >= await streams.now_ms() - keep_seconds * 1000:
            break
        if (await written_counters(db, [org], shard, now))[org].watermark == written.watermark:
            break
    return replace(with_tail(org, written, batch), nodes=restore_nodes.nodes(restore_nodes.with_tail(own, batch)))


def with_tail(org: str, written: Counters, tail: EventBatch) -> Counters:
    """What Postgres has counted, and the entries after its watermark."""
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


def _all(org: str, written: Iterable[MeterUsage], tail: EventBatch) -> Iterable[tuple[int, str, int, int, int]]:
    for u in written:
        yield u.period_start, u.meter, u.used, u.burnt, u.overage
    for (owner, period_start, meter), (used, burnt, overage) in tail.usage.items():
        if owner == org:
            yield period_start, meter, used, burnt, overage
