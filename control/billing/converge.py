"""Converging: a customer as Stripe has it now -> what its organization has here.

There is no order to keep among events: each look sees the newest state. Looks of one customer may overlap, though, in
this process and in others; they are numbered as they begin, and one that began earlier than one that is applied already
is dropped (what it may have seen later has an event of its own on the way). Applying holds the organization's row.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import stripe
import structlog

from common.clock import Clock, system_clock
from control import incidents, journal, sql
from control.billing import closing, failed_payments, mirror
from control.billing.client import listed, one, pages, whole
from control.billing.failures import StripeAway, StripeMissing
from control.billing.inbox import RESYNC
from control.billing.objects import Object, about_of, created_at, id_of
from control.billing.overage import Overage
from control.billing.translate import (
    LIVE,
    PLANS_SEVERAL,
    PRICE_UNKNOWN,
    SEVERAL,
    WORD_UNKNOWN,
    Sold,
    Translation,
    counts,
    due_at,
    read,
    settles,
)
from control.db import Connection, Database
from control.entitlements.publish import Publisher
from control.entitlements.subscribed import follow
from control.ids import uuid7_of
from control.journal import Action, Author, Change
from control.moments import moment
from control.notifications import outbox
from control.notifications.outbox import Notification
from control.settings import Stripe as Settings
from control.sql.webhooks import Event
from quota.keys import is_org

log = structlog.get_logger()

ORG = "quotagate_org"
"""The metadata field of customers and subscriptions that names the organization."""
PLAN = "quotagate_plan"
"""The metadata field of a price that was made by hand: the plan it sells."""

CUSTOMER_UNKNOWN = "stripe_customer_unknown"
CUSTOMER_CONFLICT = "stripe_customer_conflict"
DISPUTE = "stripe_dispute"
METER_ERRORS = "stripe_meter_errors"
UNREADABLE = "stripe_event_unreadable"

PREFIXES = ("customer.", "subscription_schedule.", "checkout.session.", "invoice.")
MONEY = ("charge.refunded", "charge.refund.", "refund.", "credit_note.", "charge.dispute.")
MIRRORED = {"invoice": "invoices", "credit_note": "credit_notes", "refund": "refunds", "dispute": "disputes"}
FLUSHING = frozenset({"invoice.created", "invoice.upcoming"})
SESSION_OVER = frozenset({"checkout.session.completed", "checkout.session.expired"})
LOOKS_MAX = 5  # while other customers of the organization are linked meanwhile
DAY_SECONDS = 86_400


@dataclass(frozen=True, slots=True)
class Look:
    """Customers of one organization as Stripe had them when they were looked at."""

    number: int
    customers: Sequence[Object]
    """The one that was asked for first; then the others of its organization, as far as they were known."""
    subscriptions: list[Object]
    overdue_since: Mapping[str, int]
    """Of subscriptions that are past due: since when they owe."""

    @property
    def customer(self) -> Object:
        return self.customers[0]


@dataclass(frozen=True, slots=True)
class Applied:
    """What came of a look."""

    org: str | None
    """Whose customer it is; None where nobody knows."""
    changed: bool = False
    """Something of what the organization may use is another."""
    closed: bool = False
    """An item that bills overage is gone."""
    complete: bool = True
    """All customers of the organization were looked at. Else nothing was applied but whose customer it is."""


class Converger:
    def __init__(
        self,
        db: Database,
        client: stripe.StripeClient,
        publisher: Publisher,
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
        known = [event for event in events if event.type == RESYNC or event.type.startswith((*PREFIXES, *MONEY))]
        meters = [event for event in events if event.type.startswith("v1.billing.meter.error_report")]
        prices = [event for event in events if event.type.startswith("price.")]
        for event in (*known, *prices):
            if not about_of(event.payload):
                # It was signed by Stripe, and something happened; what, nobody can say from here.
                await self._open(UNREADABLE, event.id, None, {"event": event.id, "type": event.type})
        for event in meters:
            await self._open(METER_ERRORS, event.id, None, {"event": event.id, "type": event.type})
        if prices and customer is None:
            await self._look_again_at_unknown_prices(prices)
        customer = customer or await self._payer(known)
        if known and customer is not None:
            await self.converge(customer, known)
        dealt = {event.id for event in (*known, *meters, *prices)}
        return list(dealt), [event.id for event in events if event.id not in dealt]

    async def converge(self, customer: str, events: Sequence[Event] = ()) -> str | None:
        """Has the customer's organization be what Stripe says; its id, None where nobody knows whose it is.

        Raises StripeAway, StripeRefused, StoreUnavailable, LedgerUnavailable."""
        mirrored = await self._mirrored(customer, events)
        reference = await self._reference(events)
        for _ in range(LOOKS_MAX):
            look = await self._look(customer)
            applied = await self._applied(look, reference, events, mirrored)
            if applied.complete:
                break
        else:
            raise StripeAway(f"customers of the organization of {customer} come and go")
        if applied.org is None:
            return None
        if applied.changed:
            self._publisher.wake()
        if applied.closed:
            await self._overage.closed(applied.org)
        if any(event.type in FLUSHING for event in events):
            # The invoice is a draft for an hour: what is not told by then is billed a period later.
            await self._overage.flush(applied.org)
        return applied.org

    async def _look(self, customer: str) -> Look:
        async with self._db.connection() as connection:
            number = await sql.billing.next_look(connection)
            row = await sql.billing.customer(connection, id=customer)
            known = [] if row is None else [each.id for each in await sql.billing.customers_of(connection, org=row.org)]
        customers: list[Object] = []
        subscriptions: list[Object] = []
        for each in dict.fromkeys([customer, *known]):
            found, theirs = await self._look_at(each)
            customers.append(found)
            subscriptions += theirs
        overdue: dict[str, int] = {}
        for subscription in subscriptions:
            if subscription["status"] == "past_due":
                due: list[int] = []
                async for invoice in listed(self._client, "/v1/invoices", {"subscription": subscription["id"]}):
                    if settles(invoice):
                        break
                    due += [due_at(invoice)] if counts(invoice) else []
                if due:
                    overdue[subscription["id"]] = min(due)
        return Look(number, customers, subscriptions, overdue)

    async def _look_at(self, customer: str) -> tuple[Object, list[Object]]:
        """A customer, and its subscriptions."""
        client = self._client
        try:
            # One call where there is a subscription, as there is most often.
            params = {"customer": customer, "status": "all", "expand": ["data.schedule", "data.customer"]}
            subscriptions = await pages(client, "/v1/subscriptions", params)
            found = subscriptions[0]["customer"] if subscriptions else await one(client, "customers", customer)
        except StripeMissing:
            found = {"id": customer, "deleted": True}
        if found.get("deleted"):
            return found, []
        for each in subscriptions:
            path, params = "/v1/subscription_items", {"subscription": each["id"]}
            each["items"]["data"] = await whole(client, each["items"], path, params)
        return found, subscriptions

    async def _applied(
        self, look: Look, reference: str | None, events: Sequence[Event], mirrored: Sequence[Object]
    ) -> Applied:
        """Has what was seen be so here, in one transaction."""
        now = self._clock()
        prices = await self._prices(look)
        author = Author("stripe", events[0].id if events else f"look:{look.number}")
        async with self._db.transaction() as connection:
            org = await self._organization(connection, look, reference, now, author)
            if org is None:
                return Applied(None)
            await sql.organizations.lock(connection, org=org)
            seen = {each["id"] for each in look.customers}
            linked = {row.id: row.deleted_at for row in await sql.billing.all_customers_of(connection, org=org)}
            if not seen <= set(linked) or {each for each, gone in linked.items() if gone is None} - seen:
                return Applied(org, complete=False)  # others were linked meanwhile, or somewhere else
            changed = closed = False
            if await sql.billing.applied_look(connection, org=org, look=look.number) is None:
                log.info("a look at Stripe was overtaken by a later one", customer=look.customer["id"])
            else:
                changed, closed = await self._apply(connection, org, look, prices, now, author)
            await self._mirror(connection, org, look.customer["id"], mirrored, events, now, author)
            sessions = [about_of(event.payload).get("id") for event in events if event.type in SESSION_OVER]
            await sql.billing.close_sessions(connection, ids=[each for each in sessions if each], at=moment(now))
        return Applied(org, changed, closed)

    async def _prices(self, look: Look) -> dict[str, Sold]:
        """What the subscriptions' prices stand for, those of phases to come included."""
        found: dict[str, Object | None] = {}
        for each in look.subscriptions:
            schedule = each.get("schedule")
            phases = schedule["phases"] if isinstance(schedule, dict) else []
            for item in (*each["items"]["data"], *(item for phase in phases for item in phase["items"])):
                price = item["price"]
                found[id_of(price) or ""] = price if isinstance(price, dict) else found.get(id_of(price) or "")
        async with self._db.connection() as connection:
            rows = await sql.billing.prices(connection, ids=list(found))
            sold = {row.id: Sold(row.plan_id, row.code, row.version, row.meter) for row in rows}
            for price_id, price in found.items():
                # One that was made by hand, for a plan that is sold by people, names its plan.
                code = ((price or {}).get("metadata") or {}).get(PLAN) if price_id not in sold else None
                plan = await sql.billing.newest_plan(connection, code=code) if code else None
                if plan is not None and price is not None:
                    interval = (price.get("recurring") or {}).get("interval", "month")
                    sold[price_id] = Sold(plan.id, plan.code, plan.version, None)
                    if interval in ("month", "year"):
                        at = moment(self._clock())
                        await sql.billing.adopt_price(
                            connection, id=price_id, plan_id=plan.id, billing_interval=interval, at=at
                        )
        return sold

    async def _organization(
        self, connection: Connection, look: Look, reference: str | None, now: float, author: Author
    ) -> str | None:
        """Whose customer it is; one that says so for the first time is linked."""
        customer = look.customer["id"]
        row = await sql.billing.customer(connection, id=customer)
        if row is not None:
            return row.org
        named = (look.customer, *look.subscriptions)
        candidates = [reference, *((each.get("metadata") or {}).get(ORG) for each in named)]
        org = next((each for each in candidates if isinstance(each, str) and is_org(each)), None)
        if org is None:
            if look.subscriptions:
                content = {"customer": customer, "subscriptions": [each["id"] for each in look.subscriptions]}
                await incidents.open(connection, now, CUSTOMER_UNKNOWN, customer, None, content)
            return None
        name = look.customer.get("name") or org
        if await sql.organizations.insert(connection, id=org, name=name[:200], created_at=moment(now)):
            await journal.record(connection, author, now, [Change("organization.created", org, None, {"name": name})])
        # Held from here on: of two looks at one new customer the second waits, and finds it linked.
        await sql.organizations.lock(connection, org=org)
        linked = await sql.billing.link_customer(connection, id=customer, org=org, at=moment(now))
        if linked is None:
            row = await sql.billing.customer(connection, id=customer)
            return None if row is None else row.org
        change = Change("organization.customer_linked", org, None, {"customer": customer})
        await journal.record(connection, author, now, [change])
        await incidents.close(connection, now, CUSTOMER_UNKNOWN, customer)
        if not linked.main:
            main = await sql.billing.customer_of(connection, org=org)
            content = {"customer": customer, "org": org, "linked": main.id if main else None}
            await incidents.open(connection, now, CUSTOMER_CONFLICT, customer, org, content)
        return org

    async def _apply(
        self, connection: Connection, org: str, look: Look, prices: Mapping[str, Sold], now: float, author: Author
    ) -> tuple[bool, bool]:
        """Whether anything of what the organization may use is another, and whether an item of overage is gone."""
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
                content=mirror.subscription(each),
                at=moment(now),
            )
        for customer in look.customers:
            if customer.get("deleted"):
                await sql.billing.delete_customer(connection, id=customer["id"], at=moment(now))
                await sql.billing.end_subscriptions(connection, customer=customer["id"], at=moment(now))
        grace_seconds = self._settings.grace_days * DAY_SECONDS
        reading = read(look.subscriptions, prices, look.overdue_since, grace_seconds, now)
        await self._have_a_customer(connection, org, look, reading, now, author)
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

    async def _have_a_customer(
        self, connection: Connection, org: str, look: Look, reading: Translation, now: float, author: Author
    ) -> None:
        """Of several customers the one that pays is the main one, unless the main one pays, too."""
        known = await sql.billing.customers_of(connection, org=org)
        if len(known) < 2:
            for each in look.customers:
                await incidents.close(connection, now, CUSTOMER_CONFLICT, each["id"])
        main = next((row.id for row in known if row.main), None)
        paying = {each["id"]: id_of(each["customer"]) for each in look.subscriptions if each["status"] in LIVE}
        pays = None if reading.timeline.now is None else paying.get(reading.timeline.now.subscription)
        if main is None:
            main = await sql.billing.promote(connection, org=org)
        if pays is not None and main is not None and main not in paying.values():
            await sql.billing.set_aside(connection, org=org, except_id=pays)
            await sql.billing.make_main(connection, id=pays, org=org, at=moment(now))
            change = Change("organization.customer_linked", org, {"customer": main}, {"customer": pays})
            await journal.record(connection, author, now, [change])

    async def _mirrored(self, customer: str, events: Sequence[Event]) -> list[Object]:
        """The invoices and ledger entries that events tell of, as they are now."""
        found: list[Object] = []
        wanted: dict[str, str] = {}
        for event in events:
            about = about_of(event.payload)
            kind, object_id = about.get("object"), about.get("id")
            if not object_id:
                continue
            if kind in MIRRORED:
                wanted[object_id] = MIRRORED[kind]
                if kind == "credit_note" and (reduced := id_of(about.get("invoice"))) is not None:
                    wanted[reduced] = MIRRORED["invoice"]
            elif kind == "charge":
                found += await pages(self._client, "/v1/refunds", {"charge": object_id})
        for object_id, resource in wanted.items():
            try:
                found.append(await one(self._client, resource, object_id))
            except StripeMissing:
                found.append({"object": "deleted", "id": object_id})
        return found

    async def _mirror(
        self,
        connection: Connection,
        org: str,
        customer: str,
        mirrored: Sequence[Object],
        events: Sequence[Event],
        now: float,
        author: Author,
    ) -> None:
        for found in mirrored:
            if found["object"] == "deleted" or found.get("deleted"):
                await sql.billing.drop_invoice(connection, id=found["id"])
                await incidents.close(connection, now, failed_payments.FAILED, found["id"])
            elif found["object"] == "invoice":
                row = mirror.invoice(found, org)
                before = await sql.billing.put_invoice(connection, **row)
                await failed_payments.tell(connection, now, org, found)
                if before != row["status"]:
                    after = {name: row[name] for name in ("id", "status", "total_minor", "currency")}
                    action = cast("Action", f"invoice.{row['status']}")
                    change = Change(action, org, {"status": before} if before else None, after)
                    await journal.record(connection, author, now, [change])
            else:
                row = mirror.entry(found, org, customer)
                if await sql.billing.put_entry(connection, **row):
                    after = {name: row[name] for name in ("id", "kind", "amount_minor", "currency", "status")}
                    action = cast("Action", f"{row['kind']}.recorded")
                    await journal.record(connection, author, now, [Change(action, org, None, after)])
                    if row["kind"] == "dispute":
                        await self._dispute(connection, org, row, now)
        told = [_notification(event, org) for event in events if event.type in NOTIFIED]
        if self._notify and told:
            await outbox.add(connection, now, told)

    async def _dispute(self, connection: Connection, org: str, row: Mapping[str, Any], now: float) -> None:
        if row["status"] in ("won", "lost", "warning_closed", "prevented"):
            await incidents.close(connection, now, DISPUTE, row["id"])
        else:
            content = {name: row[name] for name in ("customer", "amount_minor", "currency", "status", "reason")}
            await incidents.open(connection, now, DISPUTE, row["id"], org, content)

    async def _reference(self, events: Sequence[Event]) -> str | None:
        """The organization that a completed checkout is of."""
        for event in events:
            if event.type.startswith("checkout.session."):
                session_id = about_of(event.payload).get("id")
                if session_id is None:
                    continue
                try:
                    found = await one(self._client, "checkout/sessions", session_id)
                except StripeMissing:
                    continue
                reference = found.get("client_reference_id")
                if found["status"] == "complete" and isinstance(reference, str):
                    return reference
        return None

    async def _payer(self, events: Sequence[Event]) -> str | None:
        """The customer of a refund or dispute, whose payload names only the charge."""
        for event in events:
            about = about_of(event.payload)
            charge = about.get("id") if about.get("object") == "charge" else id_of(about.get("charge"))
            if charge is not None:
                try:
                    found = await one(self._client, "charges", charge)
                except StripeMissing:
                    continue
                if (payer := id_of(found.get("customer"))) is not None:
                    return payer
        return None

    async def _look_again_at_unknown_prices(self, events: Sequence[Event]) -> None:
        """A price that was in no plan may be in one now."""
        async with self._db.connection() as connection:
            rows = await sql.billing.unpriced(connection, kind=PRICE_UNKNOWN)
        for row in rows:
            await self.converge(row)

    async def _open(self, kind: str, key: str, org: str | None, content: Mapping[str, Any]) -> None:
        async with self._db.transaction() as connection:
            await incidents.open(connection, self._clock(), kind, key, org, content)


NOTIFIED = {
    "customer.subscription.trial_will_end": "subscription.trial_will_end",
    "invoice.payment_failed": "invoice.payment_failed",
    "invoice.payment_action_required": "invoice.payment_action_required",
    "charge.dispute.created": "dispute.created",
}
"""What the vendor's own system is told of, by the event's type."""


def _notification(event: Event, org: str) -> Notification:
    about = about_of(event.payload)
    data: dict[str, Any] = {"org": org, "stripe_event": event.id, "object": about.get("id")}
    if isinstance(url := about.get("hosted_invoice_url"), str) and url:
        data["hosted_invoice_url"] = url
    # The event's own id: it may be dealt with again after a crash, or be replayed.
    at = created_at(event.payload, 0).timestamp()
    return Notification(NOTIFIED[event.type], org, data, uuid7_of(event.id, at))
