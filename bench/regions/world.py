"""Regions, a home and a network between them, in simulated time: what the protocol of leases is checked in.

The home's book, what a region needs, and what is said between them are the real ones (control/regions/). A region's
ledger is `ReferenceLedger`, which tests/control/regions/test_region_scripts.py compares with the scripts on a real
Valkey.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field, replace
from heapq import heappop, heappush
from itertools import count
from random import Random

from control.regions.book import Book, answer
from control.regions.need import Pace, need, paced
from control.regions.terms import Account, Lease, Report, Slot, Source, slot
from quota.periods import Period

CALLS = "api_calls"
ALLOWANCE = Account(Source.ALLOWANCE, CALLS)
OVERAGE = Account(Source.OVERAGE, CALLS)
GRANT = Account(Source.GRANT, "bonus")
IN_ORDER = (ALLOWANCE, GRANT, OVERAGE)
TICK_SECONDS = 0.25
NEVER = float("-inf")


@dataclass
class ReferenceLedger:
    """What a region's Redis holds of one organization, and the steps that its scripts take."""

    epoch: int = 1
    returns: int = 0
    number: int = 0
    asked_at: float = NEVER
    ends_at: float = NEVER
    periods: tuple[Period, ...] = ()
    held: dict[Account, int] = field(default_factory=dict)
    drawn: Counter[Slot] = field(default_factory=Counter)

    def period(self, now: float) -> Period | None:
        """In which it charges at its own time `now`; None: it refuses."""
        if not self.asked_at <= now < self.ends_at:
            return None
        return next((p for p in self.periods if now in p), None)

    def left(self, account: Account, period: Period) -> int:
        return max(0, self.held.get(account, 0) - self.drawn[slot(account, period.start)])

    def take(self, cost: int, now: float) -> dict[Slot, int] | None:
        """What paid for it; None: refused."""
        period = self.period(now)
        if period is None:
            return None
        paid, unpaid = {}, cost
        for account in IN_ORDER:
            units = min(unpaid, self.left(account, period))
            if units:
                paid[slot(account, period.start)] = units
                unpaid -= units
        if unpaid:
            return None
        self.drawn.update(paid)
        return paid

    def settle(self, paid: Mapping[Slot, int], units: int, now: float) -> None:
        """Corrects a charge. More than was charged is charged only in a period that is not over."""
        back = sum(paid.values()) - units
        if back < 0:
            period = self.period(now)
            start = next((s.period for s in paid if s.account != GRANT), None)
            if period is not None and period.start == start:
                self.take(-back, now)
            return
        for account in reversed(IN_ORDER):
            for s in (s for s in paid if s.account == account):
                given = min(back, paid[s])
                self.drawn[s] -= given
                back -= given

    def lower(self, wanted: Mapping[Account, int]) -> None:
        """Lowers ceilings."""
        for account, units in wanted.items():
            self.held[account] = min(self.held.get(account, 0), units)
        self.returns += 1

    def install(self, lease: Lease) -> bool:
        if not lease.replaces(self.epoch, self.returns, self.number):
            return False
        self.number, self.periods = lease.number, lease.periods
        self.asked_at, self.ends_at = lease.asked_at, lease.ends_at
        self.held = dict(lease.ceilings)
        return True

    def forget(self, then: "ReferenceLedger") -> None:
        """It has gone back to what it was. What was drawn is put back from the events; all that it may do is not."""
        self.returns, self.number, self.held, self.periods = then.returns, then.number, dict(then.held), then.periods
        self.ends_at = NEVER


@dataclass
class Clock:
    """Of a region: off by anything, too fast or too slow, and set now and then."""

    offset: float = 0.0
    rate: float = 1.0

    def __call__(self, true: float) -> float:
        return 1_000_000 + self.offset + self.rate * true


class Region:
    def __init__(self, name: str, clock: Clock) -> None:
        self.name, self.clock = name, clock
        self.ledger = ReferenceLedger()
        self.before: list[ReferenceLedger] = []
        self.connected = True
        self.agent_alive = True
        self.fenced = False
        """Its ledger has lost its memory, and the home has not given it a new epoch yet."""
        self.demand = 0.0
        self.paid: list[dict[Slot, int]] = []
        self.refused = 0
        self.sold = 0
        self.restart_agent()

    def restart_agent(self) -> None:
        self.paces: dict[Account, Pace] = {}
        self.pressed: frozenset[Account] = frozenset()
        self.recalled: dict[Account, int] = {}
        self.spare: Mapping[Account, int] | None = None
        self.least = 0

    def take(self, cost: int, true: float) -> set[Slot]:
        paid = self.ledger.take(cost, self.clock(true))
        if paid is None:
            self.refused += self.ledger.period(self.clock(true)) is not None
            self.least = max(self.least, cost)
            return set()
        self.sold += cost
        self.paid.append(paid)
        return set(paid)

    def report(self, true: float) -> Report | None:
        """What the agent does when it looks: it returns what it does not need, and asks for what it needs."""
        now, ledger = self.clock(true), self.ledger
        current = next((p for p in ledger.periods if now in p), None)
        lower, wanted, least = dict(self.recalled), {}, {}
        self.recalled = {}
        for account in ledger.held:
            if current is None:
                break
            pace = paced(self.paces.get(account), ledger.drawn[slot(account, current.start)], true)
            self.paces[account] = pace
            # What pays last is short of what no other has.
            of_use = self.least if account == self._last() else 0
            n = need(pace, ledger.held[account], (self.spare or {}).get(account, 0), of_use, account in self.pressed)
            if n.lower is not None and self.spare is not None:
                lower.setdefault(account, n.lower)
            if n.wanted is not None:
                wanted[account] = n.wanted
                least[account] = of_use
        self.least = 0
        if lower:
            ledger.lower(lower)
        return Report(
            now,
            ledger.epoch,
            ledger.returns,
            ledger.number,
            int(now) - 200,
            dict(ledger.held),
            dict(ledger.drawn),
            wanted,
            least,
        )

    def _last(self) -> Account:
        return next(a for a in reversed(IN_ORDER) if a in self.ledger.held)


@dataclass
class Network:
    """Messages are late, and so come in any order; some come twice, or never."""

    random: Random
    late_seconds: float = 0.2
    lost: float = 0.0
    twice: float = 0.0
    under_way: list[tuple[float, int, Callable[[], None]]] = field(default_factory=list)
    numbers: Iterator[int] = field(default_factory=count)

    def send(self, true: float, deliver: Callable[[], None]) -> None:
        for _ in range(1 + (self.random.random() < self.twice)):
            if self.random.random() >= self.lost:
                at = true + self.random.uniform(0, self.late_seconds)
                heappush(self.under_way, (at, next(self.numbers), deliver))

    def deliver(self, true: float) -> None:
        while self.under_way and self.under_way[0][0] <= true:
            heappop(self.under_way)[2]()


class World:
    """`limits`: of the organization, by account. A period has `period_seconds`."""

    def __init__(
        self,
        random: Random,
        limits: Mapping[Account, int],
        clocks: list[Clock],
        period_seconds: int,
        lease_seconds: float,
        network: Network,
    ) -> None:
        self.random, self.limits, self.network = random, dict(limits), network
        self.period_seconds, self.lease_seconds = period_seconds, lease_seconds
        self.book = Book()
        self.true = 0.0
        self.regions = [Region(f"r{i}", clock) for i, clock in enumerate(clocks)]
        self.sent: list[tuple[Region, Report]] = []
        self.most: Counter[Account] = Counter(limits)
        """The highest limit that each account has had."""
        self.touched: set[Slot] = set()
        """Slots that were drawn in the last step."""

    def periods(self, now: float) -> tuple[Period, Period]:
        start = int(now // self.period_seconds * self.period_seconds)
        middle = start + self.period_seconds
        return Period(start, middle), Period(middle, middle + self.period_seconds)

    def ask(self, region: Region) -> None:
        report = region.report(self.true)
        if report is not None and region.connected:
            self.network.send(self.true, lambda: self._arrive(region, report))

    def _arrive(self, region: Region, report: Report) -> None:
        aborts = self.random.random() < self.network.lost / 2
        before = deepcopy(self.book.holders.get(region.name)) if aborts else None
        lease = answer(
            self.book, region.name, report, self.limits, self.periods(report.asked_at), self.lease_seconds, self.true
        )
        if before is not None:
            self.book.holders[region.name] = before  # the home's transaction did not commit
            return
        if isinstance(lease, Lease) and region.connected:
            self.network.send(self.true, lambda: self._installed(region, lease))

    def _installed(self, region: Region, lease: Lease) -> None:
        if region.agent_alive and not region.fenced and region.ledger.install(lease):
            region.pressed, region.spare = lease.pressed, lease.spare
            region.recalled |= {account: lease.ceilings[account] for account in lease.recalled}

    def vouch(self, region: Region) -> None:
        """The home gives a ledger that has lost its memory a new epoch."""
        if region.fenced and region.connected and region.agent_alive:
            region.ledger.epoch += 1
            region.fenced = False

    def step(self) -> None:
        self.true += TICK_SECONDS
        self.touched.clear()
        self.network.deliver(self.true)
        for region in self.regions:
            if not region.fenced:
                expected = region.demand * TICK_SECONDS
                requests = int(expected) + (self.random.random() < expected % 1)
                for _ in range(requests):
                    self.touched |= region.take(self.cost(), self.true)
                    if region.paid and self.random.random() < 0.05:
                        receipt = region.paid.pop(self.random.randrange(len(region.paid)))
                        region.ledger.settle(receipt, self.random.randrange(0, 12), region.clock(self.true))
            self.vouch(region)
            if region.agent_alive and not region.fenced and self.random.random() < 0.5:
                self.ask(region)

    def cost(self) -> int:
        return 1

    def drawn(self, of: Slot) -> int:
        return sum(region.ledger.drawn[of] for region in self.regions)


def remembered(ledger: ReferenceLedger) -> ReferenceLedger:
    return replace(ledger, held=dict(ledger.held), drawn=Counter(ledger.drawn))
