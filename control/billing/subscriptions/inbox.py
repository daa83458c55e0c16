"""The inbox: events that Stripe sent. They are processed one customer at a time, each until it is done.

What an event does follows from the objects as Stripe has them now, so one look processes all events that wait for a
customer. An event that Stripe refuses for good is given up at once, with an incident. An attempt claims its events for
a while (`CLAIM_SECONDS`); if its process dies, another one takes them over.
"""

import asyncio
import random
from collections import defaultdict
from collections.abc import Sequence
from typing import Protocol

import structlog

from common.backoff import Backoff
from common.clock import Clock, system_clock
from control import incidents, sql, tracing
from control.billing.failures import StripeAway, StripeForbidden, StripeRefused
from control.billing.objects import Object, created_at, customer_of, storable
from control.db import Database, StoreUnavailable
from control.ids import uuid7
from control.moments import moment
from control.sql.webhooks import Event
from quota.ledger import LedgerUnavailable

log = structlog.get_logger()

AT_ONCE = 16  # customers
CLAIMED_AT_ONCE = 500
POLL_SECONDS = 0.5
CLAIM_SECONDS = 30.0
ATTEMPTS_MAX = 40
FLAWS = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, RecursionError)
FLAW_ATTEMPTS_MAX = 3  # of what our own code cannot read: it ends the same way each time, and an admin should know
# 9 attempts in 4 minutes, the others every ten: five hours in all
BACKOFF = Backoff(first_seconds=0.5, max_seconds=600, jitter=0.2)
KEPT_SECONDS = 35 * 86_400  # Stripe keeps its own for 30 days
DROP_EVERY_SECONDS, DROPPED_AT_ONCE = 600.0, 10_000

RESYNC = "quotagate.resync"
"""The type of an event of our own: look at this customer."""
DEAD = "stripe_event_dead"
FORBIDDEN = "stripe_key_refused"


class EventHandler(Protocol):
    async def __call__(self, customer: str | None, events: Sequence[Event]) -> tuple[list[str], list[str]]:
        """Processes events of one customer; returns the ids of those that are done, and of those that mean nothing
        here.

        Raises StripeAway, StripeRefused, StoreUnavailable, LedgerUnavailable."""


class Inbox:
    name = "webhooks"

    def __init__(
        self,
        db: Database,
        handle: EventHandler,
        clock: Clock = system_clock,
        attempts_max: int = ATTEMPTS_MAX,
    ) -> None:
        """`attempts_max`: after so many, an event that Stripe does not let through is given up."""
        self._attempts_max = attempts_max
        self._db = db
        self._handle = handle
        self._clock = clock
        self._arrived = asyncio.Event()
        self._free = asyncio.Semaphore(AT_ONCE)
        self._waiting: dict[str | None, list[Event]] = defaultdict(list)
        self._at_work: dict[str | None, asyncio.Task[None]] = {}

    async def file(self, events: Sequence[Object]) -> list[str]:
        """Files events for later; returns the ids of those that are new. Raises StoreUnavailable."""
        events = [storable(event) for event in events]
        async with self._db.connection() as connection:
            new = await sql.webhooks.receive(
                connection,
                ids=[event["id"] for event in events],
                types=[event["type"] for event in events],
                customers=[customer_of(event) for event in events],
                created_ats=[created_at(event, self._clock()) for event in events],
                payloads=events,
                at=moment(self._clock()),
                traceparent=tracing.traceparent(),
            )
        self._arrived.set()
        return new

    async def resync(self, customer: str) -> None:
        """Files an event that has the customer looked at. Raises StoreUnavailable."""
        event = {"id": f"resync_{uuid7()}", "type": RESYNC, "data": {"object": {"customer": customer}}}
        await self.file([event])

    def wake(self) -> None:
        self._arrived.set()

    async def backlog(self) -> sql.webhooks.Backlog:
        async with self._db.connection() as connection:
            return await sql.webhooks.backlog(connection, at=moment(self._clock()))

    async def run(self) -> None:
        """Until it is cancelled. Raises StoreUnavailable; whoever runs it starts it again."""
        loop = asyncio.get_running_loop()
        drop_at = loop.time()
        try:
            while True:
                self._arrived.clear()
                if not await self.claim():
                    if loop.time() >= drop_at:
                        await self._drop_ended()
                        drop_at = loop.time() + DROP_EVERY_SECONDS
                    try:
                        async with asyncio.timeout(POLL_SECONDS):
                            await self._arrived.wait()
                    except TimeoutError:
                        pass
        finally:
            for task in list(self._at_work.values()):
                task.cancel()
            await asyncio.gather(*self._at_work.values(), return_exceptions=True)

    async def settle(self) -> None:
        """Processes all that is due now: for tests and commands."""
        while await self.claim() or self._at_work:
            await asyncio.gather(*self._at_work.values())

    async def claim(self) -> int:
        """Claims the events that are due, and starts to process them; returns how many."""
        now = self._clock()
        async with self._db.connection() as connection:
            rows = await sql.webhooks.claim(
                connection, at=moment(now), lost_at=moment(now + CLAIM_SECONDS), limit_rows=CLAIMED_AT_ONCE
            )
            claimed = rows
        for row in claimed:
            # Events without a customer do not wait for each other.
            key = row.customer or row.id
            self._waiting[key].append(row)
            if key not in self._at_work:
                self._at_work[key] = asyncio.create_task(self._work(key))
        return len(claimed)

    async def _work(self, key: str | None) -> None:
        try:
            async with self._free:
                while events := self._waiting.pop(key, []):
                    await self._attempt(events[0].customer, events)
        finally:
            self._at_work.pop(key, None)

    async def _attempt(self, customer: str | None, events: list[Event]) -> None:
        try:
            done, ignored = await self._handle_traced(customer, events)
            async with self._db.connection() as connection:
                for ids, outcome in ((done, "done"), (ignored, "ignored")):
                    if ids:
                        at = moment(self._clock())
                        await sql.webhooks.finish(connection, ids=ids, outcome=outcome, at=at)
                if any(event.attempts > 1 for event in events):
                    await sql.webhooks.close_refused(connection, kind=FORBIDDEN, at=moment(self._clock()))
        except StripeRefused as e:
            if e.final:
                log.error("Stripe refuses what events need", customer=customer, events=len(events), reason=str(e))
                await self._failed(events, str(e), attempts_max=0)
            else:
                log.warning("events of Stripe wait", customer=customer, events=len(events), reason=str(e))
                await self._failed(events, str(e), forbidden=isinstance(e, StripeForbidden))
        except (StripeAway, LedgerUnavailable, StoreUnavailable) as e:
            log.warning("events of Stripe wait", customer=customer, events=len(events), reason=str(e))
            await self._failed(events, str(e))
        except Exception as e:
            log.exception("events of Stripe could not be dealt with", customer=customer)
            attempts_max = FLAW_ATTEMPTS_MAX if isinstance(e, FLAWS) else None
            await self._failed(events, f"{type(e).__name__}: {e}", attempts_max=attempts_max)

    async def _handle_traced(self, customer: str | None, events: list[Event]) -> tuple[list[str], list[str]]:
        """In the trace that the events came in."""
        came_in = [event.traceparent for event in events]
        with tracing.span(
            "process webhooks",
            tracing.CONSUMER,
            parents=came_in,
            entry=True,
            quotagate__stripe__customer=customer,
            quotagate__stripe__events=", ".join(sorted({event.type for event in events})),
            quotagate__attempt=max(event.attempts for event in events),
        ):
            return await self._handle(customer, events)

    async def _failed(
        self, events: Sequence[Event], error: str, *, forbidden: bool = False, attempts_max: int | None = None
    ) -> None:
        """`attempts_max`: how many are enough; 0: another would end the same way."""
        attempts_max = self._attempts_max if attempts_max is None else attempts_max
        now, error = self._clock(), error.replace("\x00", "")[:500]
        try:
            async with self._db.transaction() as connection:
                if forbidden:
                    # Trying again does not help, but for who gives the key what it lacks: told at once, not when all
                    # attempts are over.
                    await incidents.open(connection, now, FORBIDDEN, error, None, {"reason": error})
                for event in events:
                    await sql.webhooks.keep_attempt(
                        connection, id=event.id, attempt=event.attempts, at=moment(now), error=error
                    )
                    if event.attempts < attempts_max:
                        at = moment(now + BACKOFF.seconds(event.attempts, random.uniform(-1, 1)))  # noqa: S311  no secret
                        await sql.webhooks.retry(
                            connection, id=event.id, attempts=event.attempts, next_attempt_at=at, error=error
                        )
                    elif await sql.webhooks.give_up(
                        connection, id=event.id, attempts=event.attempts, at=moment(now), error=error
                    ):
                        content = {"event": event.id, "type": event.type, "reason": error}
                        await incidents.open(connection, now, DEAD, event.customer or event.id, None, content)
        except StoreUnavailable as e:
            log.warning("events of Stripe stay claimed", reason=str(e))

    async def _drop_ended(self) -> None:
        before = moment(self._clock() - KEPT_SECONDS)
        async with self._db.connection() as connection:
            await sql.webhooks.drop_ended(connection, before=before, limit_rows=DROPPED_AT_ONCE)
