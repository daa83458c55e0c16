"""What was used and what it earned and cost, by month.

Days that are over are counted once, from their events, when somebody first asks for them; an event that is written
later takes its day out, and the day is counted again. The last two days are read from the events each time.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal

from control import sql
from control.analytics.periods import DAY, midnight, month_of, starts_of
from control.db import Database
from control.moments import moment
from control.settings.costs import Costs
from control.sql.unit_economics import Collected, UsedMost, UsedOnDay
from control.usage.late_days import LIVE_DAYS

COUNTED_AT_ONCE = 31  # days of one transaction, which writers of late events wait for


async def used_days(db: Database, since: date, until: date, meter: str | None, now: float) -> list[UsedOnDay]:
    """By day and meter, of all organizations. Raises StoreUnavailable."""
    over = min(max(moment(now).date() - (LIVE_DAYS - 1) * DAY, since), until)
    await _count(db, since, over, now)
    async with db.connection() as connection:
        return await sql.unit_economics.used(
            connection,
            since=since,
            until=over,
            live_since=midnight(over),
            live_until=midnight(until),
            meter=meter,
        )


async def _count(db: Database, since: date, until: date, now: float) -> None:
    async with db.connection() as connection:
        days = await sql.unit_economics.uncounted_days(connection, since=since, until=until)
    for first in range(0, len(days), COUNTED_AT_ONCE):
        async with db.transaction() as connection:
            await sql.unit_economics.lock_days(connection)
            some = days[first : first + COUNTED_AT_ONCE]
            # Another process may have counted them meanwhile.
            left = await sql.unit_economics.uncounted_days(connection, since=some[0], until=some[-1] + DAY)
            counting = [day for day in some if day in left]
            if counting:
                await sql.unit_economics.count_days(
                    connection,
                    days=counting,
                    since=midnight(counting[0]),
                    until=midnight(counting[-1] + DAY),
                    at=moment(now),
                )


async def most_used(db: Database, meter: str, since: date, until: date, limit: int) -> list[UsedMost]:
    """Raises StoreUnavailable."""
    async with db.connection() as connection:
        return await sql.unit_economics.most(
            connection, meter=meter, since=midnight(since), until=midnight(until), limit_rows=limit
        )


async def collected(db: Database, currency: str, since: date, until: date) -> list[Collected]:
    """Raises StoreUnavailable."""
    async with db.connection() as connection:
        return await sql.unit_economics.collected(
            connection, currency=currency, since=midnight(since), until=midnight(until)
        )


@dataclass(slots=True)
class MeterMonth:
    """What was used of a meter in a month, and what that cost."""

    start: date
    meter: str
    calls: int | None = 0
    """Charges; None: some day of it is not known."""
    units: int = 0
    overage: int = 0
    cost: Decimal | None = Decimal(0)
    """In minor units; None: of some units nobody has said what they cost."""

    def add(self, day: UsedOnDay, per_1000: Decimal | None) -> None:
        self.calls = None if self.calls is None or day.calls is None else self.calls + day.calls
        self.units += day.units
        self.overage += day.overage
        if day.units:
            self.cost = None if self.cost is None or per_1000 is None else self.cost + per_1000 * day.units / 1000


def by_month(days: Iterable[UsedOnDay], costs: Costs, currency: str) -> list[MeterMonth]:
    """By month and meter. Each day has its own cost. Pure."""
    found: dict[tuple[date, str], MeterMonth] = {}
    for day in days:
        start = month_of(day.day)
        month = found.setdefault((start, day.meter), MeterMonth(start, day.meter))
        month.add(day, costs.of(day.meter, currency, day.day))
    return [found[key] for key in sorted(found)]


@dataclass(frozen=True, slots=True)
class Month:
    """Money of a month, and of 1,000 calls of it. Calls are charges of all meters together."""

    start: date
    paid_minor: int
    refunded_minor: int
    meters: Sequence[MeterMonth] = field(default_factory=list)

    @property
    def revenue_minor(self) -> int:
        return self.paid_minor - self.refunded_minor

    @property
    def calls(self) -> int | None:
        return None if any(each.calls is None for each in self.meters) else sum(each.calls or 0 for each in self.meters)

    @property
    def cost(self) -> Decimal | None:
        known = [each.cost for each in self.meters if each.cost is not None]
        return sum(known, Decimal(0)) if len(known) == len(self.meters) else None


def months(since: date, until: date, money: Sequence[Collected], used: Sequence[MeterMonth]) -> list[Month]:
    """Pure."""
    earned: Mapping[date, Collected] = {each.start: each for each in money}
    found = []
    for start in starts_of(since, until, "month"):
        of_month = earned.get(start, Collected(start, 0, 0))
        meters = [each for each in used if each.start == start]
        found.append(Month(start, of_month.paid_minor, of_month.refunded_minor, meters))
    return found
