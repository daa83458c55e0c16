"""A site as its plugin has it: a key, a domain, and the tokens that it got. It speaks the protocol of
docs/activation.md, and has nothing of the control plane's code."""

import hmac
import secrets
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from copy import copy
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any
from uuid import uuid4

import pytest
from httpx import ASGITransport, AsyncClient, Response

from control.app import build
from control.http.context import Context

AGAIN = "urn:quotagate:problem:activate-again"
REFUSED = "urn:quotagate:problem:activation-refused"


@dataclass
class Site:
    client: AsyncClient
    domain: str
    secret: bytes = field(default_factory=lambda: secrets.token_bytes(32))
    tokens: dict[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> bytes:
        return sha256(self.secret).digest()

    @property
    def id(self) -> str:
        return str(self.tokens["site"])

    @property
    def kind(self) -> str:
        return str(self.tokens["kind"])

    @property
    def refresh_token(self) -> str:
        return str(self.tokens["refresh_token"])

    def proof(self, purpose: str, secret: str) -> str:
        text = f"quotagate {purpose}\n{secret}\n{self.domain}".encode()
        return base64url(hmac.digest(self.key, text, "sha256"))

    async def ask_activation(self, code: str, **more: Any) -> Response:
        content = {"code": code, "domain": self.domain, "site_key": f"hmac-sha256:{base64url(self.key)}"}
        return await self.client.post("/v1/activations", json=content | {"proof": self.proof("activate", code)} | more)

    async def activate(self, code: str, **more: Any) -> Response:
        return self._keep(await self.ask_activation(code, **more), 201)

    async def ask_refresh(self, token: str | None = None, **more: Any) -> Response:
        shown = self.refresh_token if token is None else token
        content = {"refresh_token": shown, "domain": self.domain, "proof": self.proof("refresh", shown)}
        return await self.client.post("/v1/activations/refresh", json=content | more)

    async def refresh(self, **more: Any) -> Response:
        return self._keep(await self.ask_refresh(**more), 200)

    async def release(self) -> Response:
        shown = self.refresh_token
        content = {"refresh_token": shown, "domain": self.domain, "proof": self.proof("release", shown)}
        return await self.client.post("/v1/activations/release", json=content)

    def copied_to(self, domain: str) -> "Site":
        """All files and the whole database, at another domain."""
        other = copy(self)
        other.domain, other.tokens = domain, dict(self.tokens)
        return other

    def _keep(self, answer: Response, status: int) -> Response:
        assert answer.status_code == status, answer.text
        self.tokens = answer.json()
        return answer


class Sites:
    """Makes sites. Each has an address of its own, since wrong secrets are counted by address."""

    def __init__(self, context: Context, stack: AsyncExitStack) -> None:
        self._app = build(context)
        self._stack = stack
        self._made = 0

    def client(self) -> AsyncClient:
        self._made += 1
        address = f"10.{self._made >> 16}.{self._made >> 8 & 255}.{self._made & 255}"
        transport = ASGITransport(self._app, raise_app_exceptions=False, client=(address, 50000))
        client = AsyncClient(transport=transport, base_url="http://control")
        self._stack.push_async_callback(client.aclose)
        return client

    def __call__(self, domain: str | None = None) -> Site:
        return Site(self.client(), domain or f"https://{uuid4().hex[:12]}.example.com")


@pytest.fixture
async def sites(context: Context) -> AsyncIterator[Sites]:
    async with AsyncExitStack() as stack:
        yield Sites(context, stack)


async def code_of(admin: AsyncClient, org: str, **content: Any) -> str:
    answer = await admin.post(f"/v1/organizations/{org}/activation-codes", json=content)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["code"])


async def listed(admin: AsyncClient, org: str, state: str | None = "active") -> list[dict[str, Any]]:
    answer = await admin.get(f"/v1/organizations/{org}/sites", params={"state": state} if state else {})
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["sites"]
    return found


async def actions(admin: AsyncClient, org: str) -> list[str]:
    """Of the organization's journal that are about sites, the oldest first."""
    entries = (await admin.get(f"/v1/organizations/{org}/journal", params={"limit": 500})).json()["entries"]
    return [each["action"] for each in reversed(entries) if each["action"].startswith("site.")]


async def incidents_of(admin: AsyncClient, org: str) -> list[dict[str, Any]]:
    answer = await admin.get("/v1/incidents", params={"status": "open", "limit": 500})
    assert answer.status_code == 200, answer.text
    return [each for each in answer.json()["incidents"] if each["org"] == org and each["kind"] == "site_cloned"]


def again(answer: Response) -> str:
    """Why the site has to be activated again."""
    assert (answer.status_code, answer.json()["type"]) == (401, AGAIN), answer.text
    return str(answer.json()["reason"])


def base64url(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()
