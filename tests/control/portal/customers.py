"""People of organizations, in their portal."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from fastapi.routing import iter_route_contexts
from httpx import ASGITransport, AsyncClient

from control.access.signin.same_origin import token_of
from control.app import build
from control.http.context import Context
from control.http.signed_in import PORTAL_COOKIE

OWN_PAGE = {"sec-fetch-site": "same-origin"}


class Customer:
    """A browser that has come in by a link."""

    def __init__(self, client: AsyncClient, secret: str) -> None:
        self.client = client
        self.secret = secret

    @property
    def cookie(self) -> dict[str, str]:
        return OWN_PAGE | {"cookie": f"{PORTAL_COOKIE}={self.secret}"}

    async def open(self, path: str, status: int = 200) -> str:
        answer = await self.client.get(path, headers=self.cookie)
        assert answer.status_code == status, (path, answer.status_code, answer.text)
        return answer.text

    async def send(self, path: str, status: int, **fields: str) -> str:
        """A form of a page of the portal."""
        form = {"token": token_of(self.secret), **fields}
        answer = await self.client.post(path, data=form, headers=self.cookie)
        assert answer.status_code == status, (path, answer.status_code, answer.text)
        return answer.text


def secret_in(headers: Mapping[str, str]) -> str:
    return headers["set-cookie"].partition(f"{PORTAL_COOKIE}=")[2].partition(";")[0]


@asynccontextmanager
async def customer(context: Context, admin: AsyncClient, org: str, **content: Any) -> AsyncIterator[Customer]:
    made = await admin.post("/v1/portal-sessions", json={"org": org, **content})
    assert made.status_code == 201, made.text
    code = made.json()["url"].partition("code=")[2]
    transport = ASGITransport(build(context), raise_app_exceptions=False)
    async with AsyncClient(transport=transport, base_url="http://control") as client:
        came_in = await client.post("/portal/link", data={"code": code}, headers=OWN_PAGE)
        assert (came_in.status_code, came_in.headers["location"]) == (303, "/portal"), came_in.text
        client.cookies.clear()  # each request names its own
        yield Customer(client, secret_in(came_in.headers))


def pages_of_portal(context: Context) -> list[str]:
    """Those that a customer opens."""
    apart = {"/portal/link", "/portal/logo", "/portal/brand.css", "/portal/sign-in", "/portal/signed-out"}
    apart |= {"/portal/quotagate-usage.js", "/portal/sign-in/go", "/portal/signed-in"}
    paths = {str(route.path) for route in iter_route_contexts(build(context).routes) if "GET" in (route.methods or ())}
    return sorted(path for path in paths if path.startswith("/portal") and path not in apart)
