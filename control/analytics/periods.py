"""Months and days of UTC. Pure."""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Literal

Bucket = Literal["day", "month"]

MONTHS_DEFAULT = 12
PERIODS_MAX = {"day": 366, "month": 120}
DAY = timedelta(days=1)


def month_of(day: date, months_later: int = 0) -> date:
    """The first day of the month, or of one before or after it."""
    months = day.year * 12 + day.month - 1 + months_later
    return date(months // 12, months % 12 + 1, 1)


def next_start(start: date, bucket: Bucket) -> date:
    return start + DAY if bucket == "day" else month_of(start, 1)


def starts_of(since: date, until: date, bucket: Bucket) -> Iterator[date]:
    """The periods from `since` until before `until`."""
    while since < until:
        yield since
        since = next_start(since, bucket)


def midnight(day: date) -> datetime:
    """The moment that the day begins at."""
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def day_of(seconds: float) -> date:
    return datetime.fromtimestamp(seconds, UTC).date()
