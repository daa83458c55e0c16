"""Grace runs from when an invoice was due, and no old invoice takes it away from who is in good standing."""

from typing import Any
from uuid import uuid4

from control.billing.client import ask
from control.billing.subscriptions.translate import counts, due_at, settles
from quota.model import Status
from tests.control.billing.shop import DAY, Shop

Object = dict[str, Any]


def stripe(shop: Shop) -> Any:
    """Stripe's dashboard."""
    assert shop.context.billing is not None
    return shop.context.billing.client.v1


async def invoiced(shop: Shop, org: str, days_until_due: int) -> tuple[str, str]:
    """A customer that is sent invoices; the subscription, and the customer."""
    async with shop.context.db.connection() as connection:
        query = (
            "SELECT s.id FROM stripe_price s JOIN plan ON plan.id = s.plan_id WHERE plan.code = 'starter'"
            " AND plan.superseded_at IS NULL AND s.billing_interval = 'month'"
        )
        price = await connection.fetchval(query)
    params = {"metadata": {"quotagate_org": org}, "payment_method": "pm_card_visa"}
    customer = await ask(stripe(shop).customers.create_async(params))
    made = await ask(
        stripe(shop).subscriptions.create_async(
            {
                "customer": customer["id"],
                "items": [{"price": price}],
                "collection_method": "send_invoice",
                "days_until_due": days_until_due,
            }
        )
    )
    await shop.settled()
    return made["id"], customer["id"]


async def looked_at(shop: Shop, customer: str) -> None:
    assert shop.context.billing is not None
    await shop.context.billing.inbox.resync(customer)
    await shop.settled()


def aged(shop: Shop, seconds: int) -> None:
    """Stripe's past is so much longer ago: its clock stands where ours is."""
    account = shop.double.account
    account.advance_to(account.clock.now() + seconds)
    for kind in ("invoice", "subscription"):
        for each in account.find(kind):
            _earlier(each, seconds)
    account.clock.offset_seconds -= seconds


def _earlier(value: Any, seconds: int) -> None:
    """Moves all times in an object."""
    for name, inner in value.items() if isinstance(value, dict) else enumerate(value):
        if isinstance(inner, dict | list):
            _earlier(inner, seconds)
        elif isinstance(inner, int) and not isinstance(inner, bool) and inner > 10**9:
            value[name] = inner - seconds


async def test_who_is_sent_invoices_has_its_grace_from_the_due_date(shop: Shop) -> None:
    org = f"invoiced-{uuid4().hex[:12]}"
    _, customer = await invoiced(shop, org, 30)
    assert await shop.enforced(org) is Status.ACTIVE
    aged(shop, 30 * DAY + 3600 - 1800)
    invoice = next(shop.double.account.find("invoice", customer=customer, status="open"))
    invoice["due_date"] = shop.double.account.clock.now() - 3600
    (subscription,) = list(shop.double.account.find("subscription", customer=customer))
    assert subscription["status"] == "past_due", "an hour ago"
    await looked_at(shop, customer)
    assert await shop.enforced(org) is Status.GRACE
    invoice["due_date"] -= 7 * DAY
    await looked_at(shop, customer)
    assert await shop.enforced(org) is Status.SUSPENDED
    assert (await shop.page.post(f"{shop.double.url}/invoice/{invoice['id']}")).status_code == 200
    await shop.settled()
    assert await shop.enforced(org) is Status.ACTIVE


async def test_an_old_invoice_that_was_left_open_takes_no_grace_away(shop: Shop) -> None:
    org = await shop.signed_up("starter")
    account, customer = shop.double.account, await shop.customer(org)
    await shop.card(org, "declines")
    await shop.period_over(org)
    assert await shop.enforced(org) is Status.GRACE
    latest = next(account.find("invoice", status="open"))
    paid = next(account.find("invoice", status="paid"))
    old = {**latest, "id": "in_of_last_year", "created": paid["created"] - 300 * DAY, "due_date": None}
    old["status_transitions"] = {**latest["status_transitions"], "finalized_at": old["created"]}
    account.objects["invoice"] = {old["id"]: old, **account.objects["invoice"]}  # Stripe lists the newest first
    await looked_at(shop, customer)
    assert await shop.enforced(org) is Status.GRACE
    manual = {**old, "id": "in_by_hand", "billing_reason": "manual"}
    account.objects["invoice"]["in_by_hand"] = manual
    await looked_at(shop, customer)
    assert await shop.enforced(org) is Status.GRACE


async def test_one_subscription_in_arrears_takes_nothing_from_another_that_is_paid(shop: Shop) -> None:
    org = await shop.signed_up("starter")
    await shop.card(org, "declines")
    await shop.period_over(org)
    assert await shop.enforced(org) is Status.GRACE
    _, customer = await invoiced(shop, org, 30)
    assert await shop.enforced(org) is Status.ACTIVE
    for invoice in shop.double.account.find("invoice", status="open"):
        invoice["status_transitions"]["finalized_at"] -= 40 * DAY
    await looked_at(shop, customer)
    assert await shop.enforced(org) is Status.ACTIVE


def invoice(status: str, total: int = 100, **fields: Any) -> Object:
    return {
        "status": status,
        "total": total,
        "due_date": None,
        "created": 1000,
        "billing_reason": "subscription_cycle",
        "status_transitions": {"finalized_at": 2000},
        **fields,
    }


def test_an_invoice_is_due_when_it_says_else_when_it_was_final() -> None:
    assert due_at(invoice("open", due_date=3000)) == 3000
    assert due_at(invoice("open")) == 2000
    assert due_at(invoice("open", status_transitions={"finalized_at": None})) == 1000


def test_what_is_paid_settles_what_was_before_but_an_invoice_of_nothing_does_not() -> None:
    assert settles(invoice("paid"))
    assert settles(invoice("uncollectible"))
    assert not settles(invoice("paid", total=0))
    assert not settles(invoice("void"))
    assert counts(invoice("open"))
    assert not counts(invoice("open", billing_reason="manual"))
    assert not counts(invoice("draft"))
