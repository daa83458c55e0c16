"""Thresholds: an organization has used 80 %, or all, of an allowance. Each is an event once in a period.

Counters are checked where they move, in the writer's transaction. Each counter holds the value from which a check is
needed (`notice_at`), so a batch whose counters are all below costs nothing more. A reached threshold is a row whose key
is organization, meter, period and percentage. So neither a crash, nor a second writer, nor a counter that a refund took
below and that rose again, makes another row.

A new allowance changes what `notice_at` was computed from. Postgres puts the organization on a list
(`threshold_review`, by a trigger on terms), and this service checks its counters again. Like a writer, it locks the
shard's watermark.
"""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from itertools import groupby
from operator import attrgetter
from typing import Any, NamedTuple

from common.clock import Clock, system_clock
from control import sql
from control.db import Connection, Database
from control.entitlements.schedule import joined_schedule
from control.moments import moment, rfc3339
from control.notifications import outbox
from control.notifications.outbox import Notification
from quota import keys
from quota.periods import PERIOD_SECONDS_MAX, Period, Schedule

REACHED = "usage.threshold_reached"

NEVER = 2**63 - 1  # the largest bigint: no counter gets there
LOOKED_AT_ONCE = 1000  # counters; then the API has its turn
ROUND_SECONDS = 1.0
ROUND_ORGANIZATIONS = 200


class Counter(NamedTuple):
    org: str
    period_start: datetime
    meter: str


@dataclass(frozen=True, slots=True)
class AllowanceTerms:
    """An allowance, and since when it was in force."""

    schedule: Schedule
    effective_from: float
    allowance: int


@dataclass(frozen=True, slots=True)
class ThresholdCheck:
    """The result of checking one counter."""

    period: Period | None
    allowance: int
    reached: Sequence[int]
    """Percentages, whether they were reached before or not."""
    notice_at: int


def check_counter(
    period_start: int, used: int, terms: Iterable[AllowanceTerms], percents: Sequence[int]
) -> ThresholdCheck:
    """Checks a counter against the newest terms of its period; `terms`: the newest first. Pure.

    Terms that came into force after the period, or have other periods, do not apply."""
    for each in terms:
        period = _period(each.schedule, period_start)
        if period is not None and period.start == period_start and each.effective_from < period.end:
            # All of it is looked at whether it is a threshold or not: the meter may be at its limit.
            of_interest = {*percents, 100} if each.allowance else set()
            marks = {percent: -(-each.allowance * percent // 100) for percent in of_interest}
            reached = sorted(percent for percent, mark in marks.items() if used >= mark and percent in percents)
            return ThresholdCheck(
                period, each.allowance, reached, min([m for m in marks.values() if m > used] + [NEVER])
            )
    # Without terms nothing is admitted, so these are about to be seen here, or are gone: not a look for every batch.
    return ThresholdCheck(None, 0, (), min(max(2 * used, 1), NEVER))


class Thresholds:
    name = "thresholds"

    def __init__(
        self, db: Database, percents: Sequence[int], shards: int, notify: bool, clock: Clock = system_clock
    ) -> None:
        """`notify`: the vendor's system is notified, too."""
        self._db = db
        self._percents = sorted(percents)
        self._shards = shards
        self._notify = notify
        self._clock = clock

    async def notice(self, connection: Connection, counters: Sequence[Counter], *, only_open: bool = False) -> None:
        """Checks counters that moved, in the transaction that moved them. `only_open`: not those of past periods.

        Its caller holds the watermarks of their shards."""
        now = self._clock()
        for start in range(0, len(counters), LOOKED_AT_ONCE):
            await self._notice(connection, counters[start : start + LOOKED_AT_ONCE], only_open, now)

    async def run(self) -> None:
        """Until it is cancelled. Raises StoreUnavailable; whoever runs it starts it again."""
        while True:
            if await self.review() < ROUND_ORGANIZATIONS:
                await asyncio.sleep(ROUND_SECONDS)

    async def review(self) -> int:
        """Checks the counters of organizations whose terms were replaced; returns the number of replacements."""
        now = self._clock()
        async with self._db.connection() as connection:
            # Nothing is due nearly always, and a transaction would be three questions for one.
            if not await sql.thresholds.due_reviews(connection, at=moment(now), limit_rows=1):
                return 0
        async with self._db.transaction() as connection:
            due = await sql.thresholds.due_reviews(connection, at=moment(now), limit_rows=ROUND_ORGANIZATIONS)
            if not due:
                return 0
            orgs = sorted({row.org for row in due})
            # A writer that has read the old terms commits first; the next one reads the new ones.
            if self._db.region.several:
                await sql.usage.lock_all_watermarks(connection)
            else:
                shards = sorted({keys.shard_of(org, self._shards) for org in orgs})
                await sql.usage.lock_watermarks(connection, shards=shards)
            since = moment(now - PERIOD_SECONDS_MAX)
            counters = [
                Counter(row.org, row.period_start, row.meter)
                for row in await sql.thresholds.counters(connection, orgs=orgs, since=since)
            ]
            await self.notice(connection, counters, only_open=True)
            await sql.thresholds.end_reviews(connection, ids=[row.id for row in due])
        return len(due)

    async def _notice(self, connection: Connection, counters: Sequence[Counter], only_open: bool, now: float) -> None:
        looks = [
            (counter, used, check)
            for counter, used, check in await self._look(connection, counters, now)
            if not only_open or (check.period is not None and now < check.period.end)
        ]
        reached = [(*each, percent) for each in looks for percent in each[2].reached]
        if reached:
            await self._reach(connection, reached, now)
        at_allowance = [
            (counter, check.period)
            for counter, used, check in looks
            if check.period is not None and used >= check.allowance and now < check.period.end
        ]
        if at_allowance:
            await sql.limits.watch(
                connection,
                orgs=[counter.org for counter, _ in at_allowance],
                meters=[counter.meter for counter, _ in at_allowance],
                period_starts=[counter.period_start for counter, _ in at_allowance],
                period_ends=[moment(period.end) for _, period in at_allowance],
            )
        await sql.thresholds.move_notices(
            connection,
            orgs=[counter.org for counter, _, _ in looks],
            period_starts=[counter.period_start for counter, _, _ in looks],
            meters=[counter.meter for counter, _, _ in looks],
            notice_at=[check.notice_at for _, _, check in looks],
        )

    async def _look(
        self, connection: Connection, counters: Sequence[Counter], now: float
    ) -> list[tuple[Counter, int, ThresholdCheck]]:
        rows = await sql.thresholds.terms(
            connection,
            orgs=[counter.org for counter in counters],
            period_starts=[counter.period_start for counter in counters],
            meters=[counter.meter for counter in counters],
            at=moment(now),
        )
        rows_of = {n: list(each) for n, each in groupby(rows, attrgetter("n"))}
        looks = []
        for n, counter in enumerate(counters):
            used, start = rows_of[n][0].used, int(counter.period_start.timestamp())
            terms = [terms for row in rows_of[n] if (terms := _terms(row)) is not None]
            percents = sorted({*self._percents, *rows_of[n][0].own_percents})
            looks.append((counter, used, check_counter(start, used, terms, percents)))
        return looks

    async def _reach(
        self, connection: Connection, reached: Sequence[tuple[Counter, int, ThresholdCheck, int]], now: float
    ) -> None:
        rows = await sql.thresholds.reach(
            connection,
            orgs=[counter.org for counter, _, _, _ in reached],
            meters=[counter.meter for counter, _, _, _ in reached],
            period_starts=[counter.period_start for counter, _, _, _ in reached],
            percents=[percent for _, _, _, percent in reached],
            allowances=[check.allowance for _, _, check, _ in reached],
            used=[used for _, used, _, _ in reached],
            at=moment(now),
        )
        new = {(Counter(row.org, row.period_start, row.meter), row.percent) for row in rows}
        if self._notify:
            notifications = [_notification(*each) for each in reached if (each[0], each[3]) in new]
            await outbox.add(connection, now, notifications)


def _notification(counter: Counter, used: int, check: ThresholdCheck, percent: int) -> Notification:
    assert check.period is not None  # noqa: S101  nothing is reached outside of a period
    data: dict[str, Any] = {
        "org": counter.org,
        "meter": counter.meter,
        "period_start": rfc3339(check.period.start),
        "period_end": rfc3339(check.period.end),
        "threshold_percent": percent,
        "allowance": check.allowance,
        "used": used,
    }
    return Notification(REACHED, counter.org, data)


def _terms(row: sql.thresholds.CounterTerms) -> AllowanceTerms | None:
    schedule = joined_schedule(row)
    if schedule is None or row.effective_from is None:
        return None  # no terms were in force in the counter's period
    return AllowanceTerms(schedule, row.effective_from.timestamp(), row.allowance)


@lru_cache(maxsize=4096)  # most organizations share a schedule and a period
def _period(schedule: Schedule, start: int) -> Period | None:
    try:
        return schedule.period_at(start)
    except ValueError:  # before 1970: the start is that of no period, whoever wrote the event
        return None
