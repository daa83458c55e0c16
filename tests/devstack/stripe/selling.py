"""What a vendor sells in these tests."""

from typing import Any


async def price(client: Any, amount: int = 1000, currency: str = "usd", **recurring: Any) -> str:
    product = await client.products.create_async({"name": "A plan"})
    params = {"product": product.id, "currency": currency, "recurring": {"interval": "month", **recurring}}
    made: str = (await client.prices.create_async({**params, "unit_amount": amount})).id
    return made


async def metered_price(client: Any, event_name: str = "calls", amount: int = 1, **recurring: Any) -> str:
    meter = await client.billing.meters.create_async(
        {"display_name": event_name, "event_name": event_name, "default_aggregation": {"formula": "sum"}}
    )
    return await price(client, amount, usage_type="metered", meter=meter.id, **recurring)


async def subscribed(client: Any, price_id: str, **params: Any) -> Any:
    customer = await client.customers.create_async({"payment_method": "pm_card_visa"})
    return await client.subscriptions.create_async({"customer": customer.id, "items": [{"price": price_id}], **params})


def items_of(subscription: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = subscription.to_dict()["items"]["data"]
    return found
