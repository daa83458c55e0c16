"""Clerk's Backend API, as far as the mirror reads it: https://clerk.com/docs/reference/backend-api"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final
from urllib.parse import quote

import httpx

from control.access.people.mirror.objects import Object, Unreadable
from control.settings.control_plane import Clerk as Settings

PAGE_ROWS: Final = 500  # what Clerk gives at most
ANSWER_BYTES_MAX: Final = 16 * 1024 * 1024


class ClerkAway(Exception):
    """Clerk does not answer, or asks to come back later. The message is for the log."""


class ClerkRefused(Exception):
    """Clerk refuses the key, or the request: trying again helps only after somebody has done something."""


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator["ClerkClient"]:
    headers = {"authorization": f"Bearer {settings.secret_key.get_secret_value()}"}
    async with httpx.AsyncClient(
        base_url=settings.api_url, headers=headers, timeout=settings.timeout_seconds, follow_redirects=False
    ) as client:
        yield ClerkClient(client)


class ClerkClient:
    """All calls raise ClerkAway, ClerkRefused, Unreadable."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    async def user(self, id_: str) -> Object | None:
        """None: Clerk has it no more."""
        return await self._one(f"/v1/users/{quote(id_, safe='')}")

    async def organization(self, id_: str) -> Object | None:
        """None: Clerk has it no more."""
        return await self._one(f"/v1/organizations/{quote(id_, safe='')}")

    async def memberships(self, organization: str) -> list[Object] | None:
        """All of an organization's; None: Clerk has it no more."""
        path = f"/v1/organizations/{quote(organization, safe='')}/memberships"
        found: dict[str, Object] = {}
        while True:
            page = await self._get(path, limit=PAGE_ROWS, offset=len(found))
            if page is None:
                return None
            rows = _rows(page)
            before = len(found)
            found |= {str(row.get("id")): row for row in rows}
            if len(rows) < PAGE_ROWS or len(found) == before:
                return list(found.values())

    async def users(self) -> AsyncIterator[Object]:
        async for user in self._listed("/v1/users"):
            yield user

    async def organizations(self) -> AsyncIterator[Object]:
        async for organization in self._listed("/v1/organizations"):
            yield organization

    async def _listed(self, path: str) -> AsyncIterator[Object]:
        offset = 0
        while True:
            # From the oldest on: what is created meanwhile comes last, and shifts nothing.
            rows = _rows(await self._get(path, limit=PAGE_ROWS, offset=offset, order_by="+created_at"))
            for row in rows:
                yield row
            if len(rows) < PAGE_ROWS:
                return
            offset += len(rows)

    async def _one(self, path: str) -> Object | None:
        found = await self._get(path)
        if found is not None and not isinstance(found, dict):
            raise Unreadable("Clerk's answer is no object")
        return found

    async def _get(self, path: str, **query: Any) -> Any:
        """None for 404."""
        try:
            async with self._client.stream("GET", path, params=query) as response:
                if response.status_code == httpx.codes.NOT_FOUND:
                    return None
                if response.status_code == httpx.codes.TOO_MANY_REQUESTS or response.is_server_error:
                    raise ClerkAway(f"Clerk answered {response.status_code}")
                if response.status_code != httpx.codes.OK:
                    raise ClerkRefused(f"Clerk answered {response.status_code}")
                body = bytearray()
                async for chunk in response.aiter_bytes():
                    body += chunk
                    if len(body) > ANSWER_BYTES_MAX:
                        raise Unreadable(f"Clerk's answer exceeds {ANSWER_BYTES_MAX} bytes")
            return httpx.Response(200, content=bytes(body)).json()
        except (httpx.TransportError, httpx.DecodingError) as e:
            raise ClerkAway(f"Clerk does not answer: {type(e).__name__}") from e
        except (ValueError, RecursionError) as e:
            if isinstance(e, Unreadable):
                raise
            raise Unreadable("Clerk's answer is not JSON") from e


def _rows(page: Any) -> list[Object]:
    rows = page.get("data") if isinstance(page, dict) else page
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise Unreadable("Clerk's list is no list of objects")
    return rows
