"""The counters of an organization as they were when a decision was made, from its events.

What a counter was is what it is now, less the events since. Events tell milliseconds apart, and several things may
happen in one: for that one there is a candidate behind each event.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import groupby

from control import sql
from control.db import Connection
from control.moments import moment
from control.sql.decisions import Event
from quota.evaluation import Books
from quota.model import MeterUsage
from quota.periods import Period
from quota.terms import OwnLimits, window_of

MILLISECOND = timedelta(milliseconds=1)
EVENTS_OF_A_MOMENT_MAX = 2000


@dataclass(frozen=True, slots=True)
class Moment:
    """When something was decided."""

    us: int
    """Microseconds since 1970, by Redis' clock."""

    @property
    def second(self) -> int:
        return self.us // 1_000_000

    @property
    def millisecond(self) -> datetime:
        """Its beginning."""
        return moment(self.second) + timedelta(milliseconds=self.us // 1000 % 1000)


async def candidates(
    connection: Connection, org: str, period: Period, at: Moment, own: Sequence[OwnLimits]
) -> list[Books]:
    """The counters before the millisecond of `at`, and behind each event within it."""
    before = at.millisecond
    books = await _before(connection, org, period, before, at.second, own)
    found = await sql.decisions.events_from(
        connection, org=org, from_at=before, until_at=before + MILLISECOND, limit_rows=EVENTS_OF_A_MOMENT_MAX
    )
    behind = [books]
    for _, of_event in groupby(found, key=lambda event: event.stream_seq):
        books = books.copy()
        for event in of_event:
            _apply(books, event, period, at.second, own)
        behind.append(books)
    return behind


async def before_event(connection: Connection, event: Event, period: Period, own: Sequence[OwnLimits]) -> Books:
    """The counters that the take of this event found."""
    second = event.stream_ms // 1000
    books = await _before(connection, event.org, period, event.occurred_at, second, own)
    found = await sql.decisions.events_from(
        connection,
        org=event.org,
        from_at=event.occurred_at,
        until_at=event.occurred_at + MILLISECOND,
        limit_rows=EVENTS_OF_A_MOMENT_MAX,
    )
    for earlier in found:
        if earlier.stream_seq < event.stream_seq:
            _apply(books, earlier, period, second, own)
    return books


async def _before(
    connection: Connection, org: str, period: Period, before: datetime, second: int, own: Iterable[OwnLimits]
) -> Books:
    books = Books()
    for row in await sql.decisions.usage_before(connection, org=org, period_start=moment(period.start), at=before):
        books.usage[period.start, row.meter] = MeterUsage(period.start, row.meter, row.used, row.burnt, row.overage)
    for grant in await sql.decisions.grants_before(connection, org=org, at=before):
        books.grant_used[grant.grant_id] = grant.used
    for limits in own:
        for seconds in {quota.window_seconds for quota in limits.quotas}:
            window = window_of(seconds, second, period)
            for used in await sql.decisions.key_usage_before(
                connection,
                org=org,
                key_id=limits.node.removeprefix("k:"),
                from_at=moment(window.start),
                before=before,
            ):
                books.windows[limits.node, used.meter, seconds] = window.start, used.used
    return books


def _apply(books: Books, event: Event, period: Period, second: int, own: Iterable[OwnLimits]) -> None:
    start = int(event.period_start.timestamp())
    usage = books.usage.get((start, event.meter), MeterUsage(start, event.meter, 0))
    burnt = event.burnt or {}
    books.usage[start, event.meter] = MeterUsage(
        start,
        event.meter,
        usage.used + event.units,
        usage.burnt + sum(map(int, burnt.values())),
        usage.overage + event.overage,
    )
    for grant, units in burnt.items():
        books.grant_used[grant] = books.grant_used.get(grant, 0) + int(units)
    if event.taken_at is None or event.key_id is None:
        return
    for limits in own:
        if limits.node == f"k:{event.key_id}":
            for seconds in {quota.window_seconds for quota in limits.quotas}:
                window = window_of(seconds, second, period)
                if event.taken_at.timestamp() >= window.start:
                    name = limits.node, event.meter, seconds
                    _, used = books.windows.get(name, (window.start, 0))
                    books.windows[name] = window.start, used + event.units
