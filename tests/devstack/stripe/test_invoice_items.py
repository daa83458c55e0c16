"""Invoice items at the double. https://docs.stripe.com/billing/invoices/subscription#adding-upcoming-invoice-items"""

from typing import Any

import pytest
import stripe
from stripe._v1_services import V1Services

from devstack.stripe.account import Account
from tests.devstack.stripe.selling import items_of, price, subscribed


async def test_an_item_waits_for_the_next_invoice_of_its_subscription(client: V1Services, account: Account) -> None:
    plan = await price(client)
    subscription = await subscribed(client, plan)
    item: Any = {
        "customer": subscription.customer,
        "unit_amount_decimal": "0.5",
        "quantity": 7,
        "subscription": subscription.id,
    }
    made = await client.invoice_items.create_async(item | {"metadata": {"a": "b"}})
    assert (made.amount, made.currency, made.invoice) == (4, "usd", None)
    account.advance_to(items_of(subscription)[0]["current_period_end"] + 3601)
    (newest,) = (await client.invoices.list_async({"subscription": subscription.id, "limit": 1})).data
    assert newest.total == 1004
    parents = [(line.metadata.to_dict(), line.parent and line.parent.type) for line in newest.lines.data]
    assert [metadata for metadata, parent in parents if parent == "invoice_item_details"] == [{"a": "b"}]
    with pytest.raises(stripe.InvalidRequestError, match="cannot be deleted"):
        await client.invoice_items.delete_async(made.id)


async def test_an_item_goes_onto_a_draft_and_off_it_and_onto_nothing_that_is_final(
    client: V1Services, account: Account
) -> None:
    subscription = await subscribed(client, await price(client))
    account.advance_to(items_of(subscription)[0]["current_period_end"])
    (draft,) = (await client.invoices.list_async({"subscription": subscription.id, "status": "draft"})).data
    item: Any = {"customer": subscription.customer, "amount": 7, "currency": "usd", "invoice": draft.id}
    made = await client.invoice_items.create_async(item)
    assert (await client.invoices.retrieve_async(draft.id)).total == 1007
    await client.invoice_items.delete_async(made.id)
    assert (await client.invoices.retrieve_async(draft.id)).total == 1000
    await client.invoices.finalize_invoice_async(draft.id)
    with pytest.raises(stripe.InvalidRequestError, match="draft invoice"):
        await client.invoice_items.create_async(item)
    other = await subscribed(client, await price(client, interval="week"))
    account.advance_to(items_of(other)[0]["current_period_end"])
    (theirs,) = (await client.invoices.list_async({"subscription": other.id, "status": "draft"})).data
    with pytest.raises(stripe.InvalidRequestError, match="another customer's"):
        await client.invoice_items.create_async(item | {"invoice": theirs.id})
