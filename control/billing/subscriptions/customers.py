"""An admin links an organization to a customer at Stripe, where sign-ups and metadata have it wrong."""

import stripe

from control import incidents, journal, sql
from control.billing.client import one
from control.billing.failures import StripeRefused
from control.billing.history import keeping
from control.billing.subscriptions.customer_links import CUSTOMER_CONFLICT, CUSTOMER_UNKNOWN
from control.db import Database
from control.entitlements.subscribed import EntitlementTimeline, follow
from control.journal import Author, Change
from control.moments import moment
from control.organizations.store import OrganizationUnknown


async def link(
    db: Database, client: stripe.StripeClient, org: str, customer: str, now: float, author: Author
) -> list[str]:
    """Makes a customer the organization's main one. What the organization's other customers pay for is still served.
    Returns the other customers of the organization that had it before: they must be looked at again, like the customer
    itself.

    Raises OrganizationUnknown, StripeAway, StripeRefused (StripeMissing), StoreUnavailable."""
    stripe_customer = await one(client, "customers", customer)
    if stripe_customer.get("deleted"):
        raise StripeRefused(f"Stripe no longer has the customer {customer}", "resource_missing")
    async with db.transaction() as connection:
        row = await sql.billing.customer(connection, id=customer)
        before = None if row is None else str(row.org)
        for each in sorted({org, before or org}):  # always in this order, so that two do not wait for each other
            if await sql.organizations.lock(connection, org=each) is None:
                raise OrganizationUnknown(org)
        row = await sql.billing.customer(connection, id=customer)
        if (None if row is None else str(row.org)) != before:
            raise StripeRefused(f"the customer {customer} was linked to an organization meanwhile; try again")
        main = await sql.billing.customer_of(connection, org=org)
        await sql.billing.unset_main(connection, org=org, except_id=customer)
        await sql.billing.make_main(connection, id=customer, org=org, at=moment(now))
        for move in (sql.billing.move_subscriptions, sql.billing.move_invoices, sql.billing.move_entries):
            await move(connection, customer=customer, org=org)
        await keeping.move(connection, customer, org)
        if main is None or main.id != customer or before != org:
            change = Change(
                "organization.customer_linked", org, {"customer": main.id} if main else None, {"customer": customer}
            )
            await journal.record(connection, author, now, [change])
        others: list[str] = []
        if before is not None and before != org:
            await sql.billing.promote(connection, org=before)
            others = [each.id for each in await sql.billing.customers_of(connection, org=before)]
            change = Change("organization.customer_unlinked", before, {"customer": customer}, None)
            await journal.record(connection, author, now, [change])
            if not others:
                await follow(connection, before, EntitlementTimeline(None), now, author)
        for each in [each.id for each in await sql.billing.customers_of(connection, org=org)]:
            await incidents.close(connection, now, CUSTOMER_CONFLICT, each)
        await incidents.close(connection, now, CUSTOMER_UNKNOWN, customer)
    return others
