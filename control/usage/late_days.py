"""Events of days that are over: what was counted of such a day is forgotten, and the day is counted again."""

from collections.abc import Iterable
from datetime import date, timedelta
from typing import Final

from control import sql
from control.db import Connection
from control.moments import moment

LIVE_DAYS: Final = 2
"""Today and yesterday are read from their events, days before are counted once: control/analytics/unit_economics.py."""
DAY_SECONDS: Final = 86_400


def late(days: Iterable[int], today: date) -> list[date]:
    """Those that may be counted already, be it by a process whose clock is ahead. `days`: from the epoch. Pure."""
    dates = (moment(day * DAY_SECONDS).date() for day in days)
    return sorted(day for day in dates if day <= today - timedelta(days=LIVE_DAYS - 1))


async def forget(connection: Connection, days: Iterable[int], now: float) -> None:
    """In the transaction that writes the events. Whoever counts days meanwhile waits for its end, or is done."""
    over = late(days, moment(now).date())
    if over:
        await sql.unit_economics.lock_days(connection)
        await sql.unit_economics.forget_days(connection, days=over)
