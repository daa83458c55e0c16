"""The background service of a region: which organizations its agent looks at, and when.

An organization is in use while the writer finds events of it, or gateways ask for it. Then its lease is renewed, units
come before they are used up, and what is not needed goes back. One that is not used any more is looked at a few times
more, and then its lease ends; the next request asks for a new one. What it holds is looked at as soon as another region
waits for it.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from time import monotonic
from typing import Final

import structlog

from common.histogram import Histogram
from control import incidents, sql
from control.db import Connection, Database
from control.moments import moment
from control.regions.agent import Agent
from control.regions.home import Home

log = structlog.get_logger()

LEASE_SECONDS: Final = 30
"""So long a region that is cut off goes on, and so late at most it learns of a suspension."""
TURN_SECONDS: Final = 0.25
LOOK_SECONDS: Final = 1.0
"""An organization is looked at no more often, unless a request waits for it."""
RENEW_SECONDS: Final = LEASE_SECONDS / 3
SHORT_SECONDS: Final = 0.5
"""While another region may return what is waited for, the home is asked so often."""
SHORT_LOOKS: Final = 10
IDLE_LOOKS: Final = 5
"""After it was used last, at twice the time each: 31 seconds in all."""
AT_ONCE: Final = 50
"""Organizations of one transaction with the home."""
TURN_ORGANIZATIONS: Final = 100
"""Looked at in one turn, those first that were not for the longest time; the others have the next one. That is 400 a
second, at about a millisecond of this process each."""
WAITED_FOR_MAX: Final = 500
HEAR_SECONDS: Final = 5.0
SILENT_SECONDS: Final = 60.0
SET_BACK_SECONDS: Final = 600.0
"""An incident of a clock that was not set back again for so long is closed."""
AWAY: Final = "region_away"
SET_BACK: Final = "region_clock_set_back"


@dataclass(slots=True)
class _Watched:
    """An organization in use. Times are those of a clock that only goes forward."""

    used_at: float
    looked_at: float = float("-inf")
    units: int = 0
    """Used since it was looked at."""
    idle_looks: int = 0
    short_looks: int = 0
    """Looks that are left to get what a request was refused."""
    refused: dict[str, int] = field(default_factory=dict)

    def is_due(self, now: float, left: int) -> bool:
        """`left`: units that it had when it was looked at."""
        since = now - self.looked_at
        if self.short_looks:
            return since >= SHORT_SECONDS
        if self.used_at >= self.looked_at:
            return since >= (LOOK_SECONDS if 4 * self.units >= left else RENEW_SECONDS)
        return since >= LOOK_SECONDS * (1 << self.idle_looks)


class RegionService:
    name = "region"

    def __init__(self, db: Database, home: Home, agent: Agent, time: Callable[[], float] = monotonic) -> None:
        """`time`: seconds that only go forward."""
        self._db = db
        self._home = home
        self.agent = agent
        self._time = time
        self._watched: dict[str, _Watched] = {}
        self._asked: dict[str, None] = {}
        """Organizations that requests wait for, until somebody's turn."""
        self._turns = asyncio.Lock()
        self._waited_for: frozenset[str] = frozenset()
        """Organizations that another region waits for. It takes two looks to return what this one holds: the first
        learns of it, where nobody has looked lately."""
        self._heard_at = float("-inf")
        self._told_set_back = 0
        self.asked = Histogram()
        """How long requests waited for a lease, or for units."""
        self.behind = 0
        """Organizations that were due in the last turn and had to wait for the next."""

    def __len__(self) -> int:
        return len(self._watched)

    def moved(self, usage: Mapping[tuple[str, int, str], Sequence[int]]) -> None:
        """Counters that moved, as the writer tells it: by organization, period and meter, what was used first."""
        now = self._time()
        for (org, _, _), (units, *_) in usage.items():
            watched = self._watched.get(org)
            if watched is None:
                watched = self._watched[org] = _Watched(now)
            watched.used_at, watched.idle_looks = now, 0
            watched.units += abs(units)

    async def ask(self, org: str, refused: Mapping[str, int]) -> None:
        """A request waits: for a lease, or for as many units of these meters as it was refused. Whatever comes of it,
        gateways are told to go on.

        Raises StoreUnavailable, LedgerUnavailable."""
        began = self._time()
        watched = self._watched.setdefault(org, _Watched(began))
        watched.used_at, watched.idle_looks = began, 0
        for meter, units in refused.items():
            watched.refused[meter] = max(units, watched.refused.get(meter, 0))
            watched.short_looks = SHORT_LOOKS
        self._asked[org] = None
        async with self._turns:
            if org in self._asked:  # nobody had a turn since
                await self._look(list(islice(self._asked, AT_ONCE)))
        self.asked.add(self._time() - began)

    async def run(self) -> None:
        """Until it is cancelled. Raises StoreUnavailable, LedgerUnavailable; whoever runs it starts it again."""
        while True:
            began = self._time()
            await self.turn()
            await asyncio.sleep(max(0.0, TURN_SECONDS - (self._time() - began)))

    async def turn(self) -> None:
        """Looks at what is due. Raises StoreUnavailable, LedgerUnavailable."""
        await self._hear()
        now = self._time()
        due = {org: None for org, watched in self._watched.items() if watched.is_due(now, self._left(org))}
        self._waited_for = frozenset(await self._home.waited_for(self.agent.name, WAITED_FOR_MAX))
        for org in self._waited_for:
            watched = self._watched.setdefault(org, _Watched(float("-inf"), idle_looks=IDLE_LOOKS))
            if now - watched.looked_at >= LOOK_SECONDS:
                due[org] = None
        self.behind = max(0, len(due) - TURN_ORGANIZATIONS)
        orgs = islice(sorted(due, key=lambda org: self._watched[org].looked_at), TURN_ORGANIZATIONS)
        while batch := list(islice(orgs, AT_ONCE)):
            async with self._turns:
                await self._look([org for org in batch if org in self._watched])

    async def _look(self, orgs: Iterable[str]) -> None:
        """At organizations that are watched. Requests that wait for them are told to go on, whatever comes of it."""
        wants, waiting = dict[str, dict[str, int]](), list[str]()
        for org in orgs:
            watched = self._watched[org]
            wants[org] = dict(watched.refused)
            watched.looked_at, watched.units = self._time(), 0
            if org in self._asked or watched.refused:
                waiting.append(org)
                self._asked.pop(org, None)
        try:
            await self.agent.look(wants)
        finally:
            await self.agent.announce(waiting)
        for org in wants:
            self._after(org)

    def _after(self, org: str) -> None:
        """What was looked at is watched on, or not."""
        watched, known = self._watched[org], self.agent.known(org)
        short = known is not None and known.lease is not None and bool(known.lease.short)
        watched.short_looks = max(0, watched.short_looks - 1) if short else 0
        if not watched.short_looks:
            watched.refused.clear()
        if watched.used_at < watched.looked_at:
            watched.idle_looks += 1
        wanted = watched.short_looks or org in self._asked or org in self._waited_for
        if watched.idle_looks > IDLE_LOOKS and not wanted:
            del self._watched[org]
            self.agent.forget(org)

    def _left(self, org: str) -> int:
        known = self.agent.known(org)
        return 0 if known is None else known.left

    async def _tell_set_back(self, connection: Connection, at: float) -> None:
        """Of leases that were ended since the clock of this region's Redis went back."""
        ended, self._told_set_back = self.agent.totals.set_back - self._told_set_back, self.agent.totals.set_back
        region, before = self._db.region, moment(at - SET_BACK_SECONDS)
        if ended:
            content = {"region": region.name, "leases": ended}
            await incidents.open(connection, at, SET_BACK, region.incident_key("redis"), None, content)
        prefix = region.incident_prefix
        await sql.incidents.close_unseen(connection, kind=SET_BACK, prefix=prefix, before=before, at=moment(at))

    async def _hear(self) -> None:
        """Says that this region is here, and tells an admin of those that are not."""
        now = self._time()
        if now - self._heard_at < HEAR_SECONDS:
            return
        self._heard_at = now
        async with self._db.transaction() as connection:
            await sql.regions.hear(connection, region=self.agent.name)
            await sql.incidents.take_turns(connection, kind=AWAY)
            silent = {row.region: row.seconds for row in await sql.regions.silent(connection, seconds=SILENT_SECONDS)}
            shown = set(await sql.incidents.open_keys(connection, kind=AWAY))
            at = await sql.regions.now(connection)
            await self._tell_set_back(connection, at)
            for key in sorted(silent.keys() - shown):
                log.error("a region is away", region=key, seconds=round(silent[key]))
                await incidents.open(connection, at, AWAY, key, None, {"region": key, "seconds": round(silent[key])})
            for key in sorted(shown - silent.keys()):
                log.info("a region is back", region=key)
                await incidents.close(connection, at, AWAY, key)
