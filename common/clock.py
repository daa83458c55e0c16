"""Time as a parameter. Code that needs the wall clock takes a `Clock`; tests pass one that they control."""

import re
import time
from collections.abc import Callable
from datetime import UTC, date, datetime
from typing import Final

Clock = Callable[[], float]
"""Seconds since the epoch, UTC."""

system_clock: Clock = time.time
_DAY: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


def end_of_day(text: str) -> datetime | None:
    """The last second of a day as people write it, `2026-12-31`, in UTC: what ends then is shown with that day. None:
    it is no day."""
    try:
        day = date.fromisoformat(text) if _DAY.fullmatch(text) else None
    except ValueError:  # the 31st of a month that has 30
        return None
    return None if day is None else datetime(day.year, day.month, day.day, 23, 59, 59, tzinfo=UTC)
