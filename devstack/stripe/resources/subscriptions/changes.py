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
    account: Account, subscription: Object, wanted: Sequence[Object], proration: str, at: int, *, anew: bool = False
) -> Object | None:
    """Other items from now on; an invoice where `always_invoice` makes one, not paid yet. `anew`: a period begins."""
    before = list(subscription["items"]["data"])
    after = items_after(account, subscription, wanted)
    restarted = anew or interval_of(before) != interval_of(after)
    lines = prorations(account, subscription, before, after, at, restarted=restarted)
    if proration == "none":
        lines = [each for each in lines if restarted and not each["parent"]["subscription_item_details"]["proration"]]
    have_items(account, subscription, after, at if restarted else None)
    if subscription["status"] == "trialing" or not lines:
        return None
    if proration == "create_prorations" and not restarted:
        account.note(subscription["id"]).setdefault("lines", []).extend(lines)
        return None
    customer = account.get("customer", subscription["customer"])
    return invoices.draft(account, customer, subscription, "subscription_update", lines, (at, at))


def change_when_paid(
    account: Account, found: Object, wanted: Sequence[Object], at: int, *, anew: bool
) -> Object | None:
    """Other items as soon as their invoice is paid, which is returned; None where there is nothing to pay.

    https://docs.stripe.com/billing/subscriptions/pending-updates"""
    now = account.clock.now()
    old, before = [dict(item) for item in found["items"]["data"]], found["billing_cycle_anchor"]
    after = items_after(account, found, wanted)
    restarted = anew or interval_of(old) != interval_of(after)
    lines = prorations(account, found, old, after, at, restarted=restarted)
    if found["status"] == "trialing" or not lines:
        have_items(account, found, after, None)
        return None
    customer = account.get("customer", found["customer"])
    made = invoices.draft(account, customer, found, "subscription_update", lines, (at, at))
    account.note(found["id"])["pending"] = {
        "invoice": made["id"],
        "items": after,
        "restarted": restarted,
        "expires_at": now + PENDING_SECONDS,
    }
    invoices.finalize(account, made)
    found["pending_update"] = {
        "billing_cycle_anchor": before if restarted else None,
        "expires_at": now + PENDING_SECONDS,
        "subscription_items": after,
        **unused("cancel_at_period_end discount discounts metadata trial_end trial_from_plan"),
    }
    account.at(now + PENDING_SECONDS, "pending", found["id"])
    return made


def apply_pending(account: Account, subscription: Object, pending: Object) -> None:
    del account.note(subscription["id"])["pending"]
    subscription["pending_update"] = None
    have_items(account, subscription, pending["items"], account.clock.now() if pending["restarted"] else None)
    account.emit("customer.subscription.pending_update_applied", subscription)
    account.emit("customer.subscription.updated", subscription, {"pending_update": {}})


@timer("pending")
def _pending(account: Account, subscription_id: str) -> None:
    subscription = account.get("subscription", subscription_id)
    pending = account.note(subscription_id).get("pending")
    if pending is None or pending["expires_at"] > account.clock.now():
        return
    del account.note(subscription_id)["pending"]
    subscription["pending_update"] = None
    invoices.void(account, account.get("invoice", pending["invoice"]))
    account.emit("customer.subscription.pending_update_expired", subscription)


def items_after(account: Account, subscription: Object, wanted: Sequence[Object]) -> list[Object]:
    """The items after a change, as `subscriptions.update` takes it."""
    items = {item["id"]: dict(item) for item in subscription["items"]["data"]}
    first = subscription["items"]["data"][0]
    for each in wanted:
        if "id" in each:
            if each["id"] not in items:
                raise RequestRefused(
                    f"No such subscription item: '{each['id']}'", code="resource_missing", param="items"
                )
            if each.get("deleted"):
                del items[each["id"]]
                continue
            item = items[each["id"]]
            if each.get("price"):
                item["price"] = account.get("price", each["price"])
                item["plan"] = products.plan_of(item["price"])
            if "quantity" in each:
                item["quantity"] = each["quantity"]
            item["metadata"] = {**item["metadata"], **(each.get("metadata") or {})}
        else:
            price = account.get("price", each["price"])
            start, end_ = first["current_period_start"], first["current_period_end"]
            made = item_of(account, subscription["id"], price, each, start, end_)
            items[made["id"]] = made
    after = list(items.values())
    if not after:
        raise RequestRefused("A subscription must have at least one item.", param="items")
    check_prices(subscription["currency"], [item["price"] for item in after])
    return after


def have_items(account: Account, subscription: Object, items: Sequence[Object], restart_at: int | None) -> None:
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
        was, is_ = old.get(item_id), new.get(item_id)
        same = was and is_ and (was["price"]["id"], was.get("quantity")) == (is_["price"]["id"], is_.get("quantity"))
        if same and not restarted:
            continue
        for item, sign in ((was, -1), (is_, 1)):
            if item is not None and sign < 0 and metered(item):
                lines += _until_removal(account, subscription, item, at)
            if item is None or metered(item):
                continue
            price, quantity = item["price"], item["quantity"]
            start, end_ = item["current_period_start"], item["current_period_end"]
            amount = amounts.amount_of(price, quantity)
            if sign < 0 or not restarted:
                amount, period = amounts.prorated(amount, start, end_, at), (at, end_)
            else:
                period = (at, added(at, price, 1))
            text = f"{'Unused' if sign < 0 else 'Remaining'} time on {quantity} x {price['product']}"
            proration = sign < 0 or not restarted
            lines.append(
                invoices.line(
                    account,
                    subscription,
                    price,
                    sign * amount,
                    quantity,
                    period,
                    text,
                    item=item["id"],
                    proration=proration,
                )
            )
    return lines


def _until_removal(account: Account, subscription: Object, item: Object, at: int) -> list[Object]:
    """What was used of a metered item that goes: flexible subscriptions bill it, classic ones do not.

    https://docs.stripe.com/billing/subscriptions/usage-based/manage-billing-setup"""
    if subscription["billing_mode"]["type"] != "flexible" or subscription["status"] == "trialing":
        return []
    price, start = item["price"], counts_from(item)
    used = max(0, meters.usage(account, price["recurring"]["meter"], subscription["customer"], start, at + 1))
    amount = amounts.amount_of(price, used)
    if not used:
        return []
    return [
        invoices.line(account, subscription, price, amount, used, (start, at), "Usage", item=item["id"], proration=True)
    ]
