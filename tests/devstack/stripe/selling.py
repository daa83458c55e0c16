"""What a vendor sells in these tests."""

from typing import Any, TypeVar

from stripe._v1_services import V1Services

Kind = TypeVar("Kind")


async def price(client: V1Services, amount: int = 1000, currency: str = "usd", **recurring: Any) -> str:
    product = await client.products.create_async({"name": "A plan"})
    params: Any = {"product": product.id, "currency": currency, "recurring": {"interval": "month", **recurring}}
    return (await client.prices.create_async(params | {"unit_amount": amount})).id


async def metered_price(client: V1Services, event_name: str = "calls", amount: int = 1, **recurring: Any) -> str:
    meter = await client.billing.meters.create_async(
        {"display_name": event_name, "event_name": event_name, "default_aggregation": {"formula": "sum"}}
    )
    return await price(client, amount, usage_type="metered", meter=meter.id, **recurring)


async def subscribed(client: V1Services, price_id: str, **params: Any) -> Any:
    customer = await client.customers.create_async({"payment_method": "pm_card_visa"})
    usual: Any = {"customer": customer.id, "items": [{"price": price_id}]}
    return await client.subscriptions.create_async(usual | params)


def expanded(kind: type[Kind], reference: object) -> Kind:
    """What stands where an id would, as it was asked for."""
    assert isinstance(reference, kind), reference
    return reference


def items_of(subscription: Any) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = subscription.to_dict()["items"]["data"]
    return items
