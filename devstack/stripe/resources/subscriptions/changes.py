"""How a subscription is changed: other items, what that gives back and costs, and changes that wait to be paid."""

from collections.abc import Sequence

from devstack.stripe.account import Account, Object, RequestRefused, timer, unused
from devstack.stripe.resources import amounts, invoices, meters, products
from devstack.stripe.resources.subscriptions.items import (
    added,
    check_prices,
    counts_from,
    interval_of,
    item_of,
    metered,
    restart,
)

PENDING_SECONDS = 23 * 3600


def change_items(
    account: Account,
    subscription: Object,
    changes: Sequence[Object],
    proration: str,
    at: int,
    *,
    restarts: bool = False,
) -> Object | None:
    """Other items from now on. Returns the draft of an invoice where the change makes one.

    `proration`: as `proration_behavior` in Stripe's API. `restarts`: a period begins."""
    before = list(subscription["items"]["data"])
    after = items_after(account, subscription, changes)
    restarted = restarts or interval_of(before) != interval_of(after)
    lines = prorations(account, subscription, before, after, at, restarted=restarted)
    if proration == "none":
        lines = [each for each in lines if restarted and not each["parent"]["subscription_item_details"]["proration"]]
    set_items(account, subscription, after, at if restarted else None)
    if subscription["status"] == "trialing" or not lines:
        return None
    if proration == "create_prorations" and not restarted:
        account.note(subscription["id"]).setdefault("lines", []).extend(lines)
        return None
    customer = account.get("customer", subscription["customer"])
    return invoices.draft(account, customer, subscription, "subscription_update", lines, (at, at))


def change_when_paid(
    account: Account, subscription: Object, changes: Sequence[Object], at: int, *, restarts: bool
) -> Object | None:
    """Other items as soon as their invoice is paid, which is returned; None where there is nothing to pay.

    https://docs.stripe.com/billing/subscriptions/pending-updates"""
    expires_at = account.clock.now() + PENDING_SECONDS
    before, anchor = [dict(item) for item in subscription["items"]["data"]], subscription["billing_cycle_anchor"]
    after = items_after(account, subscription, changes)
    restarted = restarts or interval_of(before) != interval_of(after)
    lines = prorations(account, subscription, before, after, at, restarted=restarted)
    if subscription["status"] == "trialing" or not lines:
        set_items(account, subscription, after, None)
        return None
    customer = account.get("customer", subscription["customer"])
    invoice = invoices.draft(account, customer, subscription, "subscription_update", lines, (at, at))
    account.note(subscription["id"])["pending"] = {
        "invoice": invoice["id"],
        "items": after,
        "restarted": restarted,
        "expires_at": expires_at,
    }
    invoices.finalize(account, invoice)
    subscription["pending_update"] = {
        "billing_cycle_anchor": anchor if restarted else None,
        "expires_at": expires_at,
        "subscription_items": after,
        **unused("cancel_at_period_end discount discounts metadata trial_end trial_from_plan"),
    }
    account.at(expires_at, "pending", subscription["id"])
    return invoice


def apply_pending(account: Account, subscription: Object, pending: Object) -> None:
    """The change is paid."""
    del account.note(subscription["id"])["pending"]
    subscription["pending_update"] = None
    set_items(account, subscription, pending["items"], account.clock.now() if pending["restarted"] else None)
    account.emit("customer.subscription.pending_update_applied", subscription)
    account.emit("customer.subscription.updated", subscription, {"pending_update": {}})


@timer("pending")
def expire_pending(account: Account, subscription_id: str) -> None:
    subscription = account.get("subscription", subscription_id)
    pending = account.note(subscription_id).get("pending")
    if pending is None or pending["expires_at"] > account.clock.now():
        return
    del account.note(subscription_id)["pending"]
    subscription["pending_update"] = None
    invoices.void(account, account.get("invoice", pending["invoice"]))
    account.emit("customer.subscription.pending_update_expired", subscription)


def items_after(account: Account, subscription: Object, changes: Sequence[Object]) -> list[Object]:
    """The items after a change, as `subscriptions.update` takes it. Raises RequestRefused."""
    items = {item["id"]: dict(item) for item in subscription["items"]["data"]}
    first = subscription["items"]["data"][0]
    for change in changes:
        if "id" not in change:
            price = account.get("price", change["price"])
            start, end = first["current_period_start"], first["current_period_end"]
            added_item = item_of(account, subscription["id"], price, change, start, end)
            items[added_item["id"]] = added_item
        elif change["id"] not in items:
            message = f"No such subscription item: '{change['id']}'"
            raise RequestRefused(message, code="resource_missing", param="items")
        elif change.get("deleted"):
            del items[change["id"]]
        else:
            _change_item(account, items[change["id"]], change)
    after = list(items.values())
    if not after:
        raise RequestRefused("A subscription must have at least one item.", param="items")
    check_prices(subscription["currency"], [item["price"] for item in after])
    return after


def _change_item(account: Account, item: Object, change: Object) -> None:
    if change.get("price"):
        item["price"] = account.get("price", change["price"])
        item["plan"] = products.plan_of(item["price"])
    if "quantity" in change:
        item["quantity"] = change["quantity"]
    item["metadata"] = {**item["metadata"], **(change.get("metadata") or {})}


def set_items(account: Account, subscription: Object, items: Sequence[Object], restart_at: int | None) -> None:
    subscription["items"]["data"][:] = items
    subscription["items"]["total_count"] = len(items)
    if restart_at is not None and subscription["status"] != "trialing":
        restart(account, subscription, restart_at)


def prorations(
    account: Account,
    subscription: Object,
    before: Sequence[Object],
    after: Sequence[Object],
    at: int,
    *,
    restarted: bool,
) -> list[Object]:
    """What is left of the old items is given back, what is left of the period is paid for the new ones."""
    old, new = {item["id"]: item for item in before}, {item["id"]: item for item in after}
    lines: list[Object] = []
    for item_id in dict.fromkeys([*old, *new]):
        old_item, new_item = old.get(item_id), new.get(item_id)
        if old_item and new_item and not restarted and _costs_of(old_item) == _costs_of(new_item):
            continue
        if old_item is not None:
            lines += _given_back(account, subscription, old_item, at)
        if new_item is not None and not metered(new_item):
            lines.append(_charged(account, subscription, new_item, at, restarted=restarted))
    return lines


def _costs_of(item: Object) -> tuple[str, int | None]:
    return item["price"]["id"], item.get("quantity")


def _given_back(account: Account, subscription: Object, item: Object, at: int) -> list[Object]:
    """Of an item that goes: the time that is left; of a metered one, what was used is billed."""
    if metered(item):
        return _until_removal(account, subscription, item, at)
    price, quantity = item["price"], item["quantity"]
    start, end = item["current_period_start"], item["current_period_end"]
    amount = -amounts.prorated(amounts.amount_of(price, quantity), start, end, at)
    text = f"Unused time on {quantity} x {price['product']}"
    period = (at, end)
    return [
        invoices.line(account, subscription, price, amount, quantity, period, text, item=item["id"], proration=True)
    ]


def _charged(account: Account, subscription: Object, item: Object, at: int, *, restarted: bool) -> Object:
    """Of an item that comes: the time that is left of the period, or a whole one where one begins."""
    price, quantity = item["price"], item["quantity"]
    start, end = item["current_period_start"], item["current_period_end"]
    amount, period = amounts.amount_of(price, quantity), (at, added(at, price, 1))
    if not restarted:
        amount, period = amounts.prorated(amount, start, end, at), (at, end)
    text = f"Remaining time on {quantity} x {price['product']}"
    return invoices.line(
        account, subscription, price, amount, quantity, period, text, item=item["id"], proration=not restarted
    )


def _until_removal(account: Account, subscription: Object, item: Object, at: int) -> list[Object]:
    """What was used of a metered item that goes: flexible subscriptions bill it, classic ones do not.

    https://docs.stripe.com/billing/subscriptions/usage-based/manage-billing-setup"""
    if subscription["billing_mode"]["type"] != "flexible" or subscription["status"] == "trialing":
        return []
    price, start = item["price"], counts_from(item)
    units = max(0, meters.usage(account, price["recurring"]["meter"], subscription["customer"], start, at + 1))
    if not units:
        return []
    amount, period = amounts.amount_of(price, units), (start, at)
    return [
        invoices.line(account, subscription, price, amount, units, period, "Usage", item=item["id"], proration=True)
    ]
