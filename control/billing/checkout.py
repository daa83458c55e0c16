"""Sign-up, and changes of a subscription: requests to Stripe. Their results come back by webhooks."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import stripe

from control import sql
from control.billing import phases
from control.billing.client import ask, one, whole
from control.billing.failures import NotSubscribed, PlanNotSold, StripeMissing, StripeRefused, SubscribedAlready
from control.billing.objects import Object, id_of
from control.billing.overage.revisions import Overage
from control.billing.products import PORTAL
from control.billing.subscription_status import LIVE, OVER
from control.billing.subscriptions.customer_links import ORG
from control.db import Connection, Database
from control.entitlements.changes import PlanUnknown
from control.moments import moment
from control.settings.control_plane import Stripe as Settings

DAY_SECONDS = 86_400


@dataclass(frozen=True, slots=True)
class Order:
    """What somebody wants to buy."""

    org: str
    plan: str
    interval: str
    success_url: str
    cancel_url: str | None
    quantity: int = 1
    trial_days: int | None = None
    coupon: str | None = None
    promotion_code: str | None = None
    email: str | None = None
    name: str | None = None


async def start(
    db: Database, client: stripe.StripeClient, settings: Settings, order: Order, idempotency_key: str, now: float
) -> Object:
    """Creates a checkout session: a page where the organization's subscription is paid for. A session that is open
    already is expired, so that nobody pays twice.

    Raises PlanUnknown, PlanNotSold, SubscribedAlready, StripeAway, StripeRefused."""
    async with db.connection() as connection:
        prices = await _prices(connection, order.plan, order.interval)
        customer = await sql.billing.customer_of(connection, org=order.org)
        if await _live(connection, order.org):
            raise SubscribedAlready(order.org)
    params = session_params(order, settings, prices, None if customer is None else customer.id)
    options: Any = {"idempotency_key": idempotency_key}
    made = await ask(client.v1.checkout.sessions.create_async(params, options))  # type: ignore[arg-type]  # a plain dict
    async with db.transaction() as connection:
        await sql.billing.lock_sessions(connection, org=order.org)
        await sql.billing.drop_sessions(connection, org=order.org, before=moment(now - DAY_SECONDS))
        await sql.billing.open_session(connection, id=made["id"], org=order.org, expires_at=moment(made["expires_at"]))
        older = await sql.billing.older_sessions(connection, id=made["id"], at=moment(now))
    for session in older:
        if await _was_paid(client, session):
            # Before it could be closed: this one must not be paid, too.
            await _was_paid(client, made["id"])
            raise SubscribedAlready(order.org)
    async with db.connection() as connection:
        await sql.billing.close_sessions(connection, ids=older, at=moment(now))
    return made


def session_params(
    order: Order, settings: Settings, prices: Sequence[sql.billing.PriceOfPlan], customer: str | None
) -> Object:
    """A checkout session as Stripe is asked for it. `customer`: Stripe's id, where the organization has one. Pure."""
    trial_days = settings.trial_days if order.trial_days is None else order.trial_days
    metadata = {ORG: order.org}
    subscription: Object = {"metadata": metadata}
    if trial_days:
        ending = "pause" if settings.trial_without_card else "cancel"
        subscription["trial_period_days"] = trial_days
        subscription["trial_settings"] = {"end_behavior": {"missing_payment_method": ending}}
    params: Object = {
        "mode": "subscription",
        "client_reference_id": order.org,
        "line_items": _line_items(prices, order.quantity),
        "metadata": metadata,
        "subscription_data": subscription,
        "success_url": order.success_url,
        "automatic_tax": {"enabled": settings.automatic_tax},
        "tax_id_collection": {"enabled": settings.automatic_tax},
    }
    if order.cancel_url:
        params["cancel_url"] = order.cancel_url
    if trial_days and settings.trial_without_card:
        params["payment_method_collection"] = "if_required"
    if order.coupon:
        params["discounts"] = [{"coupon": order.coupon}]
    elif order.promotion_code:
        params["discounts"] = [{"promotion_code": order.promotion_code}]
    else:
        params["allow_promotion_codes"] = True
    if customer is not None:
        params["customer"] = customer
        if settings.automatic_tax:
            params["customer_update"] = {"address": "auto", "name": "auto"}
    elif order.email:
        params["customer_email"] = order.email
    return params


async def _was_paid(client: stripe.StripeClient, session: str) -> bool:
    """Expires a session; returns whether it was paid before and its subscription still exists."""
    try:
        await ask(client.v1.checkout.sessions.expire_async(session))
    except StripeMissing:
        return False
    except StripeRefused:
        checkout = await one(client, "checkout/sessions", session)
        bought = id_of(checkout.get("subscription")) if checkout["status"] == "complete" else None
        if checkout["status"] == "open":
            raise
        return bought is not None and (await one(client, "subscriptions", bought))["status"] not in OVER
    return False


async def portal(db: Database, client: stripe.StripeClient, org: str, return_url: str) -> Object:
    """A portal session: payment methods, invoices, cancellation. Raises NotSubscribed, StripeAway, StripeRefused."""
    async with db.connection() as connection:
        customer = await sql.billing.customer_of(connection, org=org)
        configuration = await sql.billing.setting(connection, name=PORTAL)
    if customer is None:
        raise NotSubscribed(org)
    params: Object = {"customer": customer.id, "return_url": return_url}
    if configuration is not None:
        params["configuration"] = configuration
    return await ask(client.v1.billing_portal.sessions.create_async(params))  # type: ignore[arg-type]  # a plain dict


@dataclass(frozen=True, slots=True)
class Switch:
    """Another plan, interval or quantity for a subscription."""

    plan: str
    interval: str | None
    """None: as it is."""
    quantity: int | None
    """None: as it is."""
    at_period_end: bool | None
    """None: what costs less waits for the end of what is paid, what costs more is paid for now."""


@dataclass(frozen=True, slots=True)
class PreparedSwitch:
    """A switch as it would be made of a subscription that was looked at."""

    subscription: Object
    items: list[Object]
    own: Object
    """The item of the plan that there is now."""
    sold: dict[str, sql.billing.Price]
    prices: list[sql.billing.PriceOfPlan]
    interval: str
    quantity: int
    later: bool
    """It waits for the end of what is paid."""

    @property
    def changed(self) -> list[Object]:
        """The items as `subscriptions.update` takes them."""
        return _changed_items(self.items, self.own, self.sold, self.prices, self.quantity)

    @property
    def restarts(self) -> bool:
        """Another interval begins a billing period."""
        return bool(self.interval != self.own["price"]["recurring"]["interval"])


async def switch(
    db: Database, client: stripe.StripeClient, overage: Overage, org: str, wanted: Switch, idempotency_key: str
) -> tuple[str, Object]:
    """Returns `now` and the changed subscription, or `period_end` and the subscription, which stays as it is until
    then.

    Overage until now is reported before, so that it is billed at the old plan's price. An upgrade is in force when its
    prorated invoice is paid. Until then Stripe keeps it as a pending update, which comes into force or expires by
    itself. Raises NotSubscribed, PlanUnknown, PlanNotSold, StripeAway, StripeRefused."""
    return await switch_as_prepared(
        client, overage, org, await prepare_switch(db, client, org, wanted), idempotency_key
    )


async def prepare_switch(db: Database, client: stripe.StripeClient, org: str, wanted: Switch) -> PreparedSwitch:
    """Changes nothing. Raises as `switch`."""
    subscription = await subscription_of(db, client, org)
    items = await whole(client, subscription["items"], "/v1/subscription_items", {"subscription": subscription["id"]})
    async with db.connection() as connection:
        ids = [id_of(item["price"]) or "" for item in items]
        sold = {row.id: row for row in await sql.billing.prices(connection, ids=ids)}
        plans = [i for i in items if _is_plan(sold.get(id_of(i["price"]) or ""))]
        if not plans:
            raise NotSubscribed(org)
        if len(plans) > 1:
            raise StripeRefused(
                f"the subscription {subscription['id']} has {len(plans)} plans: which one is to be changed?"
            )
        own = plans[0]
        interval = wanted.interval or own["price"]["recurring"]["interval"]
        prices = await _prices(connection, wanted.plan, interval)
    quantity = wanted.quantity or own.get("quantity") or 1
    price = await ask(client.v1.prices.retrieve_async(prices[0].id))
    later = wanted.at_period_end
    if later is None:
        later = _yearly(price, quantity) < _yearly(own["price"], own.get("quantity") or 1)
    return PreparedSwitch(subscription, items, own, sold, prices, interval, quantity, later)


async def switch_as_prepared(
    client: stripe.StripeClient, overage: Overage, org: str, prepared: PreparedSwitch, idempotency_key: str
) -> tuple[str, Object]:
    """As `switch`."""
    v1, subscription, items = client.v1, prepared.subscription, prepared.items
    options: Any = {"idempotency_key": idempotency_key}
    schedule = id_of(subscription.get("schedule"))
    if not prepared.later:
        changed = prepared.changed
        if overage.at_close or any(each.get("deleted") for each in changed):
            await overage.flush_before_an_end(org)
        if schedule is not None:
            await ask(v1.subscription_schedules.release_async(schedule))
        params: Object = {
            "items": changed,
            "proration_behavior": "always_invoice",
        }
        # An invoice that is sent is charged by nobody, so there is nothing to wait for.
        if subscription["collection_method"] != "send_invoice":
            params["payment_behavior"] = "pending_if_incomplete"
        return "now", await ask(v1.subscriptions.update_async(subscription["id"], params, options))  # type: ignore[arg-type]  # a plain dict
    if schedule is None:
        made = await ask(v1.subscription_schedules.create_async({"from_subscription": subscription["id"]}, options))
    else:
        made = await ask(v1.subscription_schedules.retrieve_async(schedule))
    current = _current_phase(made)
    coming = _items_to_come(items, prepared.own, prepared.sold, prepared.prices, prepared.quantity)
    wanted_phases = [
        phases.running(current, subscription, items, prepared.own["current_period_end"]),
        phases.following(current, subscription, coming, prepared.interval),
    ]
    params = {"end_behavior": "release", "phases": wanted_phases, "proration_behavior": "none"}
    await ask(v1.subscription_schedules.update_async(made["id"], params))  # type: ignore[arg-type]  # a plain dict
    return "period_end", subscription


async def stay(db: Database, client: stripe.StripeClient, org: str) -> Object:
    """Cancels what waits for the end of the period: a switch, or a cancellation.

    Raises NotSubscribed, StripeAway, StripeRefused."""
    subscription = await subscription_of(db, client, org)
    schedule = id_of(subscription.get("schedule"))
    if schedule is not None:
        await ask(client.v1.subscription_schedules.release_async(schedule))
    if subscription.get("cancel_at_period_end") or subscription.get("cancel_at"):
        params: Any = {"cancel_at_period_end": False} if subscription.get("cancel_at_period_end") else {"cancel_at": ""}
        return await ask(client.v1.subscriptions.update_async(subscription["id"], params))
    return await ask(client.v1.subscriptions.retrieve_async(subscription["id"]))


async def cancel(
    db: Database, client: stripe.StripeClient, overage: Overage, org: str, *, at_period_end: bool
) -> Object:
    """Ends the subscription. If at once, overage is reported before, and a last invoice bills it.

    Raises NotSubscribed, StripeAway, StripeRefused, StoreUnavailable."""
    subscription = await subscription_of(db, client, org)
    if not at_period_end:
        await overage.flush_before_an_end(org)
    schedule = id_of(subscription.get("schedule"))
    if schedule is not None:
        await ask(client.v1.subscription_schedules.release_async(schedule))
    if at_period_end:
        return await ask(client.v1.subscriptions.update_async(subscription["id"], {"cancel_at_period_end": True}))
    return await ask(client.v1.subscriptions.cancel_async(subscription["id"], {"invoice_now": True}))


async def _prices(connection: Connection, plan: str, interval: str) -> list[sql.billing.PriceOfPlan]:
    version = await sql.plans.newest_of(connection, code=plan)
    if version is None or version.archived_at:
        raise PlanUnknown(plan)
    prices = await sql.billing.prices_of_plan(connection, plan_id=version.id, billing_interval=interval)
    if not prices or prices[0].meter is not None:
        raise PlanNotSold(f"The plan {plan} has no price for a {interval} at Stripe")
    return prices


async def _live(connection: Connection, org: str) -> str | None:
    rows = await sql.billing.subscriptions_of(connection, org=org)
    return next((row.id for row in rows if row.status in LIVE), None)


async def subscription_of(db: Database, client: stripe.StripeClient, org: str) -> Object:
    """The subscription that the organization's entitlement follows, as Stripe has it."""
    async with db.connection() as connection:
        in_force = await sql.billing.subscription_in_force(connection, org=org)
        subscription_id = in_force or await _live(connection, org)
    if subscription_id is None:
        raise NotSubscribed(org)
    return await ask(client.v1.subscriptions.retrieve_async(subscription_id))


def _line_items(prices: Sequence[sql.billing.PriceOfPlan], quantity: int) -> list[Object]:
    return [{"price": row.id, **({"quantity": quantity} if row.meter is None else {})} for row in prices]


def _changed_items(
    items: Sequence[Object],
    own: Object,
    sold: dict[str, sql.billing.Price],
    prices: Sequence[sql.billing.PriceOfPlan],
    quantity: int,
) -> list[Object]:
    """The plan's item changes its price; overage items of the old plan go, those of the new one come."""
    other_items = {id_of(item["price"]): item for item in items if item is not own}
    wanted = {row.id for row in prices if row.meter is not None}
    changed: list[Object] = [{"id": own["id"], "price": prices[0].id, "quantity": quantity}]
    changed += [
        {"id": item["id"], "deleted": True}
        for price, item in other_items.items()
        if price not in wanted and price in sold  # others are the vendor's own: add-ons
    ]
    changed += [{"price": price} for price in sorted(wanted) if price not in other_items]
    return changed


def _current_phase(schedule: Object) -> Object:
    starts = (schedule.get("current_phase") or {}).get("start_date")
    phase: Object = next((p for p in schedule["phases"] if p["start_date"] == starts), schedule["phases"][0])
    return phase


def _items_to_come(
    items: Sequence[Object],
    own: Object,
    sold: dict[str, sql.billing.Price],
    prices: Sequence[sql.billing.PriceOfPlan],
    quantity: int,
) -> list[Object]:
    """Those of another plan, with what the items in their places have; the vendor's own add-ons stay."""
    billing = {sold[price].meter: each for each in items if (price := id_of(each["price"]) or "") in sold}
    coming = [phases.item(own, price=prices[0].id, quantity=quantity)]
    for row in prices[1:]:
        before = billing.get(row.meter)
        coming.append({"price": row.id} if before is None else phases.item(before, price=row.id, quantity=None))
    return coming + [phases.item(each) for each in items if (id_of(each["price"]) or "") not in sold]


def _is_plan(row: sql.billing.Price | None) -> bool:
    return row is not None and row.meter is None


def _yearly(price: Object, quantity: int) -> int:
    return int(price["unit_amount"] or 0) * quantity * (12 if price["recurring"]["interval"] == "month" else 1)
