"""Usage periods: half-open intervals of UTC seconds. Pure.

A monthly period is counted from an anchor, as Stripe does it: the n-th period starts n months after the anchor,
on the anchor's day and time of day, or on the month's last day where that day does not exist
(https://docs.stripe.com/billing/subscriptions/billing-cycle). A calendar month is the anchor on a first at 00:00.
"""

import calendar
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise

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


def monthly_period(anchor: int, now: float) -> Period:
    """The monthly period of `anchor` that holds `now`, both in seconds since the epoch."""
    at, moment = datetime.fromtimestamp(anchor, UTC), datetime.fromtimestamp(now, UTC)
    months = (moment.year - at.year) * 12 + moment.month - at.month
    if add_months(anchor, months) > now:
        months -= 1
    return Period(add_months(anchor, months), add_months(anchor, months + 1))


def monthly_periods(anchor: int, now: float, count: int = 2) -> tuple[Period, ...]:
    """The monthly period that holds `now` and those after it: what is published ahead."""
    first = monthly_period(anchor, now)
    at = datetime.fromtimestamp(anchor, UTC)
    start = datetime.fromtimestamp(first.start, UTC)
    months = (start.year - at.year) * 12 + start.month - at.month
    bounds = [add_months(anchor, months + n) for n in range(count + 1)]
    return tuple(Period(a, b) for a, b in pairwise(bounds))
