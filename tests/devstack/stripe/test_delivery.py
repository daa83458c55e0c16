"""Webhooks of the double are really sent, and survive its restart."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from httpx import AsyncClient
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from devstack.ports import free_port
from devstack.stripe.account import Account
from devstack.stripe.app import build
from tests.control.billing.shop import served

WAIT_SECONDS = 60.0


@asynccontextmanager
async def receiver(port: int) -> AsyncIterator[list[str]]:
    """The ids of the events that were received."""
    received: list[str] = []

    async def take(request: Request) -> Response:
        received.append((await request.json())["id"])
        return Response()

    async with served(Starlette(routes=[Route("/hook", take, methods=["POST"])]), port):
        yield received


async def test_webhooks_that_were_not_delivered_are_after_a_restart_once_each(tmp_path: Path) -> None:
    file, port = tmp_path / "account.json", free_port()
    endpoint = (f"http://127.0.0.1:{port}/hook", "whsec_of_the_tests")
    headers = {"authorization": "Bearer sk_test_double"}
    async with served(build(Account(), file, endpoint), free_port()) as url, AsyncClient(base_url=url) as raw:
        for name in ("A", "B"):
            await raw.post("/v1/customers", data={"name": name}, headers=headers)
        emitted = {each["id"] for each in (await raw.get("/v1/events", headers=headers)).json()["data"]}
    assert len(emitted) == 2
    async with receiver(port) as received:
        async with served(build(Account(), file, endpoint), free_port()) as url, AsyncClient(base_url=url) as raw:
            await raw.post("/_double/flush", timeout=WAIT_SECONDS)
            assert [
                each["pending_webhooks"] for each in (await raw.get("/v1/events", headers=headers)).json()["data"]
            ] == [0, 0]
        account = Account()
        async with served(build(account, file, endpoint), free_port()) as url, AsyncClient(base_url=url) as raw:
            await raw.post("/_double/flush")
        assert sorted(received) == sorted(emitted)
        assert account.note("undelivered") == {}
