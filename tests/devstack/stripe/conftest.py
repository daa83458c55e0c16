"""The double on a real socket, and the SDK as its client."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import stripe
from httpx import AsyncClient
from stripe._v1_services import V1Services

from devstack.ports import free_port
from devstack.stripe.account import Account
from devstack.stripe.app import build
from tests.control.billing.shop import served


@pytest.fixture
def account() -> Account:
    return Account()


@pytest.fixture
async def url(account: Account) -> AsyncIterator[str]:
    app = build(account)
    async with served(app, free_port()) as url:
        yield url
    assert app.state.api.ignored == set()


@pytest.fixture
async def client(url: str) -> AsyncIterator[V1Services]:
    http = stripe.HTTPXClient()
    addresses: Any = {"api": url, "meter_events": url}
    yield stripe.StripeClient("sk_test_double", http_client=http, max_network_retries=0, base_addresses=addresses).v1
    await http.close_async()  # type: ignore[no-untyped-call]  # stripe's own lapse


@pytest.fixture
async def raw(url: str) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(base_url=url, headers={"authorization": "Bearer sk_test_double"}) as client:
        yield client
