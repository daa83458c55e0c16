"""From Postgres to Redis: an organization's entitlement is installed where the gateways read it.

Postgres comes first, then Redis. A change draws a version in its own transaction. The publisher installs that version,
and then notes that it did. A crash in between leaves a row of `publication` whose two versions differ, and the next
round repairs it. The same row says when time alone requires a new version: when the first published period is over.
Each region has such a row for its own Redis; versions are the same in all of them.
"""

import asyncio
from contextlib import suppress
from typing import Any, Protocol, cast

import structlog
from redis.exceptions import RedisError

from common.clock import Clock, system_clock
from common.histogram import Histogram
from control import sql, tracing
from control.db import Database, StoreUnavailable
from control.entitlements import published_access, stored_state
from control.entitlements.derive import State, derive, renewal, share_of
from control.entitlements.restore import exact_counters
from control.ledger.streams import Streams
from control.moments import moment
from quota import keys
from quota.ledger import AccessBehind, Ledger, LedgerUnavailable
from quota.model import Entitlement, Status

log = structlog.get_logger()

UNKNOWN_SECONDS = 60  # an organization that nobody knows is refused from Redis for this long, then asked for again
ROUND_SECONDS = 0.5
ROUND_ORGANIZATIONS = 500
ARRIVED_MAX = 10_000  # events whose publication is timed; of more nobody knows how long they took
AT_ONCE = 8  # organizations in work at the same time; requests of the API need connections, too


class Generations(Protocol):
    """Vouches for what a shard of Redis holds."""

    async def generation(self, shard: int) -> str:
        """The shard's generation, made first where it is gone. Raises StoreUnavailable, LedgerUnavailable."""


class Publisher:
    name = "publisher"

    def __init__(
        self,
        db: Database,
        ledger: Ledger,
        streams: Streams,
        generations: Generations,
        keep_seconds: int,
        clock: Clock = system_clock,
        *,
        leased: bool = False,
    ) -> None:
        """`leased`: in one of several regions, where an organization is admitted once the region has a lease."""
        self._leased = leased
        self._db = db
        self._ledger = ledger
        self._streams = streams
        self._generations = generations
        self._keep_seconds = keep_seconds
        self._clock = clock
        self._pending = asyncio.Event()
        self._arrived: list[float] = []
        """When the events came whose changes are to be published."""
        self.enforcement = Histogram()
        """From the arrival of an event of Stripe to the publication of what it changed."""

    async def install(self, org: str, traceparent: str | None = None) -> Entitlement:
        """Installs in the region's Redis what Postgres says of the organization, with its counters, and announces it.
        `traceparent`: of the change, where that is not what is under way.

        Raises StoreUnavailable, LedgerUnavailable; after MemoryLost another try may succeed."""
        with tracing.span("publish", parents=(traceparent,), quotagate__org=org) as span:
            entitlement = await self._install(org)
            if span is not None:
                span.attributes["quotagate.version"] = entitlement.version
            return entitlement

    async def _install(self, org: str) -> Entitlement:
        now = self._clock()
        generation = await self._generations.generation(keys.shard_of(org, self._ledger.shards))
        state = await self._current(org, now)
        if state is None or state.version == 0:
            unknown = Entitlement(org, version=0, status=Status.NONE)
            await self._ledger.publish(unknown, UNKNOWN_SECONDS, generation)
            return unknown
        snapshot = await self._ledger.peek(org)
        held = snapshot.version if snapshot is not None else 0
        if held > state.version:
            state, held = await self._overtaken(org, state, held, now)
        entitlement = derive(state, now)
        if snapshot is None or snapshot.version == 0:
            await self._restore(entitlement, now, generation)
        await self._publish(share_of(entitlement, self._db.region), held, generation)
        await stored_state.mark_published(self._db, entitlement, renewal(state, entitlement, now), now)
        return entitlement

    async def run(self) -> None:
        """Until it is cancelled. Raises StoreUnavailable, LedgerUnavailable; whoever runs it starts it again."""
        while True:
            self._pending.clear()
            if not await self.round():
                with suppress(TimeoutError):
                    async with asyncio.timeout(ROUND_SECONDS):
                        await self._pending.wait()

    def wake(self, arrived_at: float | None = None) -> None:
        """Publishes at once what was just committed. `arrived_at`: when the event came that it follows from."""
        if arrived_at is not None and len(self._arrived) < ARRIVED_MAX:
            self._arrived.append(arrived_at)
        self._pending.set()

    async def round(self) -> int:
        """Installs what waits to be published and what is due for renewal; returns how many organizations."""
        arrived, all_published = len(self._arrived), True
        region = self._db.region.number
        async with self._db.connection() as connection:
            pending = await sql.entitlements.pending_publications(
                connection, region=region, limit_rows=ROUND_ORGANIZATIONS
            )
            traces = {each.org: each.traceparent for each in pending}
            due = await sql.entitlements.due_publications(
                connection, region=region, at=moment(self._clock()), limit_rows=ROUND_ORGANIZATIONS
            )
        orgs = list(traces | dict.fromkeys(org for org in due if org not in traces))
        for start in range(0, len(orgs), AT_ONCE):
            some = orgs[start : start + AT_ONCE]
            installed = (self.install(org, traces.get(org)) for org in some)
            results = await asyncio.gather(*installed, return_exceptions=True)
            for org, result in zip(orgs[start:], results, strict=False):
                if isinstance(result, StoreUnavailable | LedgerUnavailable):
                    raise result
                if isinstance(result, BaseException):
                    log.error("an entitlement could not be published", org=org, exc_info=result)
                    all_published = False
        if all_published and len(pending) < ROUND_ORGANIZATIONS:
            self._count_enforced(arrived)
        return len(orgs)

    def _count_enforced(self, arrived: int) -> None:
        """What the first so many events changed is in Redis, whoever published it."""
        now = self._clock()
        for arrived_at in self._arrived[:arrived]:
            self.enforcement.add(now - arrived_at)
        del self._arrived[:arrived]

    async def _current(self, org: str, now: float) -> State | None:
        async with self._db.connection() as connection:
            region = self._db.region.number
            state = await stored_state.load_state(connection, org, now)
            # What `state` says is when region 0 renews; others ask the database for their own time.
            if state is not None and (region or (state.renew_at is not None and state.renew_at <= now)):
                await sql.entitlements.bump_due(connection, region=region, org=org, at=moment(now))
                state = await stored_state.load_state(connection, org, now)
        return state

    async def _overtaken(self, org: str, state: State, held: int, now: float) -> tuple[State, int]:
        """Redis holds a newer version than was read here: what Postgres says now, and from which version on Redis lacks
        changes.

        Another publisher may just have installed it. But Postgres may also have gone back to an older state, that of a
        backup or of a replica. Then nothing that it says would be newer, and no revocation would come into force."""
        state = await self._current(org, now) or state
        if held <= state.version:
            return state, held
        log.warning("postgres has gone back: versions go on above those that redis holds", org=org, version=held)
        async with self._db.transaction() as connection:
            await sql.entitlements.overtake(connection, org=org, version=held)
        return await self._current(org, now) or state, 0

    async def _publish(self, entitlement: Entitlement, held: int, generation: str) -> None:
        """Installs it in a Redis that holds that version, with what has changed since then of who may use it."""
        access = await published_access.load(self._db, entitlement.org, held or None)
        try:
            await self._ledger.publish(entitlement, generation=generation, access=access, leased=self._leased)
        except AccessBehind:
            # Redis has gone back to an older version since it was looked at.
            access = await published_access.load(self._db, entitlement.org, None)
            await self._ledger.publish(entitlement, generation=generation, access=access, leased=self._leased)
        if self._db.region.several:  # whoever dropped them did so in its own region
            await self._ledger.unindex(access.dropped)

    async def _restore(self, entitlement: Entitlement, now: float, generation: str) -> None:
        org = entitlement.org
        period_start = entitlement.periods[0].start if entitlement.periods else None
        counters = await exact_counters(self._db, self._streams, org, self._keep_seconds, now, period_start, generation)
        try:
            # The mark of an unknown organization is about to expire, and must not take the counters with it.
            await cast("Any", self._ledger.redis.persist(keys.org_key(org, self._ledger.shards)))
        except RedisError as e:
            raise LedgerUnavailable(f"persist: {e}") from e
        await self._ledger.seed(org, counters.usage, counters.grant_used, generation, counters.nodes)
