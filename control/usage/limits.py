"""Organizations at their limit: a meter of which nothing is left has an open incident until something is left again.

A meter whose allowance is used up is watched until its period is over (`thresholds.py` finds it, in the writer's
transaction). Redis is asked, since it knows at once what grants add, what is given back and what a new allowance
changes.
"""

import asyncio
from collections.abc import Sequence
from datetime import datetime
from typing import Any, TypedDict

from common.clock import Clock, system_clock
from control import incidents, sql
from control.db import Connection, Database
from control.entitlements import stored_state
from control.entitlements.everywhere import everywhere
from control.moments import moment, rfc3339
from control.sql.limits import Watched
from quota.ledger import Ledger
from quota.model import OrganizationSnapshot, OveragePolicy

EXHAUSTED = "quota_exhausted"
ROUND_SECONDS = 0.25  # the tile of blocked organizations is at most a second late
LOOK_AGAIN_SECONDS = 0.4
LOOKED_AT_ONCE = 100  # meters; many more are each looked at less often


class LimitWatch:
    name = "limits"

    def __init__(self, db: Database, ledger: Ledger, clock: Clock = system_clock) -> None:
        self._db = db
        self._ledger = ledger
        self._clock = clock

    async def run(self) -> None:
        """Until it is cancelled. Raises StoreUnavailable, LedgerUnavailable; whoever runs it starts it again."""
        while True:
            await self.round()
            await asyncio.sleep(ROUND_SECONDS)

    async def round(self) -> None:
        """Looks at watched meters. The one whose last look is the oldest comes first."""
        now = self._clock()
        before = moment(now - LOOK_AGAIN_SECONDS)
        async with self._db.connection() as connection:
            # Nothing is watched nearly always, and a transaction would be three questions for one.
            if not await sql.limits.due(connection, before=before, limit_rows=1):
                return
        async with self._db.transaction() as connection:
            due = await sql.limits.due(connection, before=before, limit_rows=LOOKED_AT_ONCE)
            if not due:
                return
            snapshots = {org: await self._peek(connection, org, now) for org in {row.org for row in due}}
            keys = [_key(row) for row in due]
            is_open = set(await sql.limits.open_keys(connection, kind=EXHAUSTED, keys=keys))
            over: list[Watched] = []
            going: list[Watched] = []
            for row in due:
                snapshot = snapshots[row.org]
                if snapshot is None:  # Redis has yet to be told of the organization
                    going.append(row)
                    continue
                is_over = row.period_end.timestamp() <= snapshot.now_us / 1_000_000
                (over if is_over else going).append(row)
                content = exhausted(snapshot, row.meter)
                await self._update_incident(connection, now, row, content, is_open=_key(row) in is_open)
            await sql.limits.mark_looked_at(connection, **_columns(going), at=moment(now))
            await sql.limits.unwatch(connection, **_columns(over))

    async def _peek(self, connection: Connection, org: str, now: float) -> OrganizationSnapshot | None:
        snapshot = await self._ledger.peek(org)
        if snapshot is None or not self._db.region.several:
            return snapshot
        state = await stored_state.load_state(connection, org, now)
        return snapshot if state is None else await everywhere(self._db, snapshot, state)

    async def _update_incident(
        self, connection: Connection, now: float, row: Watched, content: dict[str, Any] | None, *, is_open: bool
    ) -> None:
        if content is not None and not is_open:
            await incidents.open(connection, now, EXHAUSTED, _key(row), row.org, content)
        elif content is None and is_open:
            await incidents.close(connection, now, EXHAUSTED, _key(row))


def exhausted(snapshot: OrganizationSnapshot, meter: str) -> dict[str, Any] | None:
    """The incident's content for a meter whose next unit is refused; None where it is admitted. Pure."""
    period = snapshot.period
    balance = next((each for each in snapshot.balances() if each.meter == meter), None)
    limit = next((each for each in snapshot.meters if each.meter == meter), None)
    if period is None or balance is None or limit is None or balance.remaining > 0:
        return None
    sells_on = snapshot.policy is OveragePolicy.METERED
    if sells_on and (limit.overage_max is None or balance.overage < limit.overage_max):
        return None
    return {
        "meter": meter,
        "policy": snapshot.policy.value,
        "limit": balance.limit,
        "overage_max": limit.overage_max if sells_on else None,
        "period_start": rfc3339(period.start),
        "period_end": rfc3339(period.end),
    }


def _key(row: Watched) -> str:
    return f"{row.org}/{row.meter}"


class _Columns(TypedDict):
    orgs: list[str]
    meters: list[str]
    period_starts: list[datetime]


def _columns(rows: Sequence[Watched]) -> _Columns:
    return {
        "orgs": [row.org for row in rows],
        "meters": [row.meter for row in rows],
        "period_starts": [row.period_start for row in rows],
    }
