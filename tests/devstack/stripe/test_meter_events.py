"""Events of meters: which count, and which come again."""

from typing import Any

import pytest
import stripe
from stripe._v1_services import V1Services

from devstack.stripe.account import Account
from tests.devstack.stripe.selling import expanded, items_of, metered_price, subscribed

DAY = 86_400


async def test_an_identifier_that_comes_again_after_a_day_is_another_event_and_both_count(
    client: V1Services, account: Account
) -> None:
    """https://docs.stripe.com/api/billing/meter-event/create#create_billing_meter_event-identifier"""
    subscription = await subscribed(client, await metered_price(client))
    payload = {"stripe_customer_id": subscription.customer, "value": "7"}
    event: Any = {"event_name": "calls", "payload": payload, "identifier": "one"}
    await client.billing.meter_events.create_async(event)
    account.advance_to(account.clock.now() + DAY - 60)
    with pytest.raises(stripe.InvalidRequestError, match="already exists with identifier"):
        await client.billing.meter_events.create_async(event)
    account.advance_to(account.clock.now() + 120)
    await client.billing.meter_events.create_async(event | {"payload": {**payload, "value": "5"}})
    account.advance_to(items_of(subscription)[0]["current_period_end"] + 3601)
    newest = await client.subscriptions.retrieve_async(subscription.id, {"expand": ["latest_invoice"]})
    assert [line.quantity for line in expanded(stripe.Invoice, newest.latest_invoice).lines.data] == [12]
