"""The home's side: what it has reserved for each region, and how much of what is free it gives. Pure.

The law: what is reserved of a slot for all regions is never more than its limit, and each region's ledger enforces
ceilings that are reserved for it in every period that it may charge. So no clock and no order of messages matters. Two
things alone make a reservation smaller: the region's report that its ledger has lowered the ceiling, and a later
period."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from math import ceil
from typing import NamedTuple

from control.regions.terms import ALWAYS, Account, Late, Lease, Report, Slot, Source, slot
from quota.periods import Period

WAITS_SECONDS = 10.0
"""A region that got less than it wanted is thought to want it for so long."""
SPARE_PART = 4
"""A region keeps this part of its even share of what is free."""


@dataclass(slots=True)
class Holder:
    """What is reserved for one region."""

    epoch: int = 0
    returns: int = 0
    number: int = 0
    reserved: dict[Slot, int] = field(default_factory=dict)
    waits: dict[Account, float] = field(default_factory=dict)
    """By account: when it asked for more than it got, by the home's clock."""
    drawn: dict[Slot, int] = field(default_factory=dict)
    """As it said last, of what is reserved."""


@dataclass(slots=True)
class Book:
    """Of one organization: its regions, by name. Whoever changes it has it alone."""

    holders: dict[str, Holder] = field(default_factory=dict)

    def reserved(self, of: Slot) -> int:
        """For all regions."""
        return sum(holder.reserved.get(of, 0) for holder in self.holders.values())

    def waiting(self, account: Account, now: float, but: str) -> list[str]:
        """Other regions that wait for units of this account."""
        return [
            name
            for name, holder in self.holders.items()
            if name != but and now - holder.waits.get(account, -WAITS_SECONDS) < WAITS_SECONDS
        ]

    def drawn_elsewhere(self, of: Slot, but: str) -> int:
        """By all other regions."""
        return sum(holder.drawn.get(of, 0) for name, holder in self.holders.items() if name != but)


def answer(
    book: Book,
    region: str,
    report: Report,
    limits: Mapping[Account, int],
    periods: tuple[Period, ...],
    lease_seconds: float,
    now: float,
) -> Lease | Late | None:
    """Notes what the region reports, and reserves what it is given. None where no period holds the region's time.

    `limits`: of the organization, in each of its `periods`; an account without a limit is not there. `now`: by the
    home's clock, for waiting only."""
    holder = book.holders.setdefault(region, Holder())
    if (report.epoch, report.returns) < (holder.epoch, holder.returns):
        return Late(holder.epoch, holder.returns)
    if report.number > holder.number:
        _remember(holder, report, periods)
    remembers = report.epoch == holder.epoch or holder.number == 0
    if remembers:
        _accept(holder, report)
    holder.epoch, holder.returns = report.epoch, report.returns
    _count_drawn(holder, report)
    current = next((p for p in periods if report.asked_at in p), None)
    if current is None:
        return None
    listed = _listed(book, holder, limits, periods, current, report.asked_at + lease_seconds)
    parts = {
        account: _give(book, region, account, limit, {slot(account, p.start) for p in listed}, report, remembers, now)
        for account, limit in limits.items()
    }
    holder.number += 1
    return Lease(
        epoch=holder.epoch,
        returns=holder.returns,
        number=holder.number,
        asked_at=report.asked_at,
        ends_at=report.asked_at + lease_seconds,
        periods=listed,
        ceilings={account: part.ceiling for account, part in parts.items()},
        spare={account: part.spare for account, part in parts.items()},
        recalled=frozenset(account for account, part in parts.items() if part.recalled),
        pressed=frozenset(account for account, part in parts.items() if part.pressed),
        free={account: part.free for account, part in parts.items()},
        drawn_elsewhere={a: book.drawn_elsewhere(slot(a, current.start), region) for a in parts},
        short={account: part.short for account, part in parts.items() if part.short},
    )


class _Part(NamedTuple):
    """What a region is given of one account."""

    ceiling: int
    recalled: bool
    pressed: bool
    spare: int
    free: int
    short: int


def _give(
    book: Book,
    region: str,
    account: Account,
    limit: int,
    slots: Collection[Slot],
    report: Report,
    remembers: bool,
    now: float,
) -> _Part:
    holder = book.holders[region]
    is_new = not any(s in holder.reserved for s in slots)
    base = min(holder.reserved.get(s, 0) for s in slots)
    free = min(limit - book.reserved(s) + holder.reserved.get(s, 0) for s in slots) - base
    waiting = book.waiting(account, now, region)
    spare = max(0, free) // (SPARE_PART * len(book.holders))
    # What a ledger without memory holds and wants is of another time.
    wanted = max(0, report.wanted.get(account, base) - base) if remembers else 0
    wanted = max(1, spare, wanted) if is_new else wanted
    least, first = report.least.get(account, 0), report.first.get(account, 0) if remembers else 0
    left = base - max(report.drawn.get(s, 0) for s in slots)
    if free < least - left and any(name < region for name in waiting):
        given = 0  # too little to be of use here: it may complete what another has
    else:
        given = max(_portion(wanted, least, free, 1 + len(waiting)), min(first, max(0, free)))
    if max(wanted, first) > given:
        holder.waits[account] = now
    else:
        holder.waits.pop(account, None)
    for s in slots:
        holder.reserved[s] = max(holder.reserved.get(s, 0), base + given)
    ceiling = max(0, base + min(given, free))
    pressed = bool(waiting) or free < 0
    return _Part(ceiling, ceiling < base, pressed, spare, max(0, free - given), max(0, max(wanted, first) - given))


def forget(book: Book, before: int) -> None:
    """Drops what was reserved in periods that began before: when no region can charge them any more."""
    for holder in book.holders.values():
        for s in [s for s in holder.reserved if s.period != ALWAYS and s.period < before]:
            del holder.reserved[s]
            holder.drawn.pop(s, None)


def _remember(holder: Holder, report: Report, periods: tuple[Period, ...]) -> None:
    """PostgreSQL has gone back to an older state, and the region holds a lease that it does not know of."""
    for account, units in report.held.items():
        for s in {slot(account, p.start) for p in periods}:
            holder.reserved[s] = max(holder.reserved.get(s, 0), units)
    holder.number = report.number


def _accept(holder: Holder, report: Report) -> None:
    """What the region has returned since it was heard: it draws no more than its ceilings from now on, in any period.
    Of periods that are long over it is not known any more what was drawn."""
    if report.returns == holder.returns:
        return
    for s, units in holder.reserved.items():
        if s in report.drawn or s.period >= report.since or s.period == ALWAYS:
            holder.reserved[s] = min(units, report.held.get(s.account, 0))


def _count_drawn(holder: Holder, report: Report) -> None:
    """What was drawn counts, also where less was reserved: it was returned since, a journal was replayed, or there was
    no limit."""
    for s, units in report.drawn.items():
        if units > holder.reserved.get(s, 0):
            holder.reserved[s] = units
        if s in holder.reserved:
            holder.drawn[s] = units


def _listed(
    book: Book,
    holder: Holder,
    limits: Mapping[Account, int],
    periods: tuple[Period, ...],
    current: Period,
    ends_at: float,
) -> tuple[Period, ...]:
    """The periods in which the region may charge under a lease that ends then. What it holds is reserved in the next
    one as well, when the lease reaches it; where that is not free, the lease ends with the current period."""
    following = next((p for p in periods if p.start >= current.end), None)
    if following is None or ends_at <= following.start:
        return (current,)
    carried = {
        slot(account, following.start): holder.reserved.get(slot(account, current.start), 0)
        for account in limits
        if account.source is not Source.GRANT
    }
    for s, units in carried.items():
        own = holder.reserved.get(s, 0)
        if units > own and units - own > limits[s.account] - book.reserved(s):
            return (current,)
    for s, units in carried.items():
        holder.reserved[s] = max(holder.reserved.get(s, 0), units)
    return (current, following)


def _portion(wanted: int, least: int, free: int, asking: int) -> int:
    """How many units of what is free a region is given: all that it wants while there is much, less and less towards
    the end, and never less than is of use while that is there."""
    return max(0, min(wanted, free, max(ceil(free / (2 * asking)), least)))
