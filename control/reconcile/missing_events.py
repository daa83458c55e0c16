"""Events that are in neither the stream nor Postgres, and are appended again."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from functools import partial

import structlog

from control import sql
from control.at_once import at_once
from control.db import Database
from control.ledger.streams import START, StreamId, Streams
from control.moments import moment
from control.reconcile.gateway_reports import GatewayReports
from quota import keys
from quota.calls.publication import counter_fields
from quota.events import EventMalformed, UsageEvent, parse
from quota.ledger import Ledger
from quota.model import MeterUsage

log = structlog.get_logger()

AT_ONCE = 4  # shards: requests wait for all of them
RECENT_SECONDS = 60  # clocks differ, and failovers change them
APPENDED_AT_ONCE = 500
ASKED_AT_ONCE = 5_000


class MissingEvents:
    def __init__(self, db: Database, ledger: Ledger, streams: Streams) -> None:
        self._db = db
        self._ledger = ledger
        self._streams = streams

    async def put_back(self, reports: GatewayReports, generations: Mapping[int, str | None]) -> int:
        """Appends the takes among these that are neither in the stream nor in Postgres; how many those were.
        `generations`: of the shards that may lack some, in which that is so. In another one nothing is appended.

        Raises StoreUnavailable, LedgerUnavailable."""
        by_shard: defaultdict[int, dict[str, UsageEvent]] = defaultdict(dict)
        for text, event in reports.takes.items():
            if (shard := keys.shard_of(event.org, self._ledger.shards)) in generations:
                by_shard[shard][text] = event
        if reports.since_ms is None:
            return 0
        since_ms = max(0, reports.since_ms - 1000 * RECENT_SECONDS)

        async def put_back(shard: int, events: Mapping[str, UsageEvent]) -> int:
            looked_for = await self._not_in_stream(shard, events, since_ms, generations[shard])
            missing = await self._not_written(looked_for, since_ms)
            await self.append(missing, generations, counted=False)
            return len(missing)

        return sum(await at_once(AT_ONCE, (partial(put_back, *each) for each in by_shard.items())))

    async def append(
        self, events: Mapping[str, UsageEvent], generations: Mapping[int, str | None], *, counted: bool
    ) -> None:
        """`counted`: the counters have them."""
        by_org: defaultdict[str, list[str]] = defaultdict(list)
        for text, event in events.items():
            by_org[event.org].append(text)
        for org, texts in by_org.items():
            generation = generations.get(keys.shard_of(org, self._ledger.shards))
            for at in range(0, len(texts), APPENDED_AT_ONCE):
                part = texts[at : at + APPENDED_AT_ONCE]
                added = {} if counted else moves(events[text] for text in part)
                await self._ledger.append(org, part, added, generation)

    async def strays(
        self, watermarks: Mapping[int, StreamId], void: frozenset[str], generations: Mapping[int, str | None]
    ) -> dict[str, UsageEvent]:
        """Of a server that was put aside, and has these generations: events that nobody has written, though Postgres
        has later ones. The writer would pass them by.

        Not those of the requests `void`: no gateway had the reply, so nothing was delivered for it.

        Raises StoreUnavailable, LedgerUnavailable."""

        async def strays(shard: int, watermark: StreamId) -> dict[str, UsageEvent]:
            events, first_ms = await self._up_to(shard, watermark, generations[shard])
            delivered = {text: event for text, event in events.items() if event.request_id not in void}
            return await self._not_written(delivered, max(0, first_ms - RECENT_SECONDS * 1000))

        found = await at_once(AT_ONCE, (partial(strays, *each) for each in watermarks.items()))
        return {text: event for of_shard in found for text, event in of_shard.items()}

    async def _up_to(
        self, shard: int, watermark: StreamId, generation: str | None
    ) -> tuple[dict[str, UsageEvent], int]:
        """The stream's events up to the watermark, and the time of the first one."""
        events: dict[str, UsageEvent] = {}
        first_ms: int | None = None
        async for page in self._streams.tail(shard, START, generation):
            for id_, fields in page:
                at = StreamId.parse(id_)
                if at > watermark:
                    break
                first_ms = at.ms if first_ms is None else first_ms
                text = fields[-1].decode("ascii", "replace")
                try:
                    events[text] = parse(text)
                except EventMalformed:
                    log.error("an old server holds what is no usage event", shard=shard, entry=text[:200])
        return events, first_ms or 0

    async def _not_in_stream(
        self, shard: int, events: Mapping[str, UsageEvent], since_ms: int, generation: str | None
    ) -> dict[str, UsageEvent]:
        missing = dict(events)
        async for page in self._streams.tail(shard, StreamId(since_ms, 0), generation):
            for _, fields in page:
                missing.pop(fields[-1].decode("ascii", "replace"), None)
        return missing

    async def _not_written(self, events: Mapping[str, UsageEvent], since_ms: int) -> dict[str, UsageEvent]:
        missing, texts = dict(events), list(events)
        for at in range(0, len(texts), ASKED_AT_ONCE):
            part = {
                (e.kind.value, e.request_id): text for text in texts[at : at + ASKED_AT_ONCE] if (e := events[text])
            }
            async with self._db.connection() as connection:
                written = await sql.reconcile.recorded(
                    connection,
                    region=self._db.region.number,
                    orgs=list({events[text].org for text in part.values()}),
                    request_ids=list({request_id for _, request_id in part}),
                    since=moment(since_ms // 1000),
                )
                for row in written:
                    if (text := part.get((row.kind, row.request_id))) is not None:
                        missing.pop(text, None)
        return missing


def moves(events: Iterable[UsageEvent]) -> dict[str, int]:
    """What events add to their organization's counters, by field. Pure."""
    moves: defaultdict[str, int] = defaultdict(int)
    for event in events:
        for meter, units, overage, burnt in event.charges:
            usage = MeterUsage(event.period_start, meter, units, sum(n for _, n in burnt), overage)
            flat = counter_fields([usage], dict(burnt))
            for field, n in zip(flat[::2], flat[1::2], strict=True):
                moves[str(field)] += int(n)
    return dict(moves)
