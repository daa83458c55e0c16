"""Drift is found and repaired while traffic flows.

One script reads an organization's counters, and the events that are not in Postgres yet. Together with what Postgres
has counted up to the watermark, these events must add up to the counters; neither traffic nor the writer comes in
between. A drift counts only if a second look finds the same. The repair is added to the counter, not set, under
compare-and-set.
"""

from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass

import structlog

from common.clock import Clock, system_clock
from control import journal, sql
from control.db import Database
from control.entitlements import restore_nodes
from control.entitlements.restore import Counters, with_tail, written_counters, written_counters_of
from control.entitlements.restore_nodes import Window
from control.journal import Author, Change
from control.ledger.event_batch import EventBatch
from control.ledger.streams import StreamId, Streams
from control.reconcile.drift import Drift, Evidence, drifts, node_drifts
from control.reconcile.key_windows import CurrentWindows, current_windows
from quota import keys
from quota.calls.snapshots import Tail, decode_snapshot
from quota.ledger import ANOTHER, Ledger, MemoryLost

log = structlog.get_logger()

ORGANIZATIONS_PAGE = 2_000
ORGANIZATIONS_AT_ONCE = 100  # in one script: a millisecond or two during which Redis serves nobody else
EVENTS_MAX = 5_000
ATTEMPTS = 5
PAUSE_SECONDS = 0.2


class WriterBehind(Exception):
    """More events wait for the writer than may be read in one script, so drift cannot be computed now."""


@dataclass(frozen=True, slots=True)
class Mismatch:
    """One organization whose counters differ from its events."""

    org: str
    drifts: tuple[Drift, ...]
    repairs: int
    """How often it was repaired before."""
    generation: str


class Scan:
    def __init__(
        self,
        db: Database,
        ledger: Ledger,
        streams: Streams,
        keep_seconds: int,
        clock: Clock = system_clock,
        events_max: int = EVENTS_MAX,
    ) -> None:
        """`events_max`: so many that are not written yet may be read in one script."""
        self._events_max = events_max
        self._db = db
        self._ledger = ledger
        self._streams = streams
        self._keep_seconds = keep_seconds
        self._clock = clock

    async def organizations(self) -> AsyncIterator[list[str]]:
        """All organizations that were ever published in this region, in pages."""
        after = ""
        while True:
            async with self._db.connection() as connection:
                page = await sql.reconcile.organizations(
                    connection, region=self._db.region.number, after=after, limit_rows=ORGANIZATIONS_PAGE
                )
            if not page:
                return
            yield page
            after = page[-1]

    async def check(self, orgs: Iterable[str], *, rebuilding: Mapping[int, str] | None = None) -> list[Mismatch]:
        """The organizations whose counters differ from their events. Organizations that are not in Redis have no
        counters. `rebuilding`: Redis went back to an older state, and is put together where the shards have these
        generations.

        Raises WriterBehind, StoreUnavailable, LedgerUnavailable, MemoryLost."""
        by_shard: defaultdict[int, list[str]] = defaultdict(list)
        for org in orgs:
            by_shard[keys.shard_of(org, self._ledger.shards)].append(org)
        mismatches = []
        for shard, members in by_shard.items():
            for at in range(0, len(members), ORGANIZATIONS_AT_ONCE):
                suspects = await self._look(shard, members[at : at + ORGANIZATIONS_AT_ONCE], rebuilding)
                if suspects:
                    again = {f.org: f for f in await self._look(shard, [f.org for f in suspects], rebuilding)}
                    mismatches += [f for f in suspects if f.org in again and _same(f, again[f.org])]
        return mismatches

    async def repair(self, mismatch: Mismatch, author: Author) -> bool:
        """Adds what is missing to the counters, and journals it; False where another process was faster.

        Raises StoreUnavailable, LedgerUnavailable."""
        moves = {drift.field: -drift.units for drift in mismatch.drifts}
        if not await self._ledger.rebase(mismatch.org, mismatch.generation, mismatch.repairs, moves):
            return False
        log.warning("drift repaired", org=mismatch.org, moves=moves, cause=mismatch.drifts[0].cause)
        change = Change(
            "usage.rebased",
            mismatch.org,
            {drift.field: drift.counted for drift in mismatch.drifts},
            {drift.field: drift.events for drift in mismatch.drifts} | {"cause": mismatch.drifts[0].cause},
        )
        async with self._db.transaction() as connection:
            await journal.record(connection, author, self._clock(), [change])
        return True

    async def _look(self, shard: int, orgs: Sequence[str], rebuilding: Mapping[int, str] | None) -> list[Mismatch]:
        own = await current_windows(self._db, self._ledger, self._streams, shard, orgs)
        written, own_written, tail, quarantined = await self._read(shard, orgs, own)
        if rebuilding is not None and tail.generation != rebuilding[shard]:
            raise MemoryLost(f"looking for drift: {ANOTHER}")
        if not tail.hashes:
            return []
        assert tail.events is not None  # noqa: S101 - _read waits for them
        batch = EventBatch(self._db.region)
        batch.add(shard, [(f"0-{i}".encode(), entry) for i, entry in enumerate(tail.events)])
        watermark = next(iter(written.values())).watermark
        rolled_back = rebuilding is not None or StreamId.parse(tail.last_id.encode()) < watermark
        evidence = Evidence(rolled_back, quarantined or bool(batch.quarantined))
        own_exact = restore_nodes.with_tail(own_written, batch)
        mismatches = []
        for org, fields in tail.hashes.items():
            snapshot = decode_snapshot(0, fields)
            text = {field.decode(): value for field, value in fields.items()}
            differing = drifts(org, text, snapshot, with_tail(org, written[org], batch), evidence)
            exact = {window: units for window, units in own_exact.items() if window.org == org}
            differing += node_drifts(org, snapshot, exact, own.changed, evidence)
            if differing:
                mismatches.append(Mismatch(org, tuple(differing), int(fields.get(b"repairs", 0)), tail.generation))
        return mismatches

    async def _read(
        self, shard: int, orgs: Sequence[str], own: CurrentWindows
    ) -> tuple[dict[str, Counters], dict[Window, int], Tail, bool]:
        for _ in range(ATTEMPTS):
            now = self._clock()
            if own.windows:
                async with self._db.snapshot() as connection:
                    written = await written_counters_of(connection, self._db.region, orgs, shard, now)
                    keys_used = await restore_nodes.written(connection, self._db.region, own.windows)
            else:
                written, keys_used = await written_counters(self._db, orgs, shard, now), restore_nodes.NOTHING
            watermark = next(iter(written.values())).watermark
            tail = await self._ledger.tail(shard, orgs, str(watermark), self._events_max)
            if tail.events is None:
                continue
            # Entries younger than that are never trimmed. Where older ones were still to be written, the writer could
            # have written and trimmed them since we asked for the counters, and then the watermark has moved.
            quiet = watermark.ms < await self._streams.now_ms() - self._keep_seconds * 1000
            if quiet and (await written_counters(self._db, orgs[:1], shard, now))[orgs[0]].watermark != watermark:
                continue
            async with self._db.connection() as connection:
                quarantined = await sql.reconcile.quarantined(connection, shard=self._db.region.stored(shard))
            exact = {w: used for w, used in keys_used.used.items() if w not in keys_used.inexact}
            return written, exact, tail, bool(quarantined)
        raise WriterBehind(f"shard {shard}: more than {self._events_max} events are not written yet")


def _same(one: Mismatch, other: Mismatch) -> bool:
    def of(mismatch: Mismatch) -> dict[str, int]:
        return {drift.field: drift.units for drift in mismatch.drifts}

    return of(one) == of(other) and one.repairs == other.repairs and one.generation == other.generation
