"""A look: the customers of one organization as Stripe has them now, and what events name beside them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import stripe

from control import sql
from control.billing.client import listed, one, pages, whole
from control.billing.failures import StripeMissing
from control.billing.objects import Object, about_of, id_of
from control.billing.subscriptions.translate import counts, due_at, settles
from control.db import Database
from control.sql.webhooks import Event

RESOURCES = {"invoice": "invoices", "credit_note": "credit_notes", "refund": "refunds", "dispute": "disputes"}
"""Where the API has the objects that are recorded here, by their kind."""


EXPANDED = ["data.schedule", "data.customer", "data.discounts.source.coupon"]
"""Of subscriptions, with those themselves. Stripe expands four levels, so coupons of single items are not among it."""


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


async def look_at(db: Database, client: stripe.StripeClient, customer: str) -> Look:
    """Raises StripeAway, StripeRefused, StoreUnavailable."""
    async with db.connection() as connection:
        number = await sql.billing.next_look(connection)
        row = await sql.billing.customer(connection, id=customer)
        linked = [] if row is None else await sql.billing.customers_of(connection, org=row.org)
    customers: list[Object] = []
    subscriptions: list[Object] = []
    for customer_id in dict.fromkeys([customer, *(each.id for each in linked)]):
        stripe_customer, theirs = await _customer_and_subscriptions(client, customer_id)
        customers.append(stripe_customer)
        subscriptions += theirs
    overdue_since: dict[str, int] = {}
    for subscription in subscriptions:
        if subscription["status"] == "past_due":
            since = await _overdue_since(client, subscription["id"])
            if since is not None:
                overdue_since[subscription["id"]] = since
    return Look(number, customers, subscriptions, overdue_since)


async def _customer_and_subscriptions(client: stripe.StripeClient, customer: str) -> tuple[Object, list[Object]]:
    try:
        # One call where there is a subscription, as there is most often.
        params = {"customer": customer, "status": "all", "expand": EXPANDED}
        subscriptions = await pages(client, "/v1/subscriptions", params)
        stripe_customer = subscriptions[0]["customer"] if subscriptions else await one(client, "customers", customer)
    except StripeMissing:
        stripe_customer = {"id": customer, "deleted": True}
    if stripe_customer.get("deleted"):
        return stripe_customer, []
    for each in subscriptions:
        path, params = "/v1/subscription_items", {"subscription": each["id"]}
        each["items"]["data"] = await whole(client, each["items"], path, params)
    return stripe_customer, subscriptions


async def _overdue_since(client: stripe.StripeClient, subscription: str) -> int | None:
    """When the first of the invoices was due that are open since one was paid."""
    due: list[int] = []
    async for invoice in listed(client, "/v1/invoices", {"subscription": subscription}):
        if settles(invoice):
            break
        due += [due_at(invoice)] if counts(invoice) else []
    return min(due, default=None)


async def objects_of(client: stripe.StripeClient, events: Sequence[Event]) -> list[Object]:
    """The invoices, credit notes, refunds and disputes that events are about, as they are now."""
    objects: list[Object] = []
    wanted: dict[str, str] = {}
    for event in events:
        about = about_of(event.payload)
        kind, object_id = about.get("object"), about.get("id")
        if not object_id:
            continue
        if kind in RESOURCES:
            wanted[object_id] = RESOURCES[kind]
            if kind == "credit_note" and (reduced := id_of(about.get("invoice"))) is not None:
                wanted[reduced] = RESOURCES["invoice"]
        elif kind == "charge":
            objects += await pages(client, "/v1/refunds", {"charge": object_id})
    for object_id, resource in wanted.items():
        try:
            objects.append(await one(client, resource, object_id))
        except StripeMissing:
            objects.append({"object": "deleted", "id": object_id})
    return objects


async def organization_of_checkout(client: stripe.StripeClient, events: Sequence[Event]) -> str | None:
    """The organization that a completed checkout names."""
    for event in events:
        if event.type.startswith("checkout.session."):
            session_id = about_of(event.payload).get("id")
            if session_id is None:
                continue
            try:
                session = await one(client, "checkout/sessions", session_id)
            except StripeMissing:
                continue
            reference = session.get("client_reference_id")
            if session["status"] == "complete" and isinstance(reference, str):
                return reference
    return None


async def payer_of(client: stripe.StripeClient, events: Sequence[Event]) -> str | None:
    """The customer of a refund or dispute, whose payload names only the charge."""
    for event in events:
        about = about_of(event.payload)
        charge = about.get("id") if about.get("object") == "charge" else id_of(about.get("charge"))
        if charge is not None:
            try:
                charged = await one(client, "charges", charge)
            except StripeMissing:
                continue
            if (payer := id_of(charged.get("customer"))) is not None:
                return payer
    return None
