"""The Stripe double in this process: its clock stands where the history is, and Stripe's SDK calls it directly."""

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import stripe
from starlette.requests import Request

from devstack.stripe.account import Account, Clock
from devstack.stripe.api import Api


class StandingClock(Clock):
    """A clock that only moves when the account is advanced."""

    def __init__(self, starts_at: int) -> None:
        super().__init__()
        self._starts_at = starts_at

    def now(self) -> int:
        return self.stopped_at if self.stopped_at is not None else self._starts_at + self.offset_seconds

    def earliest(self) -> int:
        return self.now()


def new_account(starts_at: int, seed: str) -> Account:
    """An empty account, whose ids are the same each time."""
    account = Account(StandingClock(starts_at))
    account.choose = random.Random(f"{seed}/ids").choice  # noqa: S311  # ids of a double: repeatable, not secret
    return account


class _InProcess(stripe.HTTPClient):
    """Sends requests of the SDK to the double's app itself."""

    name = "in-process"

    def __init__(self, api: Api) -> None:
        super().__init__()
        self._api = api

    async def request_async(
        self, method: str, url: str, headers: Any, post_data: Any = None
    ) -> tuple[bytes, int, dict[str, str]]:
        parts, body = urlsplit(url), (post_data or "").encode()
        scope = {
            "type": "http",
            "method": method.upper(),
            "path": parts.path,
            "query_string": parts.query.encode(),
            "headers": [(name.lower().encode(), str(value).encode()) for name, value in headers.items()],
            "server": ("stripe", 80),
            "scheme": "http",
        }

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": body, "more_body": False}

        answer = await self._api.call(Request(scope, receive))
        return bytes(answer.body), answer.status_code, dict(answer.headers)

    async def close_async(self) -> None:
        pass


@asynccontextmanager
async def client_of(account: Account) -> AsyncIterator[stripe.StripeClient]:
    """Stripe's client, whose calls the account answers."""
    stripe.enable_telemetry = False
    yield stripe.StripeClient("sk_test_history", http_client=_InProcess(Api(account)), max_network_retries=0)
