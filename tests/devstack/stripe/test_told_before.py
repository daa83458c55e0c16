"""What the double did otherwise than Stripe once: meter events, bad debts, and deliveries over a restart."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import stripe
from httpx import AsyncClient
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from stripe._v1_services import V1Services

from devstack.ports import free_port
from devstack.stripe.account import Account
from devstack.stripe.app import build
from tests.control.billing.shop import served
from tests.devstack.stripe.selling import expanded, items_of, metered_price, price, subscribed

DAY = 86_400
WAIT_SECONDS = 60.0


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


@asynccontextmanager
async def receiver(port: int) -> AsyncIterator[list[str]]:
    """The ids of the events that came."""
    came: list[str] = []

    async def take(request: Request) -> Response:
        came.append((await request.json())["id"])
        return Response()

    async with served(Starlette(routes=[Route("/hook", take, methods=["POST"])]), port):
        yield came


async def test_webhooks_that_were_not_delivered_are_after_a_restart_once_each(tmp_path: Path) -> None:
    file, port = tmp_path / "account.json", free_port()
    endpoint = (f"http://127.0.0.1:{port}/hook", "whsec_of_the_tests")
    headers = {"authorization": "Bearer sk_test_double"}
    async with served(build(Account(), file, endpoint), free_port()) as url, AsyncClient(base_url=url) as raw:
        for name in ("A", "B"):
            await raw.post("/v1/customers", data={"name": name}, headers=headers)
        wanted = {each["id"] for each in (await raw.get("/v1/events", headers=headers)).json()["data"]}
    assert len(wanted) == 2
    async with receiver(port) as came:
        async with served(build(Account(), file, endpoint), free_port()) as url, AsyncClient(base_url=url) as raw:
            await raw.post("/_double/flush", timeout=WAIT_SECONDS)
            assert [
                each["pending_webhooks"] for each in (await raw.get("/v1/events", headers=headers)).json()["data"]
            ] == [0, 0]
        account = Account()
        async with served(build(account, file, endpoint), free_port()) as url, AsyncClient(base_url=url) as raw:
            await raw.post("/_double/flush")
        assert sorted(came) == sorted(wanted)
        assert account.note("undelivered") == {}
