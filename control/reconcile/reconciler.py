"""Continuous reconciliation: round after round it checks all organizations, while traffic flows."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field

import structlog

from common.clock import Clock, system_clock
from control import incidents, sql
from control.db import Database
from control.journal import Author
from control.moments import moment
from control.reconcile.drift import USED, Drift
from control.reconcile.scan import Mismatch, Scan, WriterBehind
from control.settings.control_plane import Reconcile as ReconcileSettings

log = structlog.get_logger()

PAUSE_SECONDS = 0.05  # between two pages: the stores are there for the gateways first
DRIFT = "drift"
AUTHOR = Author("reconcile", "reconcile")


@dataclass(slots=True)
class ReconcileRound:
    """The result of one look at all organizations; of the one under way, so far."""

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

    def add(self, mismatch: Mismatch) -> None:
        """Drifts that are no fault are repaired and counted nowhere."""
        faults = [drift for drift in mismatch.drifts if drift.is_fault]
        self.drifted += bool(faults)
        for drift in faults:
            self.worst_ratio = max(self.worst_ratio, float(drift.ratio))
            if drift.kind == USED:
                self.units_above += max(0, drift.units)
                self.units_below += max(0, -drift.units)


@dataclass(slots=True)
class ReconcileTotals:
    """For health and metrics."""

    last: ReconcileRound = field(default_factory=ReconcileRound)
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
        self.totals = ReconcileTotals()

    async def run(self) -> None:
        """Until it is cancelled. Raises StoreUnavailable, LedgerUnavailable; whoever runs it starts it again."""
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            await self.round()
            await asyncio.sleep(max(PAUSE_SECONDS, began + self._settings.every_seconds - loop.time()))

    async def round(self) -> ReconcileRound:
        """Looks at every organization once, and repairs what differs."""
        done = ReconcileRound()
        async with self._db.connection() as connection:
            alerted = set(await sql.incidents.open_keys(connection, kind=DRIFT))
        async for page in self._scan.organizations():
            began = self._clock()
            try:
                mismatches = await self._scan.check(page)
            except WriterBehind as e:
                log.info("reconciliation leaves organizations out", reason=str(e), organizations=len(page))
                done.behind += len(page)
                continue
            done.organizations += len(page)
            for mismatch in mismatches:
                done.add(mismatch)
                await self._alert(mismatch)
                if self._settings.repair and await self._scan.repair(mismatch, AUTHOR):
                    done.repaired += any(drift.is_fault for drift in mismatch.drifts)
            keys = {self._db.region.incident_key(org) for org in page}
            drifted = {self._db.region.incident_key(mismatch.org) for mismatch in mismatches}
            if clean := alerted & keys - drifted:
                await self._close(clean, began)
            await asyncio.sleep(PAUSE_SECONDS)
        totals = self.totals
        totals.last, totals.rounds, totals.ended_at = done, totals.rounds + 1, self._clock()
        totals.drifted += done.drifted
        totals.repaired += done.repaired
        return done

    async def _close(self, keys: Iterable[str], began: float) -> None:
        """Of organizations whose counters were what the events say. `began`: then they had not been looked at yet, so
        an incident that another process has opened since stays."""
        async with self._db.connection() as connection:
            now = self._clock()
            closed = await sql.incidents.close_seen_before(
                connection, kind=DRIFT, keys=sorted(keys), before=moment(began), at=moment(now)
            )
        log.info("drift is over", organizations=closed)

    async def _alert(self, mismatch: Mismatch) -> None:
        worst = max((drift for drift in mismatch.drifts if drift.is_fault), key=lambda drift: drift.ratio, default=None)
        if worst is not None and worst.ratio * 100 > self._settings.alert_percent:
            alert = line(worst)
            log.error("drift above the alert", **alert)
            async with self._db.transaction() as connection:
                key = self._db.region.incident_key(mismatch.org)
                await incidents.open(connection, self._clock(), DRIFT, key, mismatch.org, alert)


def line(drift: Drift) -> dict[str, object]:
    """A drift as logs, incidents and the command line show it."""
    return {
        "org": drift.org,
        "counter": drift.field,
        "counted": drift.counted,
        "events": drift.events,
        "units": drift.units,
        "cause": drift.cause.value,
    }


async def reconcile(scan: Scan, org: str | None, author: Author | None) -> AsyncIterator[tuple[Mismatch, bool]]:
    """Each organization that differs, and whether it was repaired. Without an author nothing is changed."""
    pages = [[org]] if org is not None else [page async for page in scan.organizations()]
    for page in pages:
        for mismatch in await scan.check(page):
            yield mismatch, author is not None and await scan.repair(mismatch, author)
