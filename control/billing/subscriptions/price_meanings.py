"""What Stripe's prices stand for: a plan version, or the overage of one of its meters."""

from control import sql
from control.billing.objects import Object, id_of
from control.billing.subscriptions.customer_look import Look
from control.billing.subscriptions.translate import PriceMeaning
from control.db import Connection, Database
from control.moments import moment

PLAN = "quotagate_plan"
"""The metadata field of a price that was made by hand: the plan it sells."""


async def price_meanings(db: Database, look: Look, now: float) -> dict[str, PriceMeaning]:
    """Of the subscriptions' prices, those of phases to come included. Raises StoreUnavailable."""
    prices = prices_of(look)
    async with db.connection() as connection:
        rows = await sql.billing.prices(connection, ids=list(prices))
        sold = {row.id: PriceMeaning(row.plan_id, row.code, row.version, row.meter) for row in rows}
        for price_id, price in prices.items():
            if price is not None and price_id not in sold:
                adopted = await _adopted(connection, price_id, price, now)
                if adopted is not None:
                    sold[price_id] = adopted
    return sold


def prices_of(look: Look) -> dict[str, Object | None]:
    """By their ids; None where a phase names only the id. Pure."""
    prices: dict[str, Object | None] = {}
    for subscription in look.subscriptions:
        schedule = subscription.get("schedule")
        phases = schedule["phases"] if isinstance(schedule, dict) else []
        for item in (*subscription["items"]["data"], *(item for phase in phases for item in phase["items"])):
            price, price_id = item["price"], id_of(item["price"]) or ""
            prices[price_id] = price if isinstance(price, dict) else prices.get(price_id)
    return prices


async def _adopted(connection: Connection, price_id: str, price: Object, now: float) -> PriceMeaning | None:
    """A price that was made by hand, for a plan that is sold by people, names its plan."""
    code = (price.get("metadata") or {}).get(PLAN)
    plan = await sql.billing.newest_plan(connection, code=code) if code else None
    if plan is None:
        return None
    interval = (price.get("recurring") or {}).get("interval", "month")
    if interval in ("month", "year"):
        await sql.billing.adopt_price(
            connection, id=price_id, plan_id=plan.id, billing_interval=interval, at=moment(now)
        )
    return PriceMeaning(plan.id, plan.code, plan.version, None)
