"""A region's agent: it asks the home for what the region needs before that is used up, and returns what it does not
need.

It decides nothing about a request. While it is away, or the home is, the region's ledger goes on with what it holds
until the lease ends.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from time import monotonic
from typing import Final, Protocol

import structlog

from control.regions import region
from control.regions.home import Answer
from control.regions.need import Pace
from control.regions.terms import Account, Late, Lease, Report
from quota import generation, keys
from quota.calls.leases import Holding
from quota.ledger import Ledger, MemoryLost

log = structlog.get_logger()

ATTEMPTS: Final = 3
"""Terms may change, and the ledger may lower, between a report and its answer."""

Refused = Mapping[str, int]
"""By meter, the cost of a request that was refused for want of units."""


class AnsweringHome(Protocol):
    async def answer(self, region: str, reports: Mapping[str, Report]) -> dict[str, Answer]:
        """As control/regions/home.py. Raises StoreUnavailable."""


class Publishing(Protocol):
    """Installs in the region what the home says of an organization, without a lease."""

    async def install(self, org: str) -> object:
        """Raises StoreUnavailable, LedgerUnavailable."""


@dataclass(slots=True)
class Known:
    """What the agent remembers of one organization."""

    paces: dict[Account, Pace] = field(default_factory=dict)
    lease: Lease | None = None
    left: int = 0
    """Units of the account of which the least was left."""


@dataclass(slots=True)
class Totals:
    """Since the agent began."""

    looks: int = 0
    asked: int = 0
    leased: int = 0
    lowered: int = 0
    short: int = 0
    """Answers with less than was wanted."""
    set_back: int = 0
    """Leases that were ended since the region's clock was set back."""
    forgotten: int = 0
    """Organizations whose ledger had lost what it held, though Redis had not lost its memory."""


@dataclass(frozen=True, slots=True)
class _Asking:
    """One organization in one round: what its ledger holds, and in which generation that was read."""

    org: str
    holding: Holding
    held_in: str
    refused: Refused


class Agent:
    def __init__(
        self,
        name: str,
        home: AnsweringHome,
        ledger: Ledger,
        publishing: Publishing,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """`name`: of the region. `clock` only goes forward."""
        self.name = name
        self._home = home
        self._ledger = ledger
        self._publishing = publishing
        self._clock = clock
        self._known: dict[str, Known] = {}
        self.totals = Totals()

    def known(self, org: str) -> Known | None:
        """After a look that led to a lease."""
        return self._known.get(org)

    def forget(self, org: str) -> None:
        """Of one that is not used any more."""
        self._known.pop(org, None)

    def __len__(self) -> int:
        return len(self._known)

    async def look(self, wants: Mapping[str, Refused]) -> set[str]:
        """Returns, asks, and installs the answers, for several organizations at once; those that have a lease now.

        Raises StoreUnavailable, LedgerUnavailable."""
        self.totals.looks += len(wants)
        leased, waiting = set[str](), dict(wants)
        for _ in range(ATTEMPTS):
            asking = await self._read(waiting)
            if not asking:
                break
            done = await self._ask(asking)
            leased |= {org for org, is_leased in done.items() if is_leased}
            waiting = {each.org: each.refused for each in asking if each.org not in done}
            if not waiting:
                break
        return leased

    async def _read(self, wants: Mapping[str, Refused]) -> list[_Asking]:
        """What the ledger holds of them, without those that nobody knows."""
        shards = {keys.shard_of(org, self._ledger.shards) for org in wants}
        held_in = {shard: await self._ledger.generation(shard) for shard in shards}
        holdings = await asyncio.gather(*(self._holding(org) for org in wants))
        asking = []
        for (org, refused), holding in zip(wants.items(), holdings, strict=True):
            generation_held = held_in[keys.shard_of(org, self._ledger.shards)]
            if holding is None:
                continue
            if generation_held is None or generation_held.startswith(generation.REBUILDING):
                raise MemoryLost("Redis has lost its memory, and is not vouched for yet")
            if holding.asked_s > holding.snapshot.now_us // 1_000_000:
                # The clock was set back. The lease would be in force again when it comes to that time once more.
                await self._ledger.lapse([org])
                self.totals.set_back += 1
                log.error("the region's clock was set back: its lease is ended", org=org)
            asking.append(_Asking(org, holding, generation_held, refused))
        return asking

    async def _holding(self, org: str) -> Holding | None:
        holding = await self._ledger.holding(org)
        if holding is None:
            await self._publishing.install(org)
            holding = await self._ledger.holding(org)
        return holding

    async def _ask(self, asking: Iterable[_Asking]) -> dict[str, bool]:
        """By organization, whether it has a lease now; without those that are to be asked for once more."""
        reported = await asyncio.gather(*(self._report(each) for each in asking))
        reports = {each.org: report for each, report in reported if report is not None}
        self.totals.asked += len(reports)
        answers = await self._home.answer(self.name, reports) if reports else {}
        installed = await asyncio.gather(
            *(self._install(each, answers[each.org]) for each, _ in reported if each.org in answers)
        )
        done = {each.org: False for each, _ in reported if each.org not in answers}
        return done | {org: is_leased for org, is_leased in installed if is_leased is not None}

    async def _report(self, asking: _Asking) -> tuple[_Asking, Report | None]:
        """What the home is told, once what is not needed is given up. No report where the ledger lost the organization
        meanwhile."""
        org, holding, refused = asking.org, asking.holding, asking.refused
        known = self._known.setdefault(org, Known())
        last = known.lease
        if last is not None and (last.number, last.returns) != (holding.number, holding.returns):
            last = None  # another agent has asked since
        known.paces = region.paces_of(known.paces, holding, self._clock())
        least = region.least_of(holding, refused)
        needs = region.needs_of(known.paces, holding, last, least)
        lower = {str(account): n.lower for account, n in needs.items() if n.lower is not None}
        if lower:
            await self._ledger.lower(org, lower, asking.held_in)
            self.totals.lowered += 1
            after = await self._ledger.holding(org)
            if after is None:
                return asking, None
            holding = after
        wanted = {account: n.wanted for account, n in needs.items() if n.wanted is not None}
        first = region.before_overage(holding, refused)
        epoch = generation.epoch_of(asking.held_in)
        return asking, region.report_of(holding, epoch, wanted, least, first)

    async def _install(self, asking: _Asking, answer: Answer) -> tuple[str, bool | None]:
        """Whether the organization has a lease now; None: it must be asked for once more."""
        org, lease = asking.org, answer.lease
        if isinstance(lease, Late):
            if lease.epoch == generation.epoch_of(asking.held_in) and lease.returns > asking.holding.returns:
                # Its hash was lost alone. What it holds is nothing, which the home believes above this number only.
                await self._ledger.lower(org, {}, asking.held_in, above=lease.returns)
                self.totals.forgotten += 1
                log.warning("the region had forgotten what it has returned", org=org, returns=lease.returns)
            return org, None
        if answer.entitlement.version != asking.holding.snapshot.version:
            await self._publishing.install(org)
        if lease is None:
            return org, False
        if not await self._ledger.lease(org, region.terms_of(answer.entitlement, lease), asking.held_in):
            return org, None
        known = self._known.setdefault(org, Known())
        known.lease, known.left = lease, region.least_left(lease, known.paces)
        self.totals.leased += 1
        self.totals.short += bool(lease.short)
        return org, True

    async def announce(self, orgs: Iterable[str]) -> None:
        """Tells gateways that wait for these organizations to go on with what there is. Raises LedgerUnavailable."""
        for org in orgs:
            await self._ledger.announce(org)
