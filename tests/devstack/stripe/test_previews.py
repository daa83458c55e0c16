"""The next invoice is the one that comes, and asking for it changes nothing."""

import json
from typing import Any

import pytest
import stripe
from stripe._v1_services import V1Services

from devstack.stripe.account import Account
from tests.devstack.stripe.selling import items_of, price, subscribed
from tests.devstack.stripe.shapes import faults_of


def held(account: Account) -> str:
    return json.dumps([account.objects, account.notes], sort_keys=True)


async def preview(client: V1Services, **params: Any) -> dict[str, Any]:
    wanted: Any = params
    made: dict[str, Any] = (await client.invoices.create_preview_async(wanted)).to_dict(for_json=True)
    assert faults_of(made) == []
    return made


async def test_the_preview_is_the_invoice_that_comes_and_nothing_changes(account: Account, client: V1Services) -> None:
    small, large = await price(client, 1000), await price(client, 5000)
    subscription = await subscribed(client, small)
    await client.customers.balance_transactions.create_async(subscription.customer, {"amount": -300, "currency": "usd"})
    [item] = items_of(subscription)
    before = held(account)
    plain = await preview(client, subscription=subscription.id)
    other: Any = {"items": [{"id": item["id"], "price": large}], "proration_behavior": "none"}
    switched = await preview(client, subscription=subscription.id, subscription_details=other)
    assert (plain["total"], plain["amount_due"], switched["total"]) == (1000, 700, 5000)
    assert held(account) == before
    account.advance_to(item["current_period_end"])
    account.advance_to(item["current_period_end"] + 4000)
    renewal = next(account.find("invoice", billing_reason="subscription_cycle"))
    assert (renewal["total"], renewal["amount_paid"]) == (plain["total"], plain["amount_due"])


async def test_who_has_cancelled_has_no_next_invoice(client: V1Services) -> None:
    subscription = await subscribed(client, await price(client))
    ending: Any = {"cancel_at_period_end": True}
    with pytest.raises(stripe.InvalidRequestError) as refused:
        await preview(client, subscription=subscription.id, subscription_details=ending)
    assert refused.value.code == "invoice_upcoming_none"
    await preview(client, subscription=subscription.id)
    await client.subscriptions.cancel_async(subscription.id)
    with pytest.raises(stripe.InvalidRequestError):
        await preview(client, subscription=subscription.id)
