"""The double as a client meets it: what Stripe refuses it refuses, and what it says is Stripe's shape."""

from pathlib import Path
from typing import Any

import pytest
import stripe
from httpx import AsyncClient
from stripe._v1_services import V1Services

from devstack.ports import free_port
from devstack.stripe.account import Account
from devstack.stripe.app import build
from tests.control.billing.shop import served
from tests.devstack.stripe.selling import expanded, price, subscribed

DAY = 86_400


@pytest.mark.parametrize(
    ("path", "form", "code"),
    [
        ("customers", {"nmae": "x"}, "parameter_unknown"),
        ("customers", {"address[ctiy]": "x"}, "parameter_unknown"),
        ("prices", {"unit_amount": "5"}, "parameter_missing"),
        ("prices", {"currency": "usd", "unit_amount": "five", "product_data[name]": "x"}, "parameter_invalid_integer"),
        ("prices", {"currency": "usd", "recurring[interval]": "fortnight"}, "parameter_invalid"),
        ("subscriptions", {"customer": "cus_1", "items[0][prcie]": "x"}, "parameter_unknown"),
    ],
)
async def test_what_the_sdks_types_forbid_is_refused_with_its_parameter(
    raw: AsyncClient, path: str, form: dict[str, str], code: str
) -> None:
    response = await raw.post(f"/v1/{path}", data=form)
    assert response.status_code == 400
    assert response.json()["error"]["code"] == code
    assert response.json()["error"]["param"]


async def test_an_idempotency_key_answers_again_and_refuses_another_body(client: V1Services, raw: AsyncClient) -> None:
    headers = {"idempotency-key": "k1"}
    one = await raw.post("/v1/customers", data={"name": "A"}, headers=headers)
    two = await raw.post("/v1/customers", data={"name": "A"}, headers=headers)
    assert one.json() == two.json()
    assert two.headers["idempotent-replayed"] == "true"
    other = await raw.post("/v1/customers", data={"name": "B"}, headers=headers)
    assert other.json()["error"]["type"] == "idempotency_error"
    assert len((await client.customers.list_async()).data) == 1


async def test_a_restricted_key_does_what_it_may(raw: AsyncClient, url: str) -> None:
    key = (await raw.post("/_double/keys", json={"permissions": ["customers:read"]})).json()["key"]
    async with AsyncClient(base_url=url, headers={"authorization": f"Bearer {key}"}) as restricted:
        assert (await restricted.get("/v1/customers")).status_code == 200
        assert (await restricted.post("/v1/customers")).status_code == 403
    assert (await raw.get("/v1/customers", headers={"authorization": "Bearer sk_live_x"})).status_code == 401


async def test_lists_page_both_ways_and_expand_what_they_refer_to(client: V1Services) -> None:
    price_id = await price(client)
    ids = [(await subscribed(client, price_id)).id for _ in range(5)]
    newest = ids[::-1]
    page = await client.subscriptions.list_async({"limit": 2, "expand": ["data.customer", "data.latest_invoice"]})
    assert [each.id for each in page.data] == newest[:2]
    assert page.has_more
    assert isinstance(page.data[0].customer, stripe.Customer)
    assert expanded(stripe.Invoice, page.data[0].latest_invoice).status == "paid"
    after = await client.subscriptions.list_async({"limit": 2, "starting_after": newest[3]})
    assert ([each.id for each in after.data], after.has_more) == ([newest[4]], False)
    before = await client.subscriptions.list_async({"limit": 2, "ending_before": newest[3]})
    assert ([each.id for each in before.data], before.has_more) == (newest[1:3], True)


async def test_an_upgrade_is_prorated_to_the_second_and_the_cent(client: V1Services, account: Account) -> None:
    cheap, dear = await price(client, 1000), await price(client, 3000)
    subscription = await subscribed(client, cheap)
    item = subscription.to_dict()["items"]["data"][0]
    start, end = item["current_period_start"], item["current_period_end"]
    account.advance_to(start + (end - start) // 4)
    wanted: Any = {"items": [{"id": item["id"], "price": dear}], "proration_behavior": "always_invoice"}
    changed = await client.subscriptions.update_async(
        subscription.id, wanted | {"payment_behavior": "pending_if_incomplete"}
    )
    invoice = await client.invoices.retrieve_async(expanded(str, changed.latest_invoice))
    assert [line.amount for line in invoice.lines.data] == [-750, 2250]
    assert (invoice.total, invoice.status) == (1500, "paid")
    assert changed.to_dict()["items"]["data"][0]["current_period_end"] == end


async def test_a_payment_that_fails_is_tried_three_times_more_and_then_given_up(
    client: V1Services, account: Account
) -> None:
    subscription = await subscribed(client, await price(client))
    customer = account.get("customer", subscription.customer)
    from devstack.stripe.resources import customers

    customers.set_card(account, customer["id"], "declines")
    account.advance_to(subscription.to_dict()["items"]["data"][0]["current_period_end"] + 3600)
    assert (await client.subscriptions.retrieve_async(subscription.id)).status == "past_due"
    account.advance_to(account.clock.now() + 15 * DAY)
    assert (await client.subscriptions.retrieve_async(subscription.id)).status == "unpaid"
    events = [each["type"] for each in account.find("event")]
    assert events.count("invoice.payment_failed") == 4


async def test_usage_is_billed_by_the_unit_by_packages_or_by_tiers(client: V1Services, account: Account) -> None:
    meter = await client.billing.meters.create_async(
        {"display_name": "calls", "event_name": "calls", "default_aggregation": {"formula": "sum"}}
    )
    recurring: Any = {"interval": "month", "usage_type": "metered", "meter": meter.id}
    product = (await client.products.create_async({"name": "Calls"})).id
    common: Any = {"product": product, "currency": "usd", "recurring": recurring}
    tiers = [{"up_to": 1000, "unit_amount": 1}, {"up_to": "inf", "unit_amount_decimal": "0.5"}]
    for more, total in (
        ({"unit_amount_decimal": "0.3"}, 375),  # 1,250 times 0.3 cents
        ({"unit_amount": 300, "transform_quantity": {"divide_by": 1000, "round": "up"}}, 600),
        ({"billing_scheme": "tiered", "tiers_mode": "graduated", "tiers": tiers}, 1125),
        ({"billing_scheme": "tiered", "tiers_mode": "volume", "tiers": tiers}, 625),
    ):
        subscription = await subscribed(client, (await client.prices.create_async(common | more)).id)
        payload = {"stripe_customer_id": subscription.customer, "value": "1250"}
        event: Any = {"event_name": "calls", "payload": payload, "identifier": f"one-{total}"}
        await client.billing.meter_events.create_async(event)
        with pytest.raises(stripe.InvalidRequestError, match="already exists with identifier"):
            await client.billing.meter_events.create_async(event)
        account.advance_to(subscription.to_dict()["items"]["data"][0]["current_period_end"] + 3600)
        newest = await client.subscriptions.retrieve_async(subscription.id, {"expand": ["latest_invoice"]})
        assert expanded(stripe.Invoice, newest.latest_invoice).total == total


async def test_an_account_is_the_same_after_a_restart(tmp_path: Path, account: Account) -> None:
    file = tmp_path / "account.json"
    async with served(build(account, file), free_port()) as url, AsyncClient(base_url=url) as raw:
        headers = {"authorization": "Bearer sk_test_double"}
        made = (await raw.post("/v1/customers", data={"name": "A"}, headers=headers)).json()
        await raw.post("/_double/clock", json={"advance_seconds": 90 * DAY})
    again = Account()
    async with served(build(again, file), free_port()) as url, AsyncClient(base_url=url) as raw:
        customer = (await raw.get(f"/v1/customers/{made['id']}", headers=headers)).json()
        assert customer == made
        assert abs((await raw.get("/_double/clock")).json()["now"] - account.clock.now()) <= 2
