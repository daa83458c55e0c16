"""A control plane that mirrors the double of Clerk."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import pytest
from httpx import ASGITransport, AsyncClient

from control.access.people.mirror.objects import EVERYTHING
from control.app import build, opened
from control.http.context import Context
from control.settings.control_plane import Clerk as ClerkSettings
from control.settings.control_plane import Settings
from quota.access import Mark, MarkKind, refusing
from tests.control.access.clerk import SECRET, SECRET_KEY, Clerk, Event, signed
from tests.control.plane import ADMIN_TOKEN, MovedClock

HOOK = "/api/webhooks/clerk"


def mirroring(settings: Settings, clerk: Clerk, **other: Any) -> Settings:
    content = {"secret_key": SECRET_KEY, "webhook_secret": SECRET, "api_url": clerk.url, **other}
    return settings.model_copy(update={"clerk": ClerkSettings.model_validate(content)})


class Mirrored:
    """A control plane that mirrors the double."""

    def __init__(self, context: Context, client: AsyncClient, clock: MovedClock) -> None:
        self.context = context
        self.client = client
        self.clock = clock
        assert context.mirror is not None
        self.inbox = context.mirror.inbox

    async def deliver(self, *events: Event) -> None:
        for event in events:
            answer = await self.client.post(HOOK, content=event.body, headers=signed(event, self.clock.now))
            assert answer.status_code == 200, answer.text

    async def settle(self) -> None:
        await self.inbox.settle()

    async def look_at_everything(self) -> None:
        await self.inbox.ask(EVERYTHING)
        await self.settle()

    async def state(self, users: Sequence[str], orgs: Sequence[str]) -> dict[str, Any]:
        """What is here, in the form of `state_of`."""
        found: dict[str, Any] = {}
        for user in users:
            answer = await self.client.get(f"/v1/users/{user}", headers=ADMIN)
            if answer.status_code == 200:
                found[user] = (answer.json()["email"], answer.json()["name"])
        for org in orgs:
            organization = await self.client.get(f"/v1/organizations/{org}", headers=ADMIN)
            if organization.status_code == 200 and organization.json()["deleted_at"] is None:
                members = await self.client.get(f"/v1/organizations/{org}/members", headers=ADMIN)
                roles = {each["user"]: each["role"] for each in members.json()["members"]}
                found[org] = (organization.json()["name"], roles)
        return found

    async def refused(self, org: str, user: str, issued_at: float) -> bool:
        marks = [Mark(MarkKind.USER, user), Mark(MarkKind.ORGANIZATION, "")]
        return refusing((await self.context.ledger.look(org, None, marks)).marks, issued_at) is not None


ADMIN = {"authorization": f"Bearer {ADMIN_TOKEN}"}


def state_of(clerk: Clerk) -> dict[str, Any]:
    roles = {"org:member": "member", "org:admin": "admin"}
    users = {
        id_: (user["email_addresses"][0]["email_address"] if user["email_addresses"] else None, user["first_name"])
        for id_, user in clerk.users.items()
    }
    orgs = {
        id_: (name, {user: roles.get(role, "member") for user, role in clerk.members[id_].items()})
        for id_, name in clerk.organizations.items()
    }
    return {**users, **orgs}


@asynccontextmanager
async def started(settings: Settings, clock: MovedClock) -> AsyncIterator[Mirrored]:
    async with opened(settings, clock) as context:
        transport = ASGITransport(build(context), raise_app_exceptions=False)
        async with AsyncClient(transport=transport, base_url="http://control") as client:
            yield Mirrored(context, client, clock)


def new(kind: str) -> str:
    return f"{kind}_{uuid4().hex[:12]}"


@pytest.fixture
async def clerk() -> AsyncIterator[Clerk]:
    async with Clerk().listening() as listening:
        yield listening


@pytest.fixture
async def mirrored(settings: Settings, clerk: Clerk, clock: MovedClock, context: Context) -> AsyncIterator[Mirrored]:
    async with started(mirroring(settings, clerk), clock) as it:
        yield it
