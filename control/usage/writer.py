"""The writer: drains the event streams into usage_event, and moves counters and watermarks in the same transaction.

Each event is written exactly once, whatever crashes: an entry is at or before its shard's committed watermark, and
written, or after it, and read again. The watermark's row is locked while a transaction adds to its shard, so a second
writer adds only what comes after the first one's last entry. Leases avoid such double work: writers share the shards.

The row also holds the shard's fence. A recovery of Redis raises it before it appends takes again under other ids. A
writer reads the fence with its position, before it reads the stream. A batch whose fence was raised since is dropped.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from itertools import groupby
from operator import attrgetter

import structlog

from common.clock import Clock, system_clock
from control import incidents, sql
from control.db import Connection, Database, StoreUnavailable
from control.ledger.event_batch import EVENT_COLUMNS, EventBatch
from control.ledger.streams import START, StreamId, Streams
from control.moments import moment
from control.settings.control_plane import WriterSettings
from control.sql.usage import Quarantined
from control.usage import late_days
from control.usage.leases import Leases
from control.usage.thresholds import Counter, Thresholds

log = structlog.get_logger()

TRIM_EVERY_SECONDS = 5.0
ANNOUNCE_EVERY_SECONDS = 5.0  # how far it is, and twice a second while it writes
SHARE_EVERY_SECONDS = 0.5
WATERMARKS_SECONDS = 0.5
DRAIN_SECONDS = 5.0
FENCED_SECONDS = 0.25  # Sentinels have told one another of a failover by then
PARSED_AT_ONCE = 500  # entries; then the API has its turn
DAY_SECONDS = 86_400
MINUTE_MS = 60_000
PARTITION_DAYS = (
    7  # an event older than that, or so far ahead, is of a clock that is wrong: it goes to usage_event_other
)


OnMoved = Callable[[Mapping[tuple[str, int, str], Sequence[int]]], None]
"""Takes what counters were moved by, by organization, period and meter: used, burnt, overage."""


class Writer:
    name = "writer"

    def __init__(
        self,
        db: Database,
        streams: Streams,
        settings: WriterSettings,
        clock: Clock = system_clock,
        thresholds: Thresholds | None = None,
        leases: Leases | None = None,
        on_moved: Sequence[OnMoved] = (),
        watermarks_seconds: float = WATERMARKS_SECONDS,
    ) -> None:
        """Without leases it works on all shards. `on_moved` are told what counters were moved by, once that is
        committed. `watermarks_seconds`: how long Postgres may take to say how far all writers are; then the lag is told
        by what it said before."""
        self._on_moved = on_moved
        self._watermarks_seconds = watermarks_seconds
        self._leases = leases
        self._thresholds = thresholds
        self._db = db
        self._streams = streams
        self._settings = settings
        self._clock = clock
        self._positions: dict[int, StreamId] = {}  # committed watermarks of its shards, as far as this writer knows
        self._fences: dict[int, int] = {}  # of the same shards, read before anything of their streams
        self._raised: dict[int, int] = {}  # the fences of all shards, as they were read last
        self._committed = dict.fromkeys(range(streams.shards), START)  # of all shards, when it looked last
        self._full: frozenset[int] = frozenset()  # shards whose last read did not reach the end
        self._ahead: asyncio.Task[tuple[EventBatch, frozenset[int]]] | None = None
        self._trimmed: dict[int, int] = {}
        self._written_since_announced = True
        self._days: set[int] = set()  # that have a partition; counted from the epoch

    async def run(self) -> None:
        """Until it is cancelled. Raises LedgerUnavailable, StoreUnavailable; whoever runs it starts it again."""
        loop = asyncio.get_running_loop()
        await self.resume()
        trim_at, share_at, announce_at = loop.time(), loop.time() + SHARE_EVERY_SECONDS, loop.time()
        while True:
            if loop.time() >= share_at or (self._leases is not None and self._leases.lost):
                await self.share()
                share_at = loop.time() + SHARE_EVERY_SECONDS
                if self._written_since_announced or loop.time() >= announce_at:
                    self._written_since_announced = False
                    await self._streams.announce_written(self._positions)
                    announce_at = loop.time() + ANNOUNCE_EVERY_SECONDS
            if loop.time() >= trim_at:
                await self.trim()
                trim_at = loop.time() + TRIM_EVERY_SECONDS
            if self._ahead is None and not await self._streams.wait(self._positions, share_at - loop.time()):
                continue
            if await self.write():
                # What comes within this time shares a transaction.
                await asyncio.sleep(self._settings.poll_ms / 1000)

    async def resume(self) -> None:
        """Continues at the committed watermarks."""
        self._forget_ahead()
        self._positions = {}
        await self._create_watermarks()
        await self.share()

    async def share(self) -> None:
        """Takes and releases shards, so that all writers have a share. Not while a transaction of this writer is under
        way."""
        if self._leases is None:
            held = frozenset(self._committed)
        else:
            if self._leases.lost:
                self._positions = {}
            held = await self._leases.round()
        if held == self._positions.keys():
            return
        self._forget_ahead()
        # Read after the leases were taken: who held them before has moved them until then.
        await self._take_up(held, self._positions)

    async def write(self) -> bool:
        """Writes one batch of the streams' entries in one transaction; returns whether these were all."""
        ahead, self._ahead = self._ahead, None
        batch, full = await (ahead or self._read(self._positions))
        if not batch.watermarks:
            return True
        behind, after = self._positions, self._positions | batch.watermarks
        self._full = full
        if full:
            # Postgres works on this batch while the next is read.
            self._ahead = asyncio.create_task(self._read(after))
        await self._ensure_days(batch)
        async with self._db.transaction() as connection:
            current = await self._is_current(connection, batch, behind)
            if current:
                moved = await insert(connection, batch)
                await late_days.forget(connection, batch.days, self._clock())
                if self._thresholds is not None:
                    await self._thresholds.notice(connection, moved)
                await _open_incidents(connection, self._clock(), batch.quarantined)
        if not current:
            self._forget_ahead()
            await self._create_watermarks()
            await self._take_up(behind)
            return False
        self._positions, self._written_since_announced = after, True
        for tell in self._on_moved:
            tell(batch.usage)
        for poison in batch.quarantined:
            log.error("quarantined a stream entry that is no usage event", **asdict(poison))
        return not full

    async def drain(self) -> None:
        """Writes what is left in its shards, as long as a stop may take, and releases them. The rest stays in the
        streams."""
        try:
            async with asyncio.timeout(DRAIN_SECONDS):
                await self.resume()
                while not await self.write():
                    pass
        finally:
            await self.release()

    async def release(self) -> None:
        """Releases its shards to the other writers."""
        self._forget_ahead()
        self._positions = {}
        if self._leases is not None:
            await self._leases.release()

    def shares(self) -> dict[str, int]:
        """For the health endpoints: the shards that this writer holds, and the writers that live."""
        return {"shards": len(self._positions), "writers": 1 if self._leases is None else self._leases.writers}

    async def trim(self) -> None:
        """Drops entries that are both written and old enough. Never beyond a committed watermark."""
        keep_from = await self._streams.now_ms() - self._settings.keep_seconds * 1000
        before = {shard: min(position.ms, keep_from) for shard, position in self._positions.items()}
        await self._streams.trim({s: ms for s, ms in before.items() if ms > self._trimmed.get(s, 0)})
        self._trimmed = before

    async def lag_seconds(self) -> float:
        """Age of the oldest entry that is not written, in any shard, whoever works on it; 0 where all are written.

        While Postgres is away, by the watermarks as they were known last."""
        try:
            async with asyncio.timeout(self._watermarks_seconds):
                await self._read_watermarks()
        except (StoreUnavailable, TimeoutError) as e:
            log.warning("the lag is told by watermarks that may be old", reason=str(e) or "no answer in time")
        after = {shard: max(at, self._positions.get(shard, START)) for shard, at in self._committed.items()}
        now_ms = await self._streams.now_ms()
        unwritten = await self._streams.read(after, dict.fromkeys(after, 1))
        oldest = min((StreamId.parse(entries[0][0]).ms for entries in unwritten.values()), default=None)
        return 0 if oldest is None else max(1, now_ms - oldest) / 1000  # one of this millisecond is not written either

    async def _is_current(self, connection: Connection, batch: EventBatch, behind: Mapping[int, StreamId]) -> bool:
        """Whether the batch, which was read behind these positions, may be written. If not, another writer was faster,
        Redis was recovered since, or Postgres went back to a time before our last commit. The rows stay locked until
        the transaction ends."""
        locked = await sql.usage.lock_watermarks(connection, shards=self._db.region.all_stored(batch.watermarks))
        current = {row.shard: (StreamId(row.stream_ms, row.stream_seq), row.fence) for row in locked}
        return current == {shard: (behind[shard], self._fences.get(shard)) for shard in batch.watermarks}

    async def _create_watermarks(self) -> None:
        async with self._db.connection() as connection:
            await sql.usage.create_watermarks(connection, shards=self._db.region.all_stored(self._committed))

    async def _take_up(self, shards: Iterable[int], positions: dict[int, StreamId] | None = None) -> None:
        """Starts these shards at their watermarks, except those in `positions`. What was read ahead must be dropped
        before, since it was read under the earlier fences."""
        watermarks = await self._read_watermarks()
        if any(self._raised.get(shard, row.fence) != row.fence for shard, row in watermarks.items()):
            # A recovery: our connections may lead to the server that was in front before, which nobody reads any more.
            await self._streams.forget_connections()
            await asyncio.sleep(FENCED_SECONDS)
        self._raised = {shard: row.fence for shard, row in watermarks.items()}
        committed, shards = self._committed | (positions or {}), sorted(shards)
        self._positions = {shard: committed[shard] for shard in shards}
        self._fences = {shard: watermarks[shard].fence for shard in shards if shard in watermarks}

    async def _read_watermarks(self) -> dict[int, sql.usage.Watermark]:
        async with self._db.connection() as connection:
            watermarks = {
                row.shard: row for row in await sql.usage.watermarks(connection, region=self._db.region.number)
            }
        self._committed = {
            shard: StreamId(watermarks[shard].stream_ms, watermarks[shard].stream_seq) if shard in watermarks else START
            for shard in self._committed
        }
        return watermarks

    async def _read(self, after: dict[int, StreamId]) -> tuple[EventBatch, frozenset[int]]:
        """Reads the next batch; returns it, and the shards that hold more."""
        # Those that were behind share a whole batch among them.
        even = max(1, self._settings.batch_entries_max // max(1, len(after)))
        large = self._settings.batch_entries_max // max(1, len(self._full))
        counts = {shard: large if shard in self._full else even for shard in after}
        entries = await self._streams.read(after, counts)
        full = frozenset(shard for shard, of_shard in entries.items() if len(of_shard) == counts[shard])
        batch = EventBatch(self._db.region)
        for shard in tuple(entries):
            shard_entries = entries.pop(shard)  # not kept beyond its turn: after an outage a batch is large
            for start in range(0, len(shard_entries), PARSED_AT_ONCE):
                batch.add(shard, shard_entries[start : start + PARSED_AT_ONCE])
                await asyncio.sleep(0)
        return batch, full

    def _forget_ahead(self) -> None:
        if self._ahead is not None:
            self._ahead.cancel()
            self._ahead = None

    async def _ensure_days(self, batch: EventBatch) -> None:
        today = int(self._clock()) // DAY_SECONDS
        wanted = {day for day in batch.days if abs(day - today) <= PARTITION_DAYS} | {today + 1}
        for day in sorted(wanted - self._days):
            async with self._db.connection() as connection:
                await sql.usage.create_day(connection, day=moment(day * DAY_SECONDS).date())
        self._days |= wanted


async def insert(connection: Connection, batch: EventBatch) -> list[Counter]:
    """Rows, counters and watermarks, in a transaction of the caller. Returns the counters to check for thresholds."""
    region, moved = batch.region, list[Counter]()
    usage, grants, own = _in_order(batch)
    if batch.rows:
        await connection.copy_records_to_table("usage_event", records=batch.rows, columns=EVENT_COLUMNS)
    if usage:
        rows = await sql.usage.add_usage(
            connection,
            region=region.number,
            orgs=[org for org, _, _ in usage],
            period_starts=[moment(start) for _, start, _ in usage],
            meters=[meter for _, _, meter in usage],
            used=[used for used, _, _ in usage.values()],
            burnt=[burnt for _, burnt, _ in usage.values()],
            overage=[overage for _, _, overage in usage.values()],
        )
        moved = [Counter(row.org, row.period_start, row.meter) for row in rows]
    if grants:
        await sql.usage.add_grant_usage(
            connection,
            region=region.number,
            orgs=[org for org, _ in grants],
            grant_ids=[grant for _, grant in grants],
            used=list(grants.values()),
        )
    if own:
        await sql.usage.add_key_usage(
            connection,
            region=region.number,
            orgs=[org for org, *_ in own],
            key_ids=[key_id for _, key_id, *_ in own],
            meters=[meter for _, _, meter, *_ in own],
            period_starts=[moment(start) for *_, start, _ in own],
            hours=[moment(hour) for *_, hour in own],
            used=list(own.values()),
        )
    if batch.quarantined:
        await sql.usage.quarantine(connection, batch.quarantined)
    if batch.keys_used:
        used = sorted(batch.keys_used.items())
        await sql.keys.mark_used(
            connection,
            key_ids=[key for key, _ in used],
            used_at=[moment(ms // MINUTE_MS * 60) for _, ms in used],
        )
    await sql.usage.move_watermarks(
        connection,
        shards=region.all_stored(batch.watermarks),
        stream_ms=[position.ms for position in batch.watermarks.values()],
        stream_seqs=[position.seq for position in batch.watermarks.values()],
    )
    return moved


def _in_order(
    batch: EventBatch,
) -> tuple[
    dict[tuple[str, int, str], list[int]], dict[tuple[str, str], int], dict[tuple[str, str, str, int, int], int]
]:
    """Its counters. Where several regions move the same ones, all lock them in one order, and none waits for another
    that waits for it."""
    counters = batch.usage, batch.grants, batch.limited_by_hour()
    if not batch.region.several:
        return counters
    usage, grants, own = counters
    return dict(sorted(usage.items())), dict(sorted(grants.items())), dict(sorted(own.items()))


async def _open_incidents(connection: Connection, now: float, quarantined: list[Quarantined]) -> None:
    # In the order of the shards, as their watermarks are locked: two writers never wait for each other.
    for shard, of_shard in groupby(sorted(quarantined, key=attrgetter("shard")), attrgetter("shard")):
        entries = list(of_shard)
        last = entries[-1]
        content = {"stream_id": f"{last.stream_ms}-{last.stream_seq}", "reason": last.reason}
        await incidents.open(connection, now, "usage_quarantined", str(shard), None, content, times=len(entries))
