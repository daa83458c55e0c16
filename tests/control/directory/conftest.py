from collections.abc import Awaitable, Callable
from uuid import uuid4

import pytest
from httpx import AsyncClient

from control.http.context import Context

Listed = Callable[..., Awaitable[list[str]]]


@pytest.fixture
def marker() -> str:
    """A word that is in the names of one test's organizations only: the database is the module's."""
    return f"m{uuid4().hex[:10]}"


@pytest.fixture
def listed(context: Context, admin: AsyncClient) -> Listed:
    """The ids of all organizations that a query lists, by pages, once the directory has followed."""

    async def read(limit: int = 100, **query: object) -> list[str]:
        while await context.directory.round():
            pass
        seen: list[str] = []
        after: str | None = None
        while True:
            parameters = {**query, "limit": limit} | ({} if after is None else {"after": after})
            answer = await admin.get("/v1/organizations", params=parameters)  # type: ignore[arg-type]  # numbers and words
            assert answer.status_code == 200, answer.text
            seen += [each["id"] for each in answer.json()["organizations"]]
            after = answer.json()["next"]
            if after is None:
                return seen

    return read
