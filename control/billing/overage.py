"""Overage: what an organization used beyond its plan becomes meter events at Stripe, each unit once.

The counter of a period is exact and grows; what Stripe was told is the sum of the period's revisions. A new revision
carries the difference and is frozen, with its identifier and its time, before it is sent: however often sending is
tried, Stripe takes it once. A crash at any point leaves a counter without its revision, or a revision that is not sent:
the next round finds both. Late usage and corrections are further revisions.

https://docs.stripe.com/billing/subscriptions/usage-based/recording-usage-api
"""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import stripe
import structlog

from control import incidents, journal
from control.billing.client import ask, pages
from control.billing.failures import StripeAway, StripeMissing, StripeRefused
from control.db import Database, Row, statements
from control.entitlements.schedule import schedule_of
from control.ids import uuid7
from control.journal import Author, Change
from control.moments import moment, rfc3339
from control.settings import Stripe as Settings
from quota.clock import Clock, system_clock
from quota.periods import Schedule

log = structlog.get_logger()

LOOK_BACK_SECONDS = 70 * 86_400
DRAFT_SECONDS = 50 * 60  # an invoice stays a draft for about an hour after its period, and counts usage until then
AT_ONCE = 8  # customers; of one customer and meter Stripe takes one event at a time
TELL_APART_SECONDS = 15 * 60  # Stripe adds events up some time after it took them
COMPARE_EVERY_SECONDS = 86_400.0
RETRY_SECONDS = 30.0
CAUGHT_UP_SECONDS, CAUGHT_UP_POLL_SECONDS = 5.0, 0.05

REFUSED = "overage_refused"
LATE = "overage_late"
DIFFERS = "overage_differs"


@dataclass(frozen=True, slots=True)
class Timing:
    """The time that a revision is told for."""

    at: int
    late: bool
    """Its period's invoice is final: it is billed with the next."""


def timing(period_start: int, schedule: Schedule | None, now: float) -> Timing:
    """Inside of the period, so that it is billed with it, for as long as its invoice can take it. Pure."""
    period = schedule.period_at(period_start) if schedule is not None else None
    end = period.end if period is not None else period_start + 1
    if now < end:
        return Timing(int(now), late=False)
    if now < end + DRAFT_SECONDS:
        return Timing(end - 1, late=False)
    return Timing(int(now), late=True)


class Overage:
    name = "overage"

    def __init__(
        self,
        db: Database,
        client: stripe.StripeClient,
        settings: Settings,
        lag_seconds: Callable[[], Awaitable[float]],
        clock: Clock = system_clock,
    ) -> None:
        """`lag_seconds`: how old the oldest usage event is that is not in the counters yet."""
        self._lag_seconds = lag_seconds
        self._db = db
        self._client = client
        self._settings = settings
        self._clock = clock

    async def run(self) -> None:
        """Until it is cancelled. Raises StoreUnavailable; whoever runs it starts it again."""
        loop = asyncio.get_running_loop()
        compare_at = loop.time() + COMPARE_EVERY_SECONDS / 24
        while True:
            await self.freeze()
            pause = self._settings.overage_every_seconds
            if not await self.send():
                pause = min(pause, RETRY_SECONDS)
            if loop.time() >= compare_at:
                await self.compare()
                compare_at = loop.time() + COMPARE_EVERY_SECONDS
            await asyncio.sleep(pause)

    async def flush(self, org: str) -> None:
        """Has Stripe know all that the organization has used until now. Raises StripeAway, StoreUnavailable."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        # Until all that was in the streams when this began is in the counters.
        while await self._lag_seconds() > loop.time() - started:
            if loop.time() - started > CAUGHT_UP_SECONDS:
                raise StripeAway("the writer is behind, so overage is not known yet")
            await asyncio.sleep(CAUGHT_UP_POLL_SECONDS)
        await self.freeze(org)
        if not await self.send(org):
            raise StripeAway(f"overage of {org} is not told yet")

    async def freeze(self, org: str | None = None) -> int:
        """Makes revisions of what Stripe does not know; how many those are."""
        now, sql, author = self._clock(), statements("overage"), Author("overage", str(uuid7()))
        async with self._db.transaction() as connection:
            await sql.lock_freezing(connection)
            since = moment(max(0, now - LOOK_BACK_SECONDS))
            rows = [row async for row in sql.unreported(connection, since=since, org=org)]
            for row in rows:
                revision, units = row["revision"] + 1, row["overage"] - row["reported"]
                start = int(row["period_start"].timestamp())
                when = timing(start, schedule_of(row) if row["period_anchor"] is not None else None, now)
                identifier = f"{row['meter']}:{row['org']}:{start}:{revision}"
                await sql.freeze(
                    connection,
                    org=row["org"],
                    period_start=row["period_start"],
                    meter=row["meter"],
                    revision=revision,
                    units=units,
                    customer=row["customer"],
                    event_name=row["event_name"],
                    identifier=identifier,
                    event_at=moment(when.at),
                    at=moment(now),
                )
                content = {"meter": row["meter"], "period_start": rfc3339(start), "units": units, "late": when.late}
                change = Change("overage.frozen", row["org"], None, {"identifier": identifier, **content})
                await journal.record(connection, author, now, [change])
                if when.late:
                    await incidents.open(connection, now, LATE, f"{row['org']}:{start}", row["org"], content)
        return len(rows)

    async def send(self, org: str | None = None) -> bool:
        """Sends what is frozen; whether all of it has arrived. Raises StoreUnavailable."""
        async with self._db.connection() as connection:
            rows = [row async for row in statements("overage").unsent(connection, org=org)]
        by_customer: Mapping[tuple[str, str], list[Row]] = defaultdict(list)
        for row in rows:
            by_customer[row["customer"], row["event_name"]].append(row)
        free = asyncio.Semaphore(AT_ONCE)

        async def in_turn(waiting: Sequence[Row]) -> bool:
            async with free:
                for row in waiting:
                    if not await self._send(row):
                        return False
            return True

        return all(await asyncio.gather(*map(in_turn, by_customer.values())))

    async def unsent_units(self) -> int:
        """Units that are frozen, and not accepted yet."""
        async with self._db.connection() as connection:
            return int(await statements("overage").backlog(connection))

    async def compare(self) -> int:
        """Compares what Stripe was told with what it has added up; how many periods differ.

        Raises StripeAway, StripeRefused, StoreUnavailable."""
        now, differing = self._clock(), 0
        async with self._db.connection() as connection:
            since, until = moment(max(0, now - LOOK_BACK_SECONDS)), moment(now - TELL_APART_SECONDS)
            rows = [row async for row in statements("overage").totals(connection, since=since, until=until)]
        for row in rows:
            # To whole minutes, as Stripe wants it. The next period's events may lie in the same minute, those of others
            # cannot: the summary is of one customer.
            starts, ends = _minutes(row["first_at"], row["last_at"])
            params: Any = {"customer": row["customer"], "start_time": starts, "end_time": ends}
            try:
                path = f"/v1/billing/meters/{row['meter_id']}/event_summaries"
                found = await pages(self._client, path, params)
            except StripeMissing:
                found = []  # of a meter or customer that Stripe has no more
            summed = sum(int(float(each["aggregated_value"])) for each in found)
            told = sum(
                other["units"]
                for other in rows
                if (other["customer"], other["meter"]) == (row["customer"], row["meter"])
                and starts <= other["first_at"].timestamp() < ends
            )
            key = f"{row['org']}:{int(row['period_start'].timestamp())}:{row['meter']}"
            async with self._db.transaction() as connection:
                if summed == told:
                    await incidents.close(connection, now, DIFFERS, key)
                else:
                    differing += 1
                    content = {"meter": row["meter"], "told": told, "stripe": summed}
                    await incidents.open(connection, now, DIFFERS, key, row["org"], content)
        return differing

    async def _send(self, row: Row) -> bool:
        params: Any = {
            "event_name": row["event_name"],
            "identifier": row["identifier"],
            "timestamp": int(row["event_at"].timestamp()),
            "payload": {"stripe_customer_id": row["customer"], "value": str(row["units"])},
        }
        try:
            await ask(self._client.v1.billing.meter_events.create_async(params))
        except StripeAway as e:
            log.warning("overage waits for Stripe", org=row["org"], reason=str(e))
            return False
        except StripeRefused as e:
            if "already exists with identifier" not in str(e):
                await self._refused(row, str(e))
                return False
        async with self._db.transaction() as connection:
            now = self._clock()
            await statements("overage").sent(connection, identifier=row["identifier"], at=moment(now))
            await incidents.close(connection, now, REFUSED, row["identifier"])
        return True

    async def _refused(self, row: Row, reason: str) -> None:
        log.error("Stripe refuses overage", org=row["org"], identifier=row["identifier"], reason=reason)
        content = {"units": row["units"], "meter": row["meter"], "reason": reason}
        async with self._db.transaction() as connection:
            await incidents.open(connection, self._clock(), REFUSED, row["identifier"], row["org"], content)


def _minutes(first: datetime, last: datetime) -> tuple[int, int]:
    start = int(first.timestamp()) // 60 * 60
    return start, int(last.timestamp()) // 60 * 60 + 60
