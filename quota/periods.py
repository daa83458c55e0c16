"""Usage periods: half-open intervals of UTC seconds. Pure.

A schedule says how an organization's periods follow each other: so many months, weeks or days each, counted from an
anchor, or between bounds that were agreed. Whatever the time, it lies in one period of a schedule at most, and where
one ends the next begins.

A month is counted from its anchor as Stripe does it: the n-th period starts n months after the anchor, on the anchor's
day and time of day, or on the month's last day where that day does not exist
(https://docs.stripe.com/billing/subscriptions/billing-cycle). A calendar month is the anchor on a first at 00:00. A
plan that is paid for by the year has monthly periods, too: quotas do not depend on how often somebody pays.
"""

import calendar
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from itertools import count as counting
from itertools import islice, pairwise

CALENDAR_ANCHOR = 0  # 1970-01-01T00:00:00Z is a first of a month


@dataclass(frozen=True, slots=True, order=True)
class Period:
    start: int
    """First second of the period, seconds since the epoch."""
    end: int
    """First second after the period."""

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.end:
            raise ValueError(f"a period must start at or after 0 and end after it starts: {self.start}..{self.end}")

    def __contains__(self, second: float) -> bool:
        return self.start <= second < self.end

    @property
    def seconds(self) -> int:
        return self.end - self.start


def add_months(anchor: int, months: int) -> int:
    """The anchor moved by whole calendar months, its day clamped to the month's last. Seconds since the epoch."""
    at = datetime.fromtimestamp(anchor, UTC)
    year, month0 = divmod(at.year * 12 + at.month - 1 + months, 12)
    day = min(at.day, calendar.monthrange(year, month0 + 1)[1])
    return int(at.replace(year=year, month=month0 + 1, day=day).timestamp())


class Unit(StrEnum):
    DAY = "day"
    WEEK = "week"
    MONTH = "month"


_SECONDS = {Unit.DAY: 86_400, Unit.WEEK: 7 * 86_400}

PERIOD_SECONDS_MAX = 366 * 86_400
EVERY_MAX = {Unit.DAY: 366, Unit.WEEK: 52, Unit.MONTH: 12}


@dataclass(frozen=True, slots=True)
class Rule:
    """How long periods are. With `bounds`, `every` and `unit` mean nothing.

    Raises ValueError for periods of no length, or of more than a year."""

    every: int = 1
    unit: Unit = Unit.MONTH
    bounds: tuple[int, ...] = ()
    """Seconds since the epoch, ascending: each but the last begins a period. Before the first and after the last there
    is none, and nothing is admitted."""

    def __post_init__(self) -> None:
        if not 1 <= self.every <= EVERY_MAX[self.unit]:
            raise ValueError(f"a period has 1 to {EVERY_MAX[self.unit]} {self.unit}s")
        if len(self.bounds) == 1:
            raise ValueError("bounds are two or more: where a period begins, and where it ends")
        for start, end in pairwise(self.bounds):
            if not 0 <= start < end:
                raise ValueError("bounds must be ascending, and none before 1970")
            if end - start > PERIOD_SECONDS_MAX:
                raise ValueError("a period has at most 366 days")


MONTHLY = Rule()


@dataclass(frozen=True, slots=True)
class Schedule:
    """An organization's periods, each after the other."""

    anchor: int
    """Seconds since the epoch; periods are counted from here, forwards and backwards."""
    rule: Rule = MONTHLY
    starts_at: int | None = None
    """The start of a first period that lasts until the anchor, a trial of any length. None: there is none."""

    def period_at(self, now: float) -> Period | None:
        """The period that holds `now`; None where there is none."""
        first = next(iter(self.periods(now, 1)), None)
        return first if first is not None and now in first else None

    def periods(self, now: float, count: int = 2) -> tuple[Period, ...]:
        """The period that holds `now`, or the next one to come, and those after it: what is published ahead."""
        if self.rule.bounds:
            ahead = (Period(a, b) for a, b in pairwise(self.rule.bounds) if b > now)
            return tuple(islice(ahead, count))
        if self.starts_at is not None and self.starts_at < self.anchor and now < self.anchor:
            if now < self.starts_at:  # this clock is behind the one that set it: periods of a day, until it begins
                day = self.starts_at + int((now - self.starts_at) // _SECONDS[Unit.DAY]) * _SECONDS[Unit.DAY]
                first = Period(day, day + _SECONDS[Unit.DAY])
            else:
                first = Period(self.starts_at, self.anchor)
            return (first, *self.periods(first.end, count - 1)) if count > 1 else (first,)
        number = self._number(now)
        bounds = [self._bound(n) for n in islice(counting(number), count + 1)]
        return tuple(Period(a, b) for a, b in pairwise(bounds))

    def _bound(self, number: int) -> int:
        steps = number * self.rule.every
        if self.rule.unit is Unit.MONTH:
            return add_months(self.anchor, steps)
        return self.anchor + steps * _SECONDS[self.rule.unit]

    def _number(self, now: float) -> int:
        """Which period holds `now`; 0 is the one that begins at the anchor."""
        if self.rule.unit is not Unit.MONTH:
            return int((now - self.anchor) // (self.rule.every * _SECONDS[self.rule.unit]))
        at, moment = datetime.fromtimestamp(self.anchor, UTC), datetime.fromtimestamp(now, UTC)
        number = ((moment.year - at.year) * 12 + moment.month - at.month) // self.rule.every
        return number if self._bound(number) <= now else number - 1


def monthly_periods(anchor: int, now: float, count: int = 2) -> tuple[Period, ...]:
    """The monthly period that holds `now` and those after it."""
    return Schedule(anchor).periods(now, count)
