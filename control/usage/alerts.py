"""Alerts that an organization's own people choose: percentages of an allowance, beside those of the settings.

Each is a threshold like any other, so it is an event once in a period, and the vendor's system is notified of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from control import journal, sql
from control.db import Database
from control.journal import Author, Change
from control.moments import moment
from control.organizations.store import OrganizationUnknown
from control.sql.thresholds import ReachedThreshold

REACHED_SHOWN: Final = 20


@dataclass(frozen=True, slots=True)
class Alerts:
    percents: Sequence[int]
    reached: Sequence[ReachedThreshold]
    """The latest first, those of the settings, too."""


async def read(db: Database, org: str) -> Alerts:
    async with db.snapshot() as connection:
        percents = await sql.thresholds.alerts(connection, org=org)
        return Alerts(percents or (), await sql.thresholds.reached_last(connection, org=org, limit_rows=REACHED_SHOWN))


async def choose(db: Database, org: str, percents: Sequence[int], now: float, author: Author) -> None:
    """What is reached already is an event at once. The same again changes nothing. Raises OrganizationUnknown."""
    wanted = sorted(set(percents))
    async with db.transaction() as connection:
        if await sql.organizations.lock(connection, org=org) is None:
            raise OrganizationUnknown(org)
        before = list(await sql.thresholds.alerts(connection, org=org) or ())
        if before == wanted:
            return
        await sql.thresholds.set_alerts(connection, org=org, percents=wanted)
        await sql.thresholds.review(connection, org=org, at=moment(now))
        change = Change("alerts.chosen", org, {"percents": before}, {"percents": wanted})
        await journal.record(connection, author, now, [change])
