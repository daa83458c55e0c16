"""What routes with `degraded: allow` forward while Redis is away: without a take, journaled before they are forwarded.

Within a budget, for a time, and only for organizations that this worker has lately seen admitted on the route: an
outage gives nothing to those that were refused before it. A principal must have been looked at in the version of its
organization that was admitted last: of one that was revoked since, or is met first now, nobody knows how it stands.
What is journaled is charged when Redis is back (`journal_replay.py`).
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

import structlog

from gateway.decision.charge import Charge
from gateway.http.deadlines import DeadlineSweep
from gateway.ledger.ledger_link import LedgerLink
from gateway.outage.journal_file import Journal, JournalEntry, sync
from gateway.outage.journal_replay import Replay
from gateway.routing.destinations import MeteredRoute
from gateway.settings.intervals import DEFAULT_INTERVALS, Intervals
from gateway.settings.outages import DegradedSettings
from identity.claims import Claims

log = structlog.get_logger()

SWEEP_SECONDS = 60.0
SEEN_MAX = 65_536  # organizations remembered for each route; about 100 bytes each
CLOSE_SECONDS = 2.0
NEVER_SEEN = (float("-inf"), -1)


class Degraded:
    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        deadlines: DeadlineSweep,
        link: LedgerLink,
        settings: DegradedSettings,
        journal: Journal,
        replay: Replay,
        routes: Callable[[], Iterable[MeteredRoute]],
        intervals: Intervals = DEFAULT_INTERVALS,
    ) -> None:
        self._loop = loop
        self._deadlines = deadlines
        self._link = link
        self._settings = settings
        self._journal = journal
        self._replay = replay
        self._routes = routes
        self._look_seconds = intervals.journal_look_seconds
        self._waiting: list[Charge] = []
        self._outage_since: float | None = None  # loop time
        self._units = 0  # journaled in this outage
        self._units_by_org: Counter[str] = Counter()
        self._handed_over: list[Path] = []  # of this outage
        self._sweep_at = 0.0
        self._keeper: asyncio.Task[None] | None = None
        self.fault: str | None = None
        """Why the journal cannot be written, while it cannot."""

    @property
    def open(self) -> int:
        """Entries that the ledger does not have yet."""
        return self._journal.entries + self._replay.open

    @property
    def replayed(self) -> int:
        return self._replay.replayed

    @property
    def state(self) -> dict[str, str | int]:
        """For `/-/ready`; clients can read it, so reasons are in the log."""
        return {"state": "unwritable" if self.fault else "writable", "open": self.open}

    def start(self) -> None:
        try:
            self._journal.prepare()
        except OSError as e:
            self._on_fault(e)
        self._keeper = self._loop.create_task(self._keep(), name="journal")

    async def close(self) -> None:
        """Replays what there is, if that is quick; the rest waits on disk for another worker."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        if self._link.accepts:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._catch_up(), CLOSE_SECONDS)
        await self._sync()
        self._journal.hand_over()
        self._replay.close()

    # Deciding

    def admit(self, charge: Charge) -> bool:
        """Whether the request is let through: then it is journaled in this turn of the loop, and told so."""
        if charge.idempotency_name is not None:
            return False  # whether its idempotency key was charged before is not known; it will be sent again
        if not self._spend(charge.claims, charge.destination.route, charge.price.charges):
            return False
        if not self._waiting:
            self._loop.call_soon(self._flush)
        self._waiting.append(charge)
        return True

    def _spend(self, claims: Claims, route: MeteredRoute, charges: dict[str, int]) -> bool:
        now, limits, org = self._deadlines.now, self._settings, claims.org
        seen_at, version = NEVER_SEEN if route.admitted_at is None else route.admitted_at.get(org, NEVER_SEEN)
        if now - seen_at > limits.seen_seconds or version != claims.version:
            return False
        if self._outage_since is None:
            self._outage_since = now
        units = sum(charges.values())
        if (
            now - self._outage_since > limits.max_seconds
            or self._units + units > limits.budget.units_total
            or self._units_by_org[org] + units > limits.budget.units_per_org
        ):
            return False
        self._units += units
        self._units_by_org[org] += units
        return True

    def forget_all(self) -> None:
        """What was announced may have been missed: all must be admitted again first."""
        for route in self._routes():
            if route.admitted_at:
                route.admitted_at.clear()

    def forget(self, org: str) -> None:
        """The organization was refused, or its entitlement has changed: it must be admitted again first."""
        for route in self._routes():
            if route.admitted_at:
                route.admitted_at.pop(org, None)

    def _flush(self) -> None:
        waiting, self._waiting = self._waiting, []
        waiting = [charge for charge in waiting if not charge.over]
        if not waiting:
            return
        at_ms = int(time.time() * 1000)
        try:
            self._journal.append([_entry(charge, at_ms).line() for charge in waiting])
        except OSError as e:
            self._on_fault(e)
            for charge in waiting:
                charge.on_not_journaled()
            return
        if self.fault is not None:
            self.fault = None
            log.info("journal is written again")
        for charge in waiting:
            charge.on_journaled()

    def _on_fault(self, error: OSError) -> None:
        if self.fault is None:
            log.error("journal not written: routes deny while redis is away", reason=str(error))
        self.fault = error.strerror or str(error)

    def void(self, org: str, request_id: bytes) -> None:
        """A journaled request got nothing."""
        self._replay.void(org, request_id.decode())

    # Afterwards

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(self._look_seconds)
            try:
                await self._sync()
                if self._link.accepts:
                    await self._catch_up()
                if self._deadlines.now >= self._sweep_at:
                    self._sweep()
            except Exception:  # what is in the journal must not wait for a restart
                log.exception("journal not kept")

    async def _sync(self) -> None:
        if (descriptor := self._journal.unsynced()) is None:
            return
        try:
            await self._loop.run_in_executor(None, sync, descriptor, self._journal.directory)
        except OSError as e:
            self._on_fault(e)

    async def _catch_up(self) -> None:
        if (path := self._journal.hand_over()) is not None:
            self._handed_over.append(path)
        await self._replay.step()
        self._handed_over = [path for path in self._handed_over if path.exists()]
        if self._outage_since is not None and not self._handed_over and not self._journal.entries:
            # The ledger has all of this outage; the next one has a budget of its own.
            self._outage_since = None
            self._units = 0
            self._units_by_org.clear()

    def _sweep(self) -> None:
        self._sweep_at = self._deadlines.now + SWEEP_SECONDS
        keep_from = self._deadlines.now - self._settings.seen_seconds
        for route in self._routes():
            if seen := route.admitted_at:
                for org in [org for org, (at, _) in seen.items() if at < keep_from]:
                    del seen[org]
                if len(seen) > SEEN_MAX:
                    for org in sorted(seen, key=seen.__getitem__)[: len(seen) - SEEN_MAX]:
                        del seen[org]


def _entry(charge: Charge, at_ms: int) -> JournalEntry:
    return JournalEntry(charge.request_id.decode(), charge.claims.path, at_ms, tuple(charge.price.charges.items()))
