"""Which organization a customer of Stripe's belongs to, as Stripe says, and which of its customers is the main one."""

from control import incidents, journal, sql
from control.billing.objects import id_of
from control.billing.subscription_status import LIVE
from control.billing.subscriptions.customer_look import Look
from control.billing.subscriptions.translate import Translation
from control.db import Connection
from control.journal import Author, Change
from control.moments import moment
from quota.keys import is_org

ORG = "quotagate_org"
"""The metadata field of customers and subscriptions that names the organization."""

CUSTOMER_UNKNOWN = "stripe_customer_unknown"
CUSTOMER_CONFLICT = "stripe_customer_conflict"


async def organization_of(
    connection: Connection, look: Look, reference: str | None, now: float, author: Author
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


async def choose_main(
    connection: Connection, org: str, look: Look, reading: Translation, now: float, author: Author
) -> None:
    """Of several customers the one that pays is the main one, unless the main one pays, too."""
    customers = await sql.billing.customers_of(connection, org=org)
    if len(customers) < 2:
        for each in look.customers:
            await incidents.close(connection, now, CUSTOMER_CONFLICT, each["id"])
    main = next((row.id for row in customers if row.main), None)
    paying = {each["id"]: id_of(each["customer"]) for each in look.subscriptions if each["status"] in LIVE}
    pays = None if reading.timeline.now is None else paying.get(reading.timeline.now.subscription)
    if main is None:
        main = await sql.billing.promote(connection, org=org)
    if pays is not None and main is not None and main not in paying.values():
        await sql.billing.unset_main(connection, org=org, except_id=pays)
        await sql.billing.make_main(connection, id=pays, org=org, at=moment(now))
        change = Change("organization.customer_linked", org, {"customer": main}, {"customer": pays})
        await journal.record(connection, author, now, [change])
