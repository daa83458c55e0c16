"""Converging: what an organization has here becomes what Stripe says of its customer.

The order of events does not matter, since each look sees the newest state. But looks at one customer may overlap, in
this process and in others. So they are numbered when they begin, and a look that began before one that is applied
already is dropped. (What it may have seen later has an event of its own on the way.) Applying holds the organization's
row.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import stripe
import structlog

from common.clock import Clock, system_clock
from control import incidents, sql, tracing
from control.billing.failures import StripeAway
from control.billing.history import keeping
from control.billing.history.timeline import newest_events
from control.billing.objects import Object, about_of, created_at, id_of
from control.billing.overage import closing
from control.billing.overage.revisions import Overage
from control.billing.subscriptions import mirror
from control.billing.subscriptions.customer_links import choose_main, organization_of
from control.billing.subscriptions.customer_look import Look, look_at, objects_of, organization_of_checkout, payer_of
from control.billing.subscriptions.inbox import RESYNC
from control.billing.subscriptions.price_meanings import price_meanings
from control.billing.subscriptions.recorded_objects import notifications_of, record_object
from control.billing.subscriptions.translate import (
    PLANS_SEVERAL,
    PRICE_UNKNOWN,
    SEVERAL,
    WORD_UNKNOWN,
    PriceMeaning,
    translate,
)
from control.db import Connection, Database
from control.entitlements.subscribed import follow
from control.journal import Author
from control.moments import moment
from control.notifications import outbox
from control.settings.control_plane import Stripe as Settings
from control.sql.webhooks import Event

log = structlog.get_logger()

METER_ERRORS = "stripe_meter_errors"
UNREADABLE = "stripe_event_unreadable"

PREFIXES = ("customer.", "subscription_schedule.", "checkout.session.", "invoice.")
MONEY = ("charge.refunded", "charge.refund.", "refund.", "credit_note.", "charge.dispute.")
FLUSHING = frozenset({"invoice.created", "invoice.upcoming"})
SESSION_OVER = frozenset({"checkout.session.completed", "checkout.session.expired"})
HISTORIC = frozenset({"subscription", "customer"})  # an event about one says when it became what it is
LOOKS_MAX = 5  # while other customers of the organization are linked meanwhile
DAY_SECONDS = 86_400


@dataclass(frozen=True, slots=True)
class Applied:
    """The result of a look."""

    org: str | None
    """Whose customer it is; None where nobody knows."""
    changed: bool = False
    """Whether anything that the organization may use has changed."""
    closed: bool = False
    """Whether an item that bills overage is gone."""
    complete: bool = True
    """Whether all customers of the organization were looked at. If not, only the link of the customer was applied."""


class Publishing(Protocol):
    """Brings what is committed to Redis."""

    def wake(self, arrived_at: float | None = None) -> None: ...


class Converger:
    def __init__(
        self,
        db: Database,
        client: stripe.StripeClient,
        publisher: Publishing,
        overage: Overage,
        settings: Settings,
        notify: bool,
        clock: Clock = system_clock,
    ) -> None:
        """`notify`: what the vendor should know of a subscription goes to its own webhook, too."""
        self._db = db
        self._client = client
        self._publisher = publisher
        self._overage = overage
        self._settings = settings
        self._notify = notify
        self._clock = clock

    async def __call__(self, customer: str | None, events: Sequence[Event]) -> tuple[list[str], list[str]]:
        """An `inbox.EventHandler`."""
        relevant = [event for event in events if event.type == RESYNC or event.type.startswith((*PREFIXES, *MONEY))]
        meters = [event for event in events if event.type.startswith("v1.billing.meter.error_report")]
        prices = [event for event in events if event.type.startswith("price.")]
        for event in (*relevant, *prices):
            if not about_of(event.payload):
                # Stripe signed it, so something happened. The payload does not say what.
                await self._open(UNREADABLE, event.id, None, {"event": event.id, "type": event.type})
        for event in meters:
            await self._open(METER_ERRORS, event.id, None, {"event": event.id, "type": event.type})
        if prices and customer is None:
            await self._look_again_at_unknown_prices(prices)
        customer = customer or await payer_of(self._client, relevant)
        if relevant and customer is not None:
            await self.converge(customer, relevant)
        dealt = {event.id for event in (*relevant, *meters, *prices)}
        return list(dealt), [event.id for event in events if event.id not in dealt]

    async def converge(self, customer: str, events: Sequence[Event] = ()) -> str | None:
        """Makes the customer's organization what Stripe says; returns its id, None where nobody knows whose customer it
        is.

        Raises StripeAway, StripeRefused, StoreUnavailable, LedgerUnavailable."""
        objects = await objects_of(self._client, events)
        reference = await organization_of_checkout(self._client, events)
        for _ in range(LOOKS_MAX):
            with tracing.span("look at customer", tracing.CLIENT, peer__service="stripe"):
                look = await look_at(self._db, self._client, customer)
            with tracing.span("converge") as span:
                applied = await self._apply_look(look, reference, events, objects)
                if span is not None:
                    span.attributes |= {"quotagate.org": applied.org or "", "quotagate.changed": applied.changed}
            if applied.complete:
                break
        else:
            raise StripeAway(f"customers of the organization of {customer} come and go")
        if applied.org is None:
            return None
        if applied.changed:
            self._publisher.wake(min((event.received_at.timestamp() for event in events), default=None))
        if applied.closed:
            await self._overage.item_closed(applied.org)
        if any(event.type in FLUSHING for event in events):
            # The invoice is a draft for an hour. Overage that is not reported by then is billed a period later.
            await self._overage.flush(applied.org)
        return applied.org

    async def _apply_look(
        self, look: Look, reference: str | None, events: Sequence[Event], objects: Sequence[Object]
    ) -> Applied:
        """Applies a look in one transaction."""
        now = self._clock()
        prices = await price_meanings(self._db, look, now)
        author = Author("stripe", events[0].id if events else f"look:{look.number}")
        async with self._db.transaction() as connection:
            org = await organization_of(connection, look, reference, now, author)
            if org is None:
                return Applied(None)
            await sql.organizations.lock(connection, org=org)
            looked_at = {each["id"] for each in look.customers}
            linked = {row.id: row.deleted_at for row in await sql.billing.all_customers_of(connection, org=org)}
            if not looked_at <= set(linked) or {each for each, gone in linked.items() if gone is None} - looked_at:
                return Applied(org, complete=False)  # others were linked meanwhile, or somewhere else
            changed = closed = False
            if await sql.billing.applied_look(connection, org=org, look=look.number) is None:
                log.info("a look at Stripe was overtaken by a later one", customer=look.customer["id"])
            else:
                changed, closed = await self._apply(connection, org, look, prices, now, author)
                await keeping.keep(connection, org, _seen(look, prices, events, now), now)
            for stripe_object in objects:
                await record_object(connection, org, look.customer["id"], stripe_object, now, author)
            if self._notify:
                await outbox.add(connection, now, notifications_of(events, org))
            sessions = [about_of(event.payload).get("id") for event in events if event.type in SESSION_OVER]
            await sql.billing.close_sessions(connection, ids=[each for each in sessions if each], at=moment(now))
        return Applied(org, changed, closed)

    async def _apply(
        self,
        connection: Connection,
        org: str,
        look: Look,
        prices: Mapping[str, PriceMeaning],
        now: float,
        author: Author,
    ) -> tuple[bool, bool]:
        """Whether anything that the organization may use has changed, and whether an item of overage is gone."""
        before = list[sql.billing.SeenSubscription]()
        for customer in look.customers:
            rows = await sql.billing.subscriptions_of_customer(connection, customer=customer["id"])
            before += rows
        closed = await closing.file(connection, org, before, look.subscriptions, now)
        for each in look.subscriptions:
            await sql.billing.put_subscription(
                connection,
                id=each["id"],
                org=org,
                customer=id_of(each["customer"]) or "",
                status=each["status"],
                content=mirror.subscription_content(each),
                at=moment(now),
            )
        for customer in look.customers:
            if customer.get("deleted"):
                await sql.billing.delete_customer(connection, id=customer["id"], at=moment(now))
                await sql.billing.end_subscriptions(connection, customer=customer["id"], at=moment(now))
        grace_seconds = self._settings.grace_days * DAY_SECONDS
        reading = translate(look.subscriptions, prices, look.overdue_since, grace_seconds, now)
        await choose_main(connection, org, look, reading, now, author)
        troubles = {(each.kind, each.key): each for each in reading.troubles}
        for each in look.subscriptions:
            for kind in (PRICE_UNKNOWN, PLANS_SEVERAL, WORD_UNKNOWN):
                if (kind, each["id"]) not in troubles:
                    await incidents.close(connection, now, kind, each["id"])
        for customer in look.customers:
            if (SEVERAL, customer["id"]) not in troubles:
                await incidents.close(connection, now, SEVERAL, customer["id"])
        for trouble in reading.troubles:
            await incidents.open(connection, now, trouble.kind, trouble.key, org, trouble.content)
        if reading.keep:
            return False, closed
        prorate = self._settings.upgrade_allowance == "prorated"
        return await follow(connection, org, reading.timeline, now, author, prorate=prorate), closed

    async def _look_again_at_unknown_prices(self, events: Sequence[Event]) -> None:
        """A price that was in no plan may be in one now."""
        async with self._db.connection() as connection:
            rows = await sql.billing.unpriced(connection, kind=PRICE_UNKNOWN)
        for row in rows:
            await self.converge(row)

    async def _open(self, kind: str, key: str, org: str | None, content: Mapping[str, Any]) -> None:
        async with self._db.transaction() as connection:
            await incidents.open(connection, self._clock(), kind, key, org, content)


def _plans_of(prices: Mapping[str, PriceMeaning]) -> dict[str, str]:
    """The plan that a price is the own one of."""
    return {price: meaning.plan for price, meaning in prices.items() if meaning.meter is None}


def _seen(look: Look, prices: Mapping[str, PriceMeaning], events: Sequence[Event], now: float) -> keeping.Seen:
    """What the history is kept of."""
    about = [(about_of(event.payload), created_at(event.payload, now)) for event in events]
    newest = newest_events([(each.get("id"), at) for each, at in about if each.get("object") in HISTORIC])
    at = max((at for _, at in about), default=moment(now))
    return keeping.Seen(look.subscriptions, look.customers, _plans_of(prices), newest, at)
