"""Overage whose item is gone: was it billed? If not, an incident tells an admin the units and what they cost.

Stripe bills a metered item with its period. When a subscription ends before, Stripe bills its usage only if it is asked
to (`invoice_now`). When an item is removed, Stripe bills its usage only if the subscription's billing mode says so.
Whoever ended or removed it, a look at the customer finds that the item is gone, and files it here.

https://docs.stripe.com/billing/subscriptions/usage-based/manage-billing-setup
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import stripe
import structlog

from common.clock import Clock
from control import incidents, sql
from control.billing.client import pages, whole
from control.billing.failures import StripeMissing
from control.billing.objects import Object, id_of
from control.billing.overage.overage_price import OveragePrice, unbilled
from control.billing.overage.sinks import METER, UNITS
from control.billing.subscription_status import OVER
from control.db import Connection, Database
from control.moments import moment, rfc3339

log = structlog.get_logger()

UNBILLED = "overage_unbilled"

CHECK_EVERY_SECONDS = 600.0
SETTLED_SECONDS = 2 * 3600  # by then the last usage is counted, and the last invoice no draft any more
DRAFT_SECONDS = 3600


@dataclass(frozen=True, slots=True)
class Closed:
    """An item that billed overage and is gone."""

    subscription: str
    item: str
    customer: str
    price: str
    period_from: int
    counted_from: int
    period_to: int
    closed_at: int
    ended: bool
    replaced: bool
    prorates_removed: bool


def closed_items(
    before: Sequence[sql.billing.SeenSubscription],
    current_subscriptions: Sequence[Object],
    meters: Mapping[str, str],
    now: float,
) -> list[Closed]:
    """The items that are gone since `before`, the subscriptions as they were last seen. Pure.

    `meters`: of prices that bill overage, the meter."""
    gone, seen = [], {row.id: row for row in before}
    current_by_id = {each["id"]: each for each in current_subscriptions}
    for subscription_id in dict.fromkeys([*seen, *current_by_id]):
        row, each = seen.get(subscription_id), current_by_id.get(subscription_id)
        if row is not None and row.status in OVER:
            continue
        over = each is None or each["status"] in OVER
        if row is None and not over:
            continue  # nothing of it can be gone yet
        items = {} if over or each is None else {i["id"]: i for i in each["items"]["data"]}
        # One that was over before it was ever seen shows its items still.
        items_before = row.content["items"] if row is not None else each["items"]["data"] if each is not None else []
        # When another item began to bill the meter.
        billed = {
            meters[price]: int(i.get("created") or now)
            for i in items.values()
            if (price := id_of(i["price"]) or "") in meters
        }
        for item in items_before:
            price, remaining = id_of(item["price"]) or "", items.get(item["id"])
            if price not in meters or (remaining is not None and id_of(remaining["price"]) == price):
                continue
            starts, created = int(item["current_period_start"]), int(item.get("created") or 0)
            ended_at = each.get("ended_at") if over and each is not None else None
            gone.append(
                Closed(
                    subscription=subscription_id,
                    item=f"{item['id']}:{price}",
                    customer=row.customer
                    if row is not None
                    else id_of(current_by_id[subscription_id]["customer"]) or "",
                    price=price,
                    period_from=starts,
                    # What Stripe was told for the second in which the item came is the one's before it.
                    counted_from=max(starts, created + 1 if created > starts else 0),
                    period_to=int(item["current_period_end"]),
                    closed_at=int(ended_at or billed.get(meters[price]) or now),
                    ended=over,
                    replaced=meters[price] in billed,
                    prorates_removed=((each or {}).get("billing_mode") or {}).get("type") == "flexible",
                )
            )
    return gone


async def file(
    connection: Connection,
    org: str,
    before: Sequence[sql.billing.SeenSubscription],
    current_subscriptions: Sequence[Object],
    now: float,
) -> bool:
    """Files the items that are gone, in the look's transaction; whether any of them is new."""
    ids = [item["price"] for row in before for item in row.content["items"]]
    ids += [id_of(item["price"]) for each in current_subscriptions for item in each["items"]["data"]]
    prices = await sql.billing.prices(connection, ids=sorted({i for i in ids if i}))
    meters = {row.id: row.meter for row in prices if row.meter is not None}
    new = False
    for each in closed_items(before, current_subscriptions, meters, now):
        filed = await sql.overage.close_item(
            connection,
            subscription=each.subscription,
            item=each.item,
            org=org,
            customer=each.customer,
            price=each.price,
            meter=meters[each.price],
            period_from=moment(each.period_from),
            counted_from=moment(each.counted_from),
            period_to=moment(each.period_to),
            closed_at=moment(each.closed_at),
            ended=each.ended,
            replaced=each.replaced,
            prorates_removed=each.prorates_removed,
            at=moment(now),
        )
        new = new or filed is not None
    return new


async def check(db: Database, client: stripe.StripeClient, clock: Clock, org: str | None = None) -> float | None:
    """Checks whether the overage of closed items was billed; returns in how many seconds to check again, None if
    nothing is open.

    Raises StripeAway, StripeRefused, StoreUnavailable."""
    now = clock()
    async with db.connection() as connection:
        rows = await sql.overage.due_closings(connection, at=moment(now), org=org)
    for row in rows:
        await _check(db, client, row, now)
    return CHECK_EVERY_SECONDS if rows else None


async def _check(db: Database, client: stripe.StripeClient, row: sql.overage.Closing, now: float) -> None:
    key = f"{row.subscription}:{row.item}"
    billed, charged_minor, draft = await _billed(client, row)
    async with db.transaction() as connection:
        owed = await sql.overage.owed(
            connection,
            org=row.org,
            customer=row.customer,
            subscription=row.subscription,
            meter=row.meter,
            period_from=row.period_from,
            counted_from=row.counted_from,
            closed_at=row.closed_at,
            replaced=row.replaced,
        )
        price = OveragePrice(row.amount_minor, row.amount_units)
        units, amount_minor = unbilled(owed, billed, charged_minor, price)
        wait_until = _wait_until(row, draft)
        if units and now < wait_until:
            settled = False  # an invoice is on its way
        elif units:
            content = {
                "subscription": row.subscription,
                "customer": row.customer,
                "meter": row.meter,
                "period_start": rfc3339(row.period_from.timestamp()),
                "units": units,
                "amount_minor": amount_minor,
                "currency": row.currency,
            }
            shown = await sql.incidents.content_of(connection, kind=UNBILLED, key=key)
            if shown != content:
                log.error("overage was not billed", org=row.org, units=units, meter=row.meter)
                await incidents.open(connection, now, UNBILLED, key, row.org, content)
            settled = now >= row.closed_at.timestamp() + SETTLED_SECONDS
        else:
            await incidents.close(connection, now, UNBILLED, key)
            settled = now >= row.closed_at.timestamp() + SETTLED_SECONDS
        at = moment(now)
        await sql.overage.check_again(
            connection,
            subscription=row.subscription,
            item=row.item,
            next_check_at=moment(now + CHECK_EVERY_SECONDS),
            settled_at=at if settled else None,
        )


def _wait_until(row: sql.overage.Closing, draft: bool) -> float:
    """Until when an invoice that bills it may still come."""
    if draft:
        return float("inf")
    period_to, closed_at = row.period_to.timestamp(), row.closed_at.timestamp()
    if row.ended:
        # At the end of a period its invoice comes by itself, soon after.
        return float(closed_at + DRAFT_SECONDS if closed_at >= period_to else 0)
    # Of an item that was removed alone, what was used may wait for the next invoice.
    return float(period_to + DRAFT_SECONDS if row.prorates_removed else 0)


async def _billed(client: stripe.StripeClient, row: sql.overage.Closing) -> tuple[int, int, bool]:
    """What is on the subscription's invoices by the item's price in its last period, in units and in money, and
    whether one of them is a draft."""
    since, units, charged, draft = int(row.period_from.timestamp()), 0, 0, False
    params: Any = {"subscription": row.subscription, "created": {"gte": since}}
    try:
        invoices = await pages(client, "/v1/invoices", params)
    except StripeMissing:
        return 0, 0, False
    for invoice in invoices:
        if invoice["status"] == "void":
            continue
        draft = draft or (invoice["status"] == "draft" and invoice.get("auto_advance") is not False)
        for line in await whole(client, invoice["lines"], f"/v1/invoices/{invoice['id']}/lines"):
            metadata = line.get("metadata") or {}
            if metadata.get(METER) == row.meter and line["period"]["start"] >= since:
                units += int(metadata[UNITS])
                charged += int(line["amount"])
                continue
            details = (line.get("pricing") or {}).get("price_details") or {}
            if id_of(details.get("price")) == row.price and line["period"]["start"] >= since:
                units += int(line.get("quantity") or 0)
                charged += int(line["amount"])
    return units, charged, draft
