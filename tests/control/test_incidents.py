"""What an admin must look at: told once for each cause, until somebody has seen to it."""

import asyncio
from typing import Any
from uuid import uuid4

import pytest
from httpx import AsyncClient
from redis.asyncio import Redis

from control import incidents
from control.http.context import Context
from quota import keys
from tests.control.plane import TokenOf


@pytest.fixture(autouse=True)
async def none_of_the_test_before(context: Context) -> None:
    async with context.db.connection() as connection:
        await connection.execute("DELETE FROM incident")
        await connection.execute("DELETE FROM usage_watermark")


async def test_what_happens_again_counts_up_the_one_that_is_open(context: Context, admin: AsyncClient) -> None:
    async with context.db.transaction() as connection:
        first = await incidents.open(connection, 1000, "drift", "acme", "acme", {"units": 5})
        again = await incidents.open(connection, 2000, "drift", "acme", "acme", {"units": 7}, times=3)
        other = await incidents.open(connection, 2000, "drift", "globex", "globex", {"units": 1})
    assert first == again != other
    [_, incident] = (await admin.get("/v1/incidents")).json()["incidents"]
    assert incident == {
        "id": str(first),
        "kind": "drift",
        "key": "acme",
        "org": "acme",
        "content": {"units": 7},
        "count": 4,
        "opened_at": "1970-01-01T00:16:40Z",
        "last_seen_at": "1970-01-01T00:33:20Z",
        "closed_at": None,
        "acknowledged_at": None,
        "acknowledged_by": None,
    }


async def test_several_at_once_open_one(context: Context, admin: AsyncClient) -> None:
    async def happen() -> None:
        async with context.db.transaction() as connection:
            await incidents.open(connection, 1000, "drift", "acme", None, {})

    await asyncio.gather(*(happen() for _ in range(10)))
    [incident] = (await admin.get("/v1/incidents")).json()["incidents"]
    assert incident["count"] == 10


async def test_after_it_was_closed_the_same_opens_another(context: Context, admin: AsyncClient) -> None:
    async with context.db.transaction() as connection:
        first = await incidents.open(connection, 1000, "drift", "acme", None, {})
        assert await incidents.close(connection, 2000, "drift", "acme")
        assert not await incidents.close(connection, 2000, "drift", "acme")
        second = await incidents.open(connection, 3000, "drift", "acme", None, {})
    listed = (await admin.get("/v1/incidents")).json()["incidents"]
    assert [(i["id"], i["count"], i["closed_at"]) for i in listed] == [
        (str(second), 1, None),
        (str(first), 1, "1970-01-01T00:33:20Z"),
    ]


async def test_open_ones_come_first_and_each_is_on_one_page_whatever_is_closed_meanwhile(
    context: Context, admin: AsyncClient
) -> None:
    made = []
    async with context.db.transaction() as connection:
        for n in range(7):
            made.append(str(await incidents.open(connection, 1000, "drift", str(n), None, {})))
            if n % 2:
                await incidents.close(connection, 1000, "drift", str(n))
    opened, closed = made[0::2][::-1], made[1::2][::-1]
    seen: list[str] = []
    after: str | None = None
    while True:
        query = {"limit": 2} | ({"after": after} if after else {})
        page = (await admin.get("/v1/incidents", params=query)).json()
        seen += [each["id"] for each in page["incidents"]]
        after = page["next"]
        if after is None:
            break
        if len(seen) == 2:
            await admin.post(f"/v1/incidents/{seen[-1]}/resolve")
    assert list(dict.fromkeys(seen)) == [*opened, *closed]
    only_open = (await admin.get("/v1/incidents", params={"status": "open"})).json()["incidents"]
    only_closed = (await admin.get("/v1/incidents", params={"status": "closed"})).json()["incidents"]
    assert {i["id"] for i in only_open} == set(opened) - {seen[1]}
    assert {i["id"] for i in only_closed} == {*closed, seen[1]}


async def test_the_incidents_that_a_tile_counts_are_listed(context: Context, admin: AsyncClient) -> None:
    async with context.db.transaction() as connection:
        for kind in ("payment_failed", "stripe_dispute", "drift", "of_an_earlier_release"):
            await incidents.open(connection, 1000, kind, "a", None, {})
        await incidents.close(connection, 1000, "stripe_dispute", "a")

    async def listed(**params: str) -> list[str]:
        return [each["kind"] for each in (await admin.get("/v1/incidents", params=params)).json()["incidents"]]

    assert await listed(tile="failed_payments") == ["payment_failed", "stripe_dispute"]
    assert await listed(tile="failed_payments", status="open") == ["payment_failed"]
    assert await listed(tile="failed_payments", kind="drift") == []
    assert await listed(tile="webhook_backlog") == [], "it counts messages"
    assert (await admin.get("/v1/incidents", params={"tile": "none"})).status_code == 422


async def test_an_admin_resolves_one_and_the_journal_says_who(context: Context, admin: AsyncClient) -> None:
    org = f"org-{uuid4().hex[:8]}"
    await admin.put(f"/v1/organizations/{org}", json={"name": org})
    async with context.db.transaction() as connection:
        incident = await incidents.open(connection, 1000, "drift", org, org, {})
    path = f"/v1/incidents/{incident}/resolve"
    resolved, again = (await admin.post(path)).json(), (await admin.post(path)).json()
    assert resolved["closed_at"] is not None
    assert resolved == again
    entries = (await admin.get(f"/v1/organizations/{org}/journal")).json()["entries"]
    assert [(e["actor"], e["action"], e["before"]) for e in entries[:-1]] == [
        ("admin", "incident.resolved", {"id": str(incident), "kind": "drift", "key": org, "count": 1})
    ]


async def test_incidents_are_for_admins_only(
    context: Context, admin: AsyncClient, nobody: AsyncClient, token_of: TokenOf
) -> None:
    org = {"authorization": f"Bearer {token_of('acme')}"}
    path = f"/v1/incidents/{uuid4()}/resolve"
    assert (await nobody.get("/v1/incidents")).status_code == 401
    assert (await nobody.get("/v1/incidents", headers=org)).status_code == 403
    assert (await nobody.post(path, headers=org)).status_code == 403
    assert (await admin.post(path)).status_code == 404
    assert (await admin.get("/v1/incidents", params={"after": "open:x"})).status_code == 422


async def test_a_quarantined_stream_entry_opens_an_incident_of_its_shard(
    context: Context, admin: AsyncClient, redis: Redis
) -> None:
    key = keys.events_key(5)
    await redis.xadd(key, {"e": b"\x00 no event"}, id="1000-1")
    await redis.xadd(key, {"e": b"\xff"}, id="1000-2")
    await redis.xadd(keys.events_key(6), {"e": b"", "f": b"\x00"}, id="1000-3")
    await context.writer.resume()
    await context.writer.write()
    incidents = (await admin.get("/v1/incidents")).json()["incidents"]
    assert {(i["kind"], i["key"], i["count"], i["content"]["stream_id"]) for i in incidents} == {
        ("usage_quarantined", "5", 2, "1000-2"),
        ("usage_quarantined", "6", 1, "1000-3"),
    }


async def opened(context: Context, kind: str = "drift", org: str | None = None, key: str = "") -> str:
    async with context.db.transaction() as connection:
        return str(await incidents.open(connection, 1000, kind, key or uuid4().hex, org, {"units": 5}))


async def journaled(admin: AsyncClient, action: str) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = (await admin.get("/v1/journal", params={"action": action})).json()["entries"]
    return entries


async def test_who_sees_to_an_incident_first_is_named_until_nobody_does(context: Context, admin: AsyncClient) -> None:
    incident = await opened(context)
    path = f"/v1/incidents/{incident}/acknowledge"
    assert (await admin.get("/v1/incidents", params={"acknowledged": False})).json()["incidents"][0]["id"] == incident
    first, again = (await admin.post(path)).json(), (await admin.post(path)).json()
    assert first["acknowledged_by"] == "admin"
    assert first == again
    assert (await admin.get("/v1/incidents", params={"acknowledged": False})).json()["incidents"] == []
    for _ in range(2):
        assert (await admin.delete(path)).json()["acknowledged_by"] is None
    for action in ("incident.acknowledged", "incident.unacknowledged"):
        [entry] = [each for each in await journaled(admin, action) if incident in str(each)]
        assert entry["actor"] == "admin"


async def test_an_acknowledged_incident_that_happens_again_stays_acknowledged(
    context: Context, admin: AsyncClient
) -> None:
    incident = await opened(context, key="acme")
    await admin.post(f"/v1/incidents/{incident}/acknowledge")
    assert await opened(context, key="acme") == incident
    shown = (await admin.get(f"/v1/incidents/{incident}")).json()
    assert (shown["count"], shown["acknowledged_by"]) == (2, "admin")


async def test_notes_are_kept_with_their_authors_the_newest_first_and_are_in_the_journal(
    context: Context, admin: AsyncClient
) -> None:
    incident = await opened(context)
    for text in ("looked at it", "<script>alert(1)</script>'; DROP TABLE incident; --"):
        assert (await admin.post(f"/v1/incidents/{incident}/notes", json={"text": text})).status_code == 201
    shown = (await admin.get(f"/v1/incidents/{incident}")).json()
    assert [(note["author"], note["text"][:6]) for note in shown["notes"]] == [("admin", "<scrip"), ("admin", "looked")]
    assert shown["about"]["steps"]
    noted = [each for each in await journaled(admin, "incident.noted") if each["after"]["id"] == incident]
    assert [entry["after"]["note"][:6] for entry in noted] == ["<scrip", "looked"]
    for wrong in ("", "   ", "x" * 4001):
        assert (await admin.post(f"/v1/incidents/{incident}/notes", json={"text": wrong})).status_code == 422
    for method, path in (("POST", "notes"), ("POST", "acknowledge"), ("DELETE", "acknowledge"), ("GET", "")):
        answer = await admin.request(
            method, f"/v1/incidents/{uuid4()}/{path}".rstrip("/"), json={"text": "a"} if path == "notes" else None
        )
        assert answer.status_code == 404, (method, path)


async def test_the_list_is_of_a_kind_and_of_an_organization_where_they_are_named(
    context: Context, admin: AsyncClient
) -> None:
    org = f"org-{uuid4().hex[:8]}"
    await admin.put(f"/v1/organizations/{org}", json={"name": org})
    drift, lost = await opened(context, "drift", org), await opened(context, "usage_lost")
    of_an_earlier_release = await opened(context, "meteor", org)

    async def listed(**query: str) -> list[str]:
        return [each["id"] for each in (await admin.get("/v1/incidents", params=query)).json()["incidents"]]

    assert await listed(kind="drift") == [drift]
    assert await listed(kind="usage_lost", status="open") == [lost]
    assert await listed(org=org) == [of_an_earlier_release, drift]
    assert await listed(kind="meteor") == [of_an_earlier_release]
    assert (await admin.get("/v1/incidents/kinds/meteor")).json()["title"] == "Meteor"
    refused = await admin.get("/v1/incidents", params={"kind": "drif"})
    assert (refused.status_code, "did you mean drift?" in refused.text) == (422, True)
    assert (await admin.get("/v1/incidents/kinds/drif")).status_code == 404


async def test_every_kind_says_what_it_means_and_what_to_do(admin: AsyncClient) -> None:
    kinds = (await admin.get("/v1/incidents/kinds")).json()["kinds"]
    assert len(kinds) > 25
    for kind in kinds:
        assert (await admin.get(f"/v1/incidents/kinds/{kind['kind']}")).json() == kind
