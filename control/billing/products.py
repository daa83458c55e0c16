"""`plans apply --stripe`: products, prices, meters and the portal's configuration at Stripe are those of the catalogue.

A price never changes at Stripe, nor does a plan version here, so each version has prices of its own. Their lookup keys
name plan and interval (`growth.month`, `growth.month.overage.api_calls`) and are those of the newest version: a new
price takes the key over, the old one keeps its subscribers and is sold no more.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any
from uuid import UUID

import stripe

from control import sql
from control.billing.client import ask, pages
from control.billing.failures import StripeMissing, StripeRefused
from control.billing.objects import Object
from control.db import Database
from control.moments import moment

PORTAL = "portal_configuration"
EVENT_NAME_PREFIX = "quotagate_"
DECIMALS_MAX = 12  # of unit_amount_decimal


@dataclass(frozen=True, slots=True)
class WantedPrice:
    """One price of one plan version."""

    plan_id: UUID
    plan: str
    version: int
    interval: str
    meter: str | None
    """Of overage; None: the plan's own price."""
    currency: str
    amount_minor: int
    units: int
    """What `amount_minor` buys; 1 for the plan's own price."""

    @property
    def lookup_key(self) -> str:
        return f"{self.plan}.{self.interval}" + (f".overage.{self.meter}" if self.meter else "")

    @property
    def description(self) -> str:
        price = f"{self.amount_minor} {self.currency}" + (f" for {self.units} {self.meter}" if self.meter else "")
        return f"{self.lookup_key} (version {self.version}): {price} a {self.interval}"


def wanted_prices(plan: sql.billing.ListedPlan) -> Iterator[WantedPrice]:
    """A row of `catalogue`. Overage is billed with the plan: a year's with the year."""
    for interval, amount in sorted(plan.price_minor.items()):
        common = (plan.id, plan.code, plan.version, interval)
        yield WantedPrice(*common, None, plan.currency, amount, 1)
        if plan.policy == "METERED":
            for meter, (amount_minor, units) in sorted(plan.overage.items()):
                yield WantedPrice(*common, meter, plan.currency, amount_minor, units)


def price_params(wanted: WantedPrice, product: str, meter_id: str | None) -> Object:
    """As prices are created. Pure."""
    params: Object = {
        "product": product,
        "currency": wanted.currency,
        "lookup_key": wanted.lookup_key,
        "transfer_lookup_key": True,
        "nickname": wanted.description,
        "recurring": {"interval": wanted.interval},
        "metadata": {"quotagate_plan": wanted.plan, "quotagate_plan_version": str(wanted.version)},
    }
    if wanted.meter is None:
        return {**params, "unit_amount": wanted.amount_minor}
    params["recurring"] = {"interval": wanted.interval, "usage_type": "metered", "meter": meter_id}
    params["metadata"]["quotagate_meter"] = wanted.meter
    # By the unit where that can be written down exactly, so that half a package costs half; else by whole packages.
    exact = exact_price(wanted.amount_minor, wanted.units)
    if exact is not None:
        return {**params, "unit_amount_decimal": exact}
    return {
        **params,
        "unit_amount": wanted.amount_minor,
        "transform_quantity": {"divide_by": wanted.units, "round": "up"},
    }


async def apply(db: Database, client: stripe.StripeClient, now: float, *, dry_run: bool) -> list[str]:
    """The lines that tell what is different, and now made so. Raises StripeAway, StripeRefused, StoreUnavailable.

    Idempotent: when it dies in between, the next run finds by lookup key what is there."""
    v1, lines = client.v1, []
    async with db.connection() as connection:
        plans = await sql.billing.catalogue(connection)
        meters = {row.meter: row for row in await sql.billing.meters(connection)}
        superseded = await sql.billing.superseded_prices(connection)
        portal = await sql.billing.setting(connection, name=PORTAL)
    wanted = [price for plan in plans for price in wanted_prices(plan)]

    lines += await _meters(db, client, sorted({w.meter for w in wanted if w.meter}), meters, dry_run)
    products = [(plan.code, plan.name) for plan in plans]
    for code, name in products:
        lines += await _product(client, code, name, dry_run)
    price_ids = {(row[1], row[2], plan.id): row[0] for plan in plans for row in plan.prices}
    current = await _current_prices(client, [w.lookup_key for w in wanted])
    for each in wanted:
        price_id = price_ids.get((each.interval, each.meter, each.plan_id))
        price = current.get(each.lookup_key)
        if price is not None and price["id"] == price_id and price["active"]:
            continue
        mine = price is not None and price["metadata"].get("quotagate_plan_version") == str(each.version)
        if not mine:
            lines.append(f"price {each.description}")
        if dry_run:
            continue
        if not mine or price is None:
            meter_id = await _meter_id(db, each.meter)
            params = price_params(each, product_id(each.plan), meter_id)
            key = f"price:{each.plan_id}:{each.interval}:{each.meter or ''}"
            price = await ask(v1.prices.create_async(params, {"idempotency_key": key}))  # type: ignore[arg-type]  # a plain dict
        async with db.connection() as connection:
            await sql.billing.put_price(
                connection,
                id=price["id"],
                plan_id=each.plan_id,
                billing_interval=each.interval,
                meter=each.meter,
                at=moment(now),
            )
    for price_id in superseded:
        lines += await _retire(client, price_id, dry_run)
    lines += await _portal(db, client, portal, dry_run)
    return lines


def product_id(plan: str) -> str:
    return f"quotagate_{plan}"


async def _current_prices(client: stripe.StripeClient, lookup_keys: list[str]) -> dict[str, Object]:
    prices: list[Object] = []
    for start in range(0, len(lookup_keys), 10):  # at most ten keys a call
        prices += await pages(client, "/v1/prices", {"lookup_keys": lookup_keys[start : start + 10]})
    return {price["lookup_key"]: price for price in prices}


async def _meters(
    db: Database,
    client: stripe.StripeClient,
    wanted: list[str],
    stored: dict[str, sql.billing.StripeMeter],
    dry_run: bool,
) -> list[str]:
    lines: list[str] = []
    if not wanted:
        return lines
    active = await pages(client, "/v1/billing/meters", {"status": "active"})
    by_event = {each["event_name"]: each for each in active}
    for meter in wanted:
        event_name = EVENT_NAME_PREFIX + meter
        existing = by_event.get(event_name)
        if existing is None:
            lines.append(f"meter {meter}: events {event_name}, summed up")
            if dry_run:
                continue
            params: Any = {
                "display_name": meter,
                "event_name": event_name,
                "default_aggregation": {"formula": "sum"},
            }
            existing = await _made_once(client, event_name, params)
        if not dry_run and (meter not in stored or stored[meter].id != existing["id"]):
            async with db.connection() as connection:
                await sql.billing.put_meter(connection, meter=meter, id=existing["id"], event_name=event_name)
    return lines


async def _made_once(client: stripe.StripeClient, event_name: str, params: Any) -> Object:
    """A new meter; or the one that somebody else has made meanwhile."""
    try:
        return await ask(client.v1.billing.meters.create_async(params))
    except StripeRefused:
        for each in await pages(client, "/v1/billing/meters", {"status": "active"}):
            if each["event_name"] == event_name:
                return each
        raise


async def _meter_id(db: Database, meter: str | None) -> str | None:
    if meter is None:
        return None
    async with db.connection() as connection:
        ids = {row.meter: str(row.id) for row in await sql.billing.meters(connection)}
    return ids[meter]


async def _product(client: stripe.StripeClient, code: str, name: str, dry_run: bool) -> list[str]:
    try:
        product = await ask(client.v1.products.retrieve_async(product_id(code)))
    except StripeMissing:
        if not dry_run:
            params: Any = {"id": product_id(code), "name": name, "metadata": {"quotagate_plan": code}}
            try:
                await ask(client.v1.products.create_async(params))
            except StripeRefused as e:
                if e.code != "resource_already_exists":  # by somebody who applies the same plans
                    raise
        return [f"product {product_id(code)}: {name}"]
    if product["name"] == name and product["active"]:
        return []
    if not dry_run:
        await ask(client.v1.products.update_async(product_id(code), {"name": name, "active": True}))
    return [f"product {product_id(code)}: {product['name']} -> {name}"]


async def _retire(client: stripe.StripeClient, price_id: str, dry_run: bool) -> list[str]:
    try:
        price = await ask(client.v1.prices.retrieve_async(price_id))
    except StripeMissing:
        return []
    if not price["active"]:
        return []
    if not dry_run:
        await ask(client.v1.prices.update_async(price_id, {"active": False}))
    return [f"price {price_id}: not sold any more; its subscribers keep it"]


async def _portal(db: Database, client: stripe.StripeClient, configuration_id: str | None, dry_run: bool) -> list[str]:
    """Payment methods, invoices and cancellation. Plans are changed by this plane, which knows what a change means."""
    if configuration_id is not None:
        try:
            configuration = await ask(client.v1.billing_portal.configurations.retrieve_async(configuration_id))
        except StripeMissing:
            configuration = {"active": False}
        if configuration["active"]:
            return []
    if not dry_run:
        params: Any = {
            "features": {
                "customer_update": {"enabled": True, "allowed_updates": ["address", "email", "name", "tax_id"]},
                "invoice_history": {"enabled": True},
                "payment_method_update": {"enabled": True},
                "subscription_cancel": {"enabled": True, "mode": "at_period_end"},
            }
        }
        made = await ask(client.v1.billing_portal.configurations.create_async(params))
        async with db.connection() as connection:
            await sql.billing.put_setting(connection, name=PORTAL, value=made["id"])
    return ["portal: invoices, payment methods, cancellation at the end of the period"]


def exact_price(amount_minor: int, units: int) -> str | None:
    """The price of one unit in minor units, exactly, or None where it has too many decimals."""
    scaled, remainder = divmod(amount_minor * 10**DECIMALS_MAX, units)
    if remainder:
        return None
    text = format(Decimal(scaled).scaleb(-DECIMALS_MAX), "f")
    return text.rstrip("0").rstrip(".") if "." in text else text
