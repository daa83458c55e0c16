"""Overage: what an organization used beyond its plan is reported to Stripe, which bills each unit once (`sinks.py`).

The counter of a period is exact and grows. What Stripe knows is the sum of the period's revisions. A new revision holds
the difference, and is frozen with its identifier and its time before it is sent: however often it is sent, Stripe takes
it once. A crash leaves a counter without its revision, or a revision that is not sent; the next round finds both. Late
usage and corrections become further revisions. A revision that Stripe refuses for good is given up at once, with an
incident, and is sent again when an admin asks for it.

https://docs.stripe.com/billing/subscriptions/usage-based/recording-usage-api
"""

import asyncio
import hashlib
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum

import stripe
import structlog

from common.clock import Clock, system_clock
from control import incidents, journal, sql
from control.billing.failures import StripeAway, StripeRefused
from control.billing.overage import closing
from control.billing.overage.sinks import sink_of
from control.db import Database
from control.entitlements.schedule import joined_schedule
from control.ids import uuid7
from control.journal import Author, Change
from control.moments import moment, rfc3339
from control.settings.control_plane import Stripe as Settings
from control.sql.overage import Backlog
from quota.periods import Schedule

log = structlog.get_logger()

LOOK_BACK_SECONDS = 70 * 86_400
TAKEN_SECONDS = 34 * 86_400  # https://docs.stripe.com/api/billing/meter-event/create: 35 days; one to get there
DRAFT_SECONDS = 50 * 60  # an invoice stays a draft for about an hour after its period, and counts usage until then
AT_ONCE = 8  # customers; of one customer and meter Stripe takes one event at a time
TELL_APART_SECONDS = 15 * 60  # Stripe adds events up some time after it took them
COMPARE_EVERY_SECONDS = 86_400.0
RETRY_SECONDS = 30.0
CLOSE_AHEAD_SECONDS = 60  # Stripe's invoice may come when the period is not quite over by our clock
CLOSE_EVERY_SECONDS = 600.0  # several times while a renewal's invoice is a draft
CAUGHT_UP_SECONDS, CAUGHT_UP_POLL_SECONDS = 5.0, 0.05
SUMMED_SECONDS, SUMMED_POLL_SECONDS = 10.0, 0.25

IDENTIFIER_MAX, DIGEST_CHARACTERS = 100, 48  # https://docs.stripe.com/api/billing/meter-event/create

REFUSED = "overage_refused"
LATE = "overage_late"
DIFFERS = "overage_differs"


@dataclass(frozen=True, slots=True)
class Timing:
    """The time that a revision is told for."""

    at: int
    late: bool
    """Its period's invoice is final: it is billed with the next."""


def timing_of(
    period_start: int, schedule: Schedule | None, now: float, back_seconds: int = 0, counted_from: int = 0
) -> Timing:
    """A time inside the period, so that the revision is billed with it, as long as the period's invoice can take it.
    Pure.

    `back_seconds`: so many seconds earlier, if that is inside the period, too. `counted_from`: the first second that
    the billing item counts; it does not count the second in which it was added."""
    period = schedule.period_at(period_start) if schedule is not None else None
    end = period.end if period is not None else period_start + 1
    if now < end:
        # One that came with the period counts all of it.
        first = counted_from if period_start + 1 < counted_from < end else period_start
        return Timing(max(first, int(now) - back_seconds), late=False)
    if now < end + DRAFT_SECONDS:
        return Timing(end - 1, late=False)
    return Timing(int(now), late=True)


def is_over(period_start: int, schedule: Schedule | None, now: float) -> bool:
    """Whether that period is over. Pure."""
    period = schedule.period_at(period_start) if schedule is not None else None
    return period is None or now >= period.end


def identifier_of(meter: str, org: str, period_start: int, revision: int) -> str:
    """The identifier of a revision, by which Stripe recognizes it: the same each time. A digest replaces meter and
    organization if they are longer than Stripe allows."""
    what = f"{meter}:{org}"
    which = f":{period_start}:{revision}"
    if len(what) + len(which) > IDENTIFIER_MAX:
        what = hashlib.sha256(what.encode()).hexdigest()[:DIGEST_CHARACTERS]
    return what + which


class Sent(Enum):
    """The outcome of sending a revision."""

    ARRIVED = "arrived"
    AWAY = "away"
    """Stripe did not answer: it is sent again."""
    REFUSED = "refused"
    """An incident tells; it is sent again, as somebody may have mended what was wrong."""
    GIVEN_UP = "given up"
    """An incident tells; Stripe would refuse it again, so an admin decides when it is sent once more (`resend`)."""


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
        self._sink = sink_of(settings, db, client)
        self._settings = settings
        self._clock = clock
        self._woken = asyncio.Event()

    @property
    def at_close(self) -> bool:
        """Whether a period's overage is told when the period is over."""
        return self._sink.at_close

    async def run(self) -> None:
        """Until it is cancelled. Raises StoreUnavailable; whoever runs it starts it again."""
        loop = asyncio.get_running_loop()
        compare_at = loop.time() + COMPARE_EVERY_SECONDS / 24
        while True:
            self._woken.clear()
            await self.freeze()
            pause = self._settings.overage_every_seconds
            if self._sink.at_close:
                pause = min(pause, CLOSE_EVERY_SECONDS)
            if not await self.send():
                pause = min(pause, RETRY_SECONDS)
            if loop.time() >= compare_at:
                await self.compare()
                compare_at = loop.time() + COMPARE_EVERY_SECONDS
            again = await self.check_closed()
            with suppress(TimeoutError):
                async with asyncio.timeout(pause if again is None else min(pause, again)):
                    await self._woken.wait()

    async def check_closed(self, org: str | None = None) -> float | None:
        """Looks whether overage was billed whose item is gone; when to look again. Raises StoreUnavailable."""
        try:
            return await closing.check(self._db, self._client, self._clock, org)
        except (StripeAway, StripeRefused) as e:
            log.warning("whether overage was billed is not known yet", org=org, reason=str(e))
            return RETRY_SECONDS

    async def item_closed(self, org: str) -> None:
        """An item that billed overage of the organization is gone. Raises StoreUnavailable."""
        await self.check_closed(org)
        self._woken.set()

    async def flush(self, org: str, back_seconds: int = 0, *, running: bool = False) -> None:
        """Reports all overage of the organization until now. What Stripe refuses becomes an incident.

        Raises StripeAway, StoreUnavailable."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        # Until all that was in the streams when this began is in the counters.
        while True:
            # Taken before the lag is: what is older than it was there when this began.
            passed = loop.time() - started
            lag = await self._lag_seconds()
            if not lag or lag < passed:
                break
            if passed > CAUGHT_UP_SECONDS:
                raise StripeAway("the writer is behind, so overage is not known yet")
            await asyncio.sleep(CAUGHT_UP_POLL_SECONDS)
        await self.freeze(org, back_seconds, running=running)
        if Sent.AWAY in await self._sent(org):
            raise StripeAway(f"overage of {org} is not told yet")

    async def flush_before_an_end(self, org: str) -> None:
        """The same, before an item that bills overage ends. Stripe then bills what it has added up, and it adds up a
        while after a report. This waits for that, but not for long: what is missing on the invoice is found later
        (`closing`).

        Raises StripeAway, StoreUnavailable."""
        # For the second before, as that in which an item goes may be no more of it.
        await self.flush(org, back_seconds=1, running=True)
        loop = asyncio.get_running_loop()
        until = loop.time() + SUMMED_SECONDS
        while not await self._summed(org):
            if loop.time() > until:
                log.warning("Stripe has not added up yet what it was told", org=org)
                return
            await asyncio.sleep(SUMMED_POLL_SECONDS)

    async def freeze(self, org: str | None = None, back_seconds: int = 0, *, running: bool = False) -> int:
        """Makes revisions of what Stripe does not know; returns how many. `running`: also of current periods, if the
        sink normally waits for their end."""
        now, author = self._clock(), Author("overage", str(uuid7()))
        async with self._db.transaction() as connection:
            await sql.overage.lock_freezing(connection)
            since = moment(max(0, now - LOOK_BACK_SECONDS))
            rows = await sql.overage.unreported(connection, since=since, org=org)
            for row in rows:
                revision, units = row.revision + 1, row.overage - row.reported
                start = int(row.period_start.timestamp())
                schedule = joined_schedule(row)
                if self._sink.at_close and not running and not is_over(start, schedule, now + CLOSE_AHEAD_SECONDS):
                    continue
                when = timing_of(start, schedule, now, back_seconds, int(row.counted_from or 0))
                identifier = identifier_of(row.meter, row.org, start, revision)
                await sql.overage.freeze(
                    connection,
                    org=row.org,
                    period_start=row.period_start,
                    meter=row.meter,
                    revision=revision,
                    units=units,
                    customer=row.customer,
                    event_name=row.event_name,
                    identifier=identifier,
                    event_at=moment(when.at),
                    at=moment(now),
                )
                content = {"meter": row.meter, "period_start": rfc3339(start), "units": units, "late": when.late}
                change = Change("overage.frozen", row.org, None, {"identifier": identifier, **content})
                await journal.record(connection, author, now, [change])
                if when.late:
                    await incidents.open(connection, now, LATE, f"{row.org}:{start}", row.org, content)
        return len(rows)

    async def send(self, org: str | None = None) -> bool:
        """Sends what is frozen and not given up; whether none of it waits. Raises StoreUnavailable."""
        return await self._sent(org) <= {Sent.ARRIVED, Sent.GIVEN_UP}

    async def resend(self, org: str, author: Author) -> int:
        """Sends revisions again that Stripe refused for good; returns how many. A revision whose time Stripe no longer
        accepts is reported for now, and billed with the current period.

        Raises StoreUnavailable."""
        now = self._clock()
        async with self._db.transaction() as connection:
            rows = await sql.overage.resend(
                connection, org=org, at=moment(now), too_old=moment(max(0, now - TAKEN_SECONDS))
            )
            again = sorted(rows)
            if again:
                change = Change("overage.resent", org, None, {"identifiers": again})
                await journal.record(connection, author, now, [change])
        self._woken.set()
        return len(again)

    async def _sent(self, org: str | None) -> set["Sent"]:
        """What became of what is frozen."""
        async with self._db.connection() as connection:
            rows = await sql.overage.unsent(connection, org=org)
        by_customer: Mapping[tuple[str, str], list[sql.overage.Unsent]] = defaultdict(list)
        for row in rows:
            by_customer[row.customer, row.event_name].append(row)
        free = asyncio.Semaphore(AT_ONCE)

        async def in_turn(waiting: Sequence[sql.overage.Unsent]) -> Sent:
            given_up = set()
            async with free:
                for row in waiting:
                    of = (row.org, row.period_start, row.meter)
                    if row.units < 0 and of in given_up:
                        continue  # it waits with what it takes off from
                    became = await self._send(row)
                    if became is Sent.GIVEN_UP:
                        given_up.add(of)
                    elif became is not Sent.ARRIVED:
                        return became
            return Sent.GIVEN_UP if given_up else Sent.ARRIVED

        return set(await asyncio.gather(*map(in_turn, by_customer.values())))

    async def backlog(self) -> Backlog:
        """What is frozen, and not accepted yet."""
        async with self._db.connection() as connection:
            return await sql.overage.backlog(connection)

    async def compare(self) -> int:
        """Compares what Stripe was told with what it has added up; how many periods differ.

        Raises StripeAway, StripeRefused, StoreUnavailable."""
        now, differing = self._clock(), 0
        async with self._db.connection() as connection:
            since, until = moment(max(0, now - LOOK_BACK_SECONDS)), moment(now - TELL_APART_SECONDS)
            rows = await sql.overage.totals(connection, since=since, until=until, org=None)
        for row in rows:
            sent, summed = await self._sink.sent_and_summed(row, rows)
            key = f"{row.org}:{int(row.period_start.timestamp())}:{row.meter}"
            async with self._db.transaction() as connection:
                if summed == sent:
                    await incidents.close(connection, now, DIFFERS, key)
                else:
                    differing += 1
                    content = {"meter": row.meter, "told": sent, "stripe": summed}
                    await incidents.open(connection, now, DIFFERS, key, row.org, content)
        return differing

    async def _summed(self, org: str) -> bool:
        """Whether Stripe has added up what it was told lately."""
        now = self._clock()
        async with self._db.connection() as connection:
            since, until = moment(max(0, now - LOOK_BACK_SECONDS)), moment(now + 1)
            rows = await sql.overage.totals(connection, since=since, until=until, org=org)
        lately = [row for row in rows if row.sent_at.timestamp() > now - TELL_APART_SECONDS]
        for row in lately:
            sent, summed = await self._sink.sent_and_summed(row, rows)
            if sent != summed:
                return False
        return True

    async def _send(self, row: sql.overage.Unsent) -> "Sent":
        try:
            await self._sink.send(row)
        except StripeAway as e:
            log.warning("overage waits for Stripe", org=row.org, reason=str(e))
            return Sent.AWAY
        except StripeRefused as e:
            await self._refused(row, str(e), final=e.final)
            return Sent.GIVEN_UP if e.final else Sent.REFUSED
        async with self._db.transaction() as connection:
            now = self._clock()
            await sql.overage.sent(connection, identifier=row.identifier, at=moment(now))
            await incidents.close(connection, now, REFUSED, row.identifier)
        return Sent.ARRIVED

    async def _refused(self, row: sql.overage.Unsent, reason: str, *, final: bool) -> None:
        log.error("Stripe refuses overage", org=row.org, identifier=row.identifier, final=final, reason=reason)
        content = {"units": row.units, "meter": row.meter, "reason": reason, "given_up": final}
        now = self._clock()
        async with self._db.transaction() as connection:
            if final:
                await sql.overage.give_up(connection, identifier=row.identifier, at=moment(now))
            await incidents.open(connection, now, REFUSED, row.identifier, row.org, content)
