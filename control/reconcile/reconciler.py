"""Reconciliation that never ends: all organizations, one round after the other, while traffic flows."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import structlog

from common.clock import Clock, system_clock
from control import incidents
from control.db import Database
from control.journal import Author
from control.reconcile.drift import USED, Drift
from control.reconcile.scan import Found, Scan, WriterBehind
from control.settings import Reconcile as ReconcileSettings

log = structlog.get_logger()

PAUSE_SECONDS = 0.05  # between two pages: the stores are there for the gateways first
AUTHOR = Author("reconcile", "reconcile")


@dataclass(slots=True)
class Round:
    """What one look at all organizations found, or the one under way so far."""

    organizations: int = 0
    drifted: int = 0
    repaired: int = 0
    """Organizations; somebody else may have repaired the others first."""
    units_above: int = 0
    """Of `used`: what Redis counted and no event says."""
    units_below: int = 0
    """Of `used`: what events say and Redis does not count, which it could give away again."""
    worst_ratio: float = 0.0
    """Of one counter's drift to its events."""
    behind: int = 0
    """Organizations that were left out, since the writer was behind."""

    def add(self, found: Found) -> None:
        self.drifted += 1
        for drift in found.drifts:
            self.worst_ratio = max(self.worst_ratio, float(drift.ratio))
            if drift.kind == USED:
                self.units_above += max(0, drift.units)
                self.units_below += max(0, -drift.units)


@dataclass(slots=True)
class Told:
    """For health and metrics."""

    last: Round = field(default_factory=Round)
    rounds: int = 0
    ended_at: float = 0.0
    """Seconds since the epoch."""
    drifted: int = 0
    """Organizations, in all rounds."""
    repaired: int = 0


class Reconciler:
    name = "reconciler"

    def __init__(self, db: Database, scan: Scan, settings: ReconcileSettings, clock: Clock = system_clock) -> None:
        self._db = db
        self._scan = scan
        self._settings = settings
        self._clock = clock
        self.told = Told()

    async def run(self) -> None:
        """Until it is cancelled. Raises StoreUnavailable, LedgerUnavailable; whoever runs it starts it again."""
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            await self.round()
            await asyncio.sleep(max(PAUSE_SECONDS, began + self._settings.every_seconds - loop.time()))

    async def round(self) -> Round:
        """Looks at every organization once, and repairs what differs."""
        done = Round()
        async for page in self._scan.organizations():
            try:
                found = await self._scan.check(page)
            except WriterBehind as e:
                log.info("reconciliation leaves organizations out", reason=str(e), organizations=len(page))
                done.behind += len(page)
                continue
            done.organizations += len(page)
            for one in found:
                done.add(one)
                await self._alert(one)
                if self._settings.repair and await self._scan.repair(one, AUTHOR):
                    done.repaired += 1
            await asyncio.sleep(PAUSE_SECONDS)
        told = self.told
        told.last, told.rounds, told.ended_at = done, told.rounds + 1, self._clock()
        told.drifted += done.drifted
        told.repaired += done.repaired
        return done

    async def _alert(self, found: Found) -> None:
        worst = max(found.drifts, key=lambda drift: drift.ratio)
        if worst.ratio * 100 > self._settings.alert_percent:
            told = line(worst)
            log.error("drift above the alert", **told)
            async with self._db.transaction() as connection:
                await incidents.open(connection, self._clock(), "drift", found.org, found.org, told)


def line(drift: Drift) -> dict[str, object]:
    """A drift as logs, incidents and the command line tell it."""
    return {
        "org": drift.org,
        "counter": drift.field,
        "counted": drift.counted,
        "events": drift.events,
        "units": drift.units,
        "cause": drift.cause.value,
    }


async def reconcile(scan: Scan, org: str | None, author: Author | None) -> AsyncIterator[tuple[Found, bool]]:
    """Every organization that differs, and whether it was repaired; without an author nothing is changed."""
    pages = [[org]] if org is not None else [page async for page in scan.organizations()]
    for page in pages:
        for found in await scan.check(page):
            yield found, author is not None and await scan.repair(found, author)
