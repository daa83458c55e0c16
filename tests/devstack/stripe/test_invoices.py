"""What becomes of an invoice that is not paid."""

import pytest
import stripe
from stripe._v1_services import V1Services

from tests.devstack.stripe.selling import price, subscribed


async def test_only_an_open_invoice_becomes_a_bad_debt(client: V1Services) -> None:
    """https://docs.stripe.com/invoicing/overview"""
    plan = await price(client)
    paid = (await subscribed(client, plan)).latest_invoice
    sent = (await subscribed(client, plan, collection_method="send_invoice", days_until_due=3)).latest_invoice
    with pytest.raises(stripe.InvalidRequestError, match="open invoice"):
        await client.invoices.mark_uncollectible_async(paid)
    assert (await client.invoices.retrieve_async(paid)).status == "paid"
    assert (await client.invoices.mark_uncollectible_async(sent)).status == "uncollectible"
    with pytest.raises(stripe.InvalidRequestError, match="open invoice"):
        await client.invoices.mark_uncollectible_async(sent)
