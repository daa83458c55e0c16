"""Records of usage as an organization reports them, and what became of them."""

from collections.abc import Awaitable, Callable
from typing import Any
from uuid import uuid4

import pytest
from httpx import AsyncClient, Response

from control.http.context import Context
from quota import keys
from tests.control.plane import TokenOf
from tests.replies import as_entries

Post = Callable[[str, Any], Awaitable[Response]]


def record(**other: Any) -> dict[str, Any]:
    return {"meter": "api_calls", "units": 1, "idempotency_key": uuid4().hex, **other}


@pytest.fixture
def post(nobody: AsyncClient, token_of: TokenOf) -> Post:
    """Sends what is given, with the organization's own token."""

    async def send(org: str, content: Any) -> Response:
        return await nobody.post("/v1/usage", json=content, headers={"authorization": f"Bearer {token_of(org)}"})

    return send


async def events(context: Context, org: str) -> int:
    """Of the organization, in its stream."""
    entries = as_entries(await context.ledger.redis.xrange(keys.events_key(keys.shard_of(org, 32))))
    return sum(entry[1][b"e"].split(b" ")[2] == org.encode() for entry in entries)


def statuses(response: Response) -> list[int]:
    assert response.status_code == 200, response.text
    return [result["status"] for result in response.json()["results"]]


def field_of(problem: dict[str, Any]) -> str:
    return str(problem["errors"][0]["field"])
