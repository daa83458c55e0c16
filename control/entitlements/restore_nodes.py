"""What keys with quotas of their own have used in their current windows, by the events."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from control import sql
from control.db import Connection
from control.ledger.event_batch import EventBatch
from control.moments import moment
from control.region import Region
from control.sql.keys import Limited
from quota.access import PERIOD
from quota.model import NodeUsage

AT_ONCE = 1_000  # windows in one statement: a third of a second where each holds a month of hours


@dataclass(frozen=True, slots=True)
class Window:
    org: str
    key_id: str
    meter: str
    seconds: int
    """PERIOD: the organization's."""
    start: int

    @property
    def node(self) -> str:
        return f"k:{self.key_id}"

    def holds(self, period_start: float, taken_at: float) -> bool:
        """Whether it counts a take of then."""
        if self.seconds == PERIOD:
            return period_start == self.start
        return self.start <= taken_at < self.start + self.seconds


def windows(key: Limited, now: float, period_start: int | None) -> list[Window]:
    """The current windows of a key. `period_start`: of its organization's period; None: it has none now."""
    found = []
    for meter, _, seconds in key.quotas:
        if seconds != PERIOD:
            found.append(Window(key.org, key.id, meter, seconds, int(now) // seconds * seconds))
        elif period_start is not None:
            found.append(Window(key.org, key.id, meter, PERIOD, period_start))
    return found


@dataclass(frozen=True, slots=True)
class Written:
    used: dict[Window, int]
    inexact: frozenset[Window]
    """A part of their events is in files, so their sum is not known."""


NOTHING = Written({}, frozenset())


async def written(connection: Connection, region: Region, current: Iterable[Window]) -> Written:
    """What Postgres has of them, from this region."""
    asked, found = list(current), dict[Window, sql.usage.NodeUsage]()
    for at in range(0, len(asked), AT_ONCE):
        part = asked[at : at + AT_ONCE]
        rows = await sql.usage.node_usage(
            connection,
            region=region.number,
            orgs=[window.org for window in part],
            key_ids=[window.key_id for window in part],
            meters=[window.meter for window in part],
            window_seconds=[window.seconds for window in part],
            starts=[moment(window.start) for window in part],
        )
        found |= {Window(row.org, row.key_id, row.meter, row.window_seconds, row.start): row for row in rows}
    return Written(
        {window: row.used for window, row in found.items()},
        frozenset(window for window, row in found.items() if not row.is_exact),
    )


def with_tail(used: Mapping[Window, int], tail: EventBatch) -> dict[Window, int]:
    """The same with the stream's entries after the watermark. Pure."""
    counted = dict(used)
    by_meter: defaultdict[tuple[str, str, str], list[Window]] = defaultdict(list)
    for window in used:
        by_meter[window.org, window.key_id, window.meter].append(window)
    for org, key_id, meter, period_start, taken_at, units in tail.limited:
        for window in by_meter.get((org, key_id, meter), ()):
            if window.holds(period_start, taken_at):
                counted[window] += units
    return counted


def nodes(used: Mapping[Window, int]) -> tuple[NodeUsage, ...]:
    """As Redis counts them."""
    return tuple(
        NodeUsage(window.node, window.meter, window.seconds, window.start, units)
        for window, units in used.items()
        if units > 0
    )
