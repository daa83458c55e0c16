"""Calls of the control API with an API key of an organization."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import pytest
from httpx import ASGITransport, AsyncClient
from redis.asyncio import Redis

from control.access.keys.index import KeyIndex
from control.app import build
from control.http.context import Context
from control.moments import moment
from identity.api_key import generate
from quota import keys
from tests.control.access.keys import created
from tests.control.plane import Entitled, MovedClock


def bearer(key: dict[str, Any] | str) -> dict[str, str]:
    return {"authorization": f"Bearer {key if isinstance(key, str) else key['key']}"}


@asynccontextmanager
async def client_at(context: Context, address: str) -> AsyncIterator[AsyncClient]:
    transport = ASGITransport(build(context), client=(address, 50_000))
    async with AsyncClient(transport=transport, base_url="http://control") as client:
        yield client


@pytest.fixture(autouse=True)
async def index(context: Context, catalogue: None) -> None:
    await context.recovery.round()
    await KeyIndex(context.db, context.ledger).round()


async def test_a_key_reads_its_organization_and_reports_usage_and_reaches_nothing_else(
    entitled: Entitled, admin: AsyncClient, nobody: AsyncClient
) -> None:
    org, other = await entitled("tiny"), await entitled("tiny")
    headers = bearer(await created(admin, org))
    assert (await nobody.get(f"/v1/entitlements/{org}", headers=headers)).status_code == 200
    record = {"meter": "api_calls", "units": 1, "idempotency_key": uuid4().hex}
    assert (await nobody.post("/v1/usage", headers=headers, json=record)).status_code == 200
    for method, path in (
        ("GET", f"/v1/entitlements/{other}"),
        ("POST", f"/v1/organizations/{org}/portal-sessions"),
        ("GET", f"/v1/organizations/{org}/keys"),
        ("POST", f"/v1/organizations/{org}/keys"),
        ("GET", "/v1/incidents"),
    ):
        assert (await nobody.request(method, path, headers=headers, json={})).status_code == 403, path


@pytest.mark.parametrize(
    ("change", "status", "reason"),
    [
        ({"enabled": False}, 401, "key_disabled"),
        ({"scopes": ["route:a"]}, 403, "key_scope"),
        ({"networks": ["192.0.2.0/24"]}, 403, "key_address"),
    ],
)
async def test_a_key_that_may_not_is_refused_with_the_reason_from_the_answer_on(
    context: Context, entitled: Entitled, admin: AsyncClient, change: dict[str, object], status: int, reason: str
) -> None:
    org = await entitled("tiny")
    key = await created(admin, org)
    async with client_at(context, "198.51.100.7") as client:
        assert (await client.get(f"/v1/entitlements/{org}", headers=bearer(key))).status_code == 200
        await admin.patch(f"/v1/organizations/{org}/keys/{key['id']}", json=change)
        refused = await client.get(f"/v1/entitlements/{org}", headers=bearer(key))
    assert (refused.status_code, refused.json()["reason"]) == (status, reason)


async def test_a_key_is_used_from_its_networks_only(context: Context, entitled: Entitled, admin: AsyncClient) -> None:
    org = await entitled("tiny")
    key = await created(admin, org, networks=["192.0.2.0/24"])
    async with client_at(context, "192.0.2.9") as client:
        assert (await client.get(f"/v1/entitlements/{org}", headers=bearer(key))).status_code == 200


async def test_keys_that_are_revoked_expired_unknown_or_of_a_revoked_organization_are_refused(
    entitled: Entitled, admin: AsyncClient, nobody: AsyncClient, clock: MovedClock
) -> None:
    org, gone = await entitled("tiny"), await entitled("tiny")
    revoked, expiring = (
        await created(admin, org),
        await created(admin, org, expires_at=moment(clock.now + 60).isoformat()),
    )
    theirs, users = await created(admin, gone), await created(admin, org, user="u1")
    await admin.delete(f"/v1/organizations/{org}/keys/{revoked['id']}")
    await admin.post(f"/v1/organizations/{gone}/revocations", json={"kind": "organization"})
    await admin.post(f"/v1/organizations/{org}/revocations", json={"kind": "user", "subject": "u1"})
    clock.move(minutes=2)
    good = (await created(admin, org))["key"]
    mistyped = good[:-8] + ("x" if good[-8] != "x" else "y") + good[-7:]
    for key, reason in (
        (revoked, "key_revoked"),
        (expiring, "key_expired"),
        (theirs, "organization_revoked"),
        (users, "user_revoked"),
        (generate("qg", "live"), "key_unknown"),
        (generate("qg", "test"), "key_environment"),
        (mistyped, "key_checksum"),
    ):
        refused = await nobody.get(f"/v1/entitlements/{org}", headers=bearer(key))
        assert (refused.status_code, refused.json()["reason"]) == (401, reason)


async def test_a_key_works_while_redis_has_lost_everything_and_a_revoked_one_does_not(
    entitled: Entitled, admin: AsyncClient, nobody: AsyncClient, redis: Redis
) -> None:
    org = await entitled("tiny")
    good, revoked = await created(admin, org), await created(admin, org)
    await admin.delete(f"/v1/organizations/{org}/keys/{revoked['id']}")
    await redis.flushall()
    assert (await nobody.get(f"/v1/organizations/{org}", headers=bearer(good))).status_code == 200
    refused = await nobody.get(f"/v1/organizations/{org}", headers=bearer(revoked))
    assert (refused.status_code, refused.json()["reason"]) == (401, "key_revoked")
    assert await redis.get(keys.org_key(org, 32)) is None
