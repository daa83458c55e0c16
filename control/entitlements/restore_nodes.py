"""What keys with quotas of their own have used in their current windows, when Redis has lost it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from control import sql
from control.db import Connection
from control.ledger.event_batch import EventBatch
from control.moments import moment
from quota.access import PERIOD
from quota.model import NodeUsage


@dataclass(frozen=True, slots=True)
class Window:
    key_id: str
    meter: str
    seconds: int
    """PERIOD: the organization's."""
    start: int

    def holds(self, period_start: float, taken_at: float) -> bool:
        """Whether it counts a take of then."""
        if self.seconds == PERIOD:
            return period_start == self.start
        return self.start <= taken_at < self.start + self.seconds


async def windows(connection: Connection, org: str, now: float, period_start: int | None) -> list[Window]:
    """The current windows of an organization's keys. `period_start`: of its period; None: it has none now."""
    found = []
    for key in await sql.keys.limited(connection, org=org):
        for meter, _, seconds in key.quotas:
            if seconds != PERIOD:
                found.append(Window(key.id, meter, seconds, int(now) // seconds * seconds))
            elif period_start is not None:
                found.append(Window(key.id, meter, PERIOD, period_start))
    return found


async def written(connection: Connection, org: str, current: Sequence[Window]) -> dict[Window, int]:
    """What Postgres has of them."""
    rows = await sql.usage.node_usage(
        connection,
        org=org,
        key_ids=[window.key_id for window in current],
        meters=[window.meter for window in current],
        window_seconds=[window.seconds for window in current],
        starts=[moment(window.start) for window in current],
    )
    return {Window(row.key_id, row.meter, row.window_seconds, row.start): row.used for row in rows}


def with_tail(org: str, used: Mapping[Window, int], tail: EventBatch) -> tuple[NodeUsage, ...]:
    """The same with the stream's entries after the watermark. Pure."""
    counted = dict(used)
    by_meter: dict[tuple[str, str], list[Window]] = {}
    for window in used:
        by_meter.setdefault((window.key_id, window.meter), []).append(window)
    for owner, key_id, meter, period_start, taken_at, units in tail.limited:
        for window in by_meter.get((key_id, meter), ()) if owner == org else ():
            if window.holds(period_start, taken_at):
                counted[window] += units
    return tuple(
        NodeUsage(f"k:{window.key_id}", window.meter, window.seconds, window.start, units)
        for window, units in counted.items()
        if units > 0
    )
