"""API keys over the control API: what is stored, what is shown, and what is in force when a call is answered."""

import asyncio
from typing import Any

import asyncpg
import pytest
from httpx import AsyncClient
from redis.asyncio import Redis

from control.http.context import Context
from quota.access import KeyState, Quota, digest16
from quota.ledger import LedgerUnavailable
from quota.model import RateLimit
from tests.control.access.keys import created
from tests.control.plane import Entitled


async def test_a_key_is_shown_once_and_can_be_looked_up_when_the_answer_is_there(
    context: Context, entitled: Entitled, admin: AsyncClient
) -> None:
    org = await entitled("tiny")
    answer = await admin.post(f"/v1/organizations/{org}/keys", json={"name": "CI"})
    assert answer.headers["cache-control"] == "no-store"
    key = answer.json()
    text = key.pop("key")
    assert text.startswith("qg_live_")
    assert (key["starts_with"], key["last_four"], key["published"]) == (text[:12], text[-4:], True)
    assert await context.ledger.owner(digest16(text)) == org
    look = await context.ledger.look(org, digest16(text))
    assert look.record is not None
    assert (look.record.id, look.record.state) == (key["id"], KeyState.ACTIVE)
    assert look.version == (await context.publisher.install(org)).version
    shown = (await admin.get(f"/v1/organizations/{org}/keys/{key['id']}")).json()
    assert shown == {name: value for name, value in key.items() if name != "published"}
    assert text not in (await admin.get(f"/v1/organizations/{org}/keys")).text


async def test_what_a_key_may_do_is_published_as_it_was_asked_for(
    context: Context, entitled: Entitled, admin: AsyncClient
) -> None:
    org = await entitled("tiny")
    key = await created(
        admin,
        org,
        user="u-7",
        scopes=["route:search", "meter:api_calls", "route:search"],
        networks=["192.0.2.0/24", "2001:db8::1"],
        quotas=[{"meter": "api_calls", "units": 5, "window_seconds": 3600}, {"meter": "api_calls", "units": 50}],
        rate={"requests": 10, "seconds": 1, "burst": 2},
        expires_at="2099-01-01T00:00:00.5Z",
    )
    record = (await context.ledger.look(org, digest16(key["key"]))).record
    assert record is not None
    assert record.user == "u-7"
    assert record.scopes == ("route:search", "meter:api_calls")
    assert record.networks == ("192.0.2.0/24", "2001:db8::1/128")
    assert record.quotas == (Quota("api_calls", 5, 3600), Quota("api_calls", 50))
    assert record.rate == RateLimit(10, 1, 2)
    assert record.expires_s == 4_070_908_800
    assert key["quotas"][1] == {"meter": "api_calls", "units": 50, "window_seconds": None}


async def test_an_organization_without_an_entitlement_has_keys_that_are_found_and_still_no_entitlement(
    context: Context, admin: AsyncClient
) -> None:
    await admin.put("/v1/organizations/keys-only", json={"name": "Keys only"})
    key = await created(admin, "keys-only")
    look = await context.ledger.look("keys-only", digest16(key["key"]))
    assert look.record is not None
    snapshot = await context.ledger.peek("keys-only")
    assert snapshot is not None
    assert (snapshot.status.word, snapshot.version) == ("none", look.version)
    assert (await admin.get("/v1/entitlements/keys-only")).status_code == 404
    resumed = await admin.post("/v1/entitlements/keys-only/resume")
    assert resumed.status_code == 404


async def test_a_patch_changes_what_it_names_and_nothing_else(
    context: Context, entitled: Entitled, admin: AsyncClient
) -> None:
    org = await entitled("tiny")
    key = await created(admin, org, name="one", scopes=["route:a"], rate={"requests": 1})
    path = f"/v1/organizations/{org}/keys/{key['id']}"
    changed = (await admin.patch(path, json={"enabled": False, "rate": None})).json()
    assert (changed["state"], changed["rate"], changed["scopes"], changed["name"]) == (
        "disabled",
        None,
        ["route:a"],
        "one",
    )
    record = (await context.ledger.look(org, digest16(key["key"]))).record
    assert record is not None
    assert (record.state, record.rate) == (KeyState.DISABLED, None)
    version = (await context.ledger.look(org)).version
    assert (await admin.patch(path, json={"enabled": False})).status_code == 200
    assert (await context.ledger.look(org)).version == version, "nothing changed, so that nobody reads again"
    assert (await admin.patch(path, json={"enabled": True})).json()["state"] == "active"


async def test_a_revoked_key_is_refused_by_name_and_nothing_brings_it_back(
    context: Context, entitled: Entitled, admin: AsyncClient
) -> None:
    org = await entitled("tiny")
    key = await created(admin, org)
    path = f"/v1/organizations/{org}/keys/{key['id']}"
    assert (await admin.delete(path, params={"reason": "lost laptop"})).status_code == 204
    record = (await context.ledger.look(org, digest16(key["key"]))).record
    assert record is not None
    assert record.state is KeyState.REVOKED
    assert (await admin.delete(path)).status_code == 204
    assert (await admin.patch(path, json={"enabled": True})).status_code == 409
    assert (await admin.post(f"{path}/roll")).status_code == 409
    journal = (await admin.get(f"/v1/organizations/{org}/journal")).json()["entries"]
    assert [(e["action"], e["after"]) for e in journal[:1]] == [("key.revoked", {"reason": "lost laptop"})]


async def test_a_hundred_parallel_revocations_of_keys_are_all_in_force_when_they_are_answered(
    context: Context, entitled: Entitled, admin: AsyncClient
) -> None:
    org = await entitled("tiny")
    texts = [await created(admin, org) for _ in range(100)]

    async def revoke(key: dict[str, Any]) -> None:
        answer = await admin.delete(f"/v1/organizations/{org}/keys/{key['id']}")
        record = (await context.ledger.look(org, digest16(key["key"]))).record
        assert answer.status_code == 204
        assert record is not None
        assert record.state is KeyState.REVOKED

    await asyncio.gather(*map(revoke, texts))


async def test_a_hundred_parallel_revocations_of_one_key_draw_one_version_and_one_entry(
    entitled: Entitled, admin: AsyncClient
) -> None:
    org = await entitled("tiny")
    key = await created(admin, org)
    path = f"/v1/organizations/{org}/keys/{key['id']}"
    assert {answer.status_code for answer in await asyncio.gather(*[admin.delete(path) for _ in range(100)])} == {204}
    journal = (await admin.get(f"/v1/organizations/{org}/journal")).json()["entries"]
    assert [entry["action"] for entry in journal].count("key.revoked") == 1


async def test_a_revocation_that_redis_missed_is_said_to_be_stored_and_is_in_force_when_redis_is_back(
    context: Context, entitled: Entitled, admin: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    org = await entitled("tiny")
    key = await created(admin, org)
    path = f"/v1/organizations/{org}/keys/{key['id']}"

    async def away(*_: object, **__: object) -> bool:
        raise LedgerUnavailable("publish: refused")

    monkeypatch.setattr(context.ledger, "publish", away)
    for answer in (
        await admin.patch(path, json={"enabled": False}),
        await admin.delete(path),
        await admin.delete(path),
        await admin.post(f"/v1/organizations/{org}/revocations", json={"kind": "user", "subject": "u"}),
    ):
        assert answer.status_code == 503
        assert answer.json()["type"] == "urn:quotagate:problem:not-in-force"
    assert (await created(admin, org))["published"] is False
    monkeypatch.undo()
    assert (await admin.delete(path)).status_code == 204
    record = (await context.ledger.look(org, digest16(key["key"]))).record
    assert record is not None
    assert record.state is KeyState.REVOKED


@pytest.mark.parametrize(
    ("content", "field"),
    [
        ({"scopes": ["everything"]}, "body.scopes.0"),
        ({"networks": ["10.0.0.1/8"]}, "body.networks.0"),
        ({"networks": ["localhost"]}, "body.networks.0"),
        ({"quotas": [{"meter": "api_calls", "units": 1}, {"meter": "api_calls", "units": 2}]}, "body.quotas"),
        ({"quotas": [{"meter": "api_calls", "units": -1}]}, "body.quotas.0.units"),
        ({"quotas": [{"meter": "no_such_meter", "units": 1}]}, "body"),
        ({"expires_at": "2020-01-01T00:00:00Z"}, "body.expires_at"),
        ({"environment": "test"}, "body.environment"),
        ({"user": "x" * 129}, "body.user"),
        ({"user": "a\x1fb"}, "body.user"),
        ({"name": ""}, "body.name"),
        ({"name": "a\x00"}, "body.name"),
        ({"rate": {"requests": 0}}, "body.rate.requests"),
        ({"digest": "x"}, "body.digest"),
    ],
)
async def test_what_cannot_be_a_key_is_refused_by_the_field_that_is_wrong(
    entitled: Entitled, admin: AsyncClient, content: dict[str, object], field: str
) -> None:
    org = await entitled("tiny")
    answer = await admin.post(f"/v1/organizations/{org}/keys", json=content)
    assert answer.status_code == 422, answer.text
    assert [error["field"] for error in answer.json()["errors"]] == [field]


async def test_the_text_of_a_key_is_nowhere_but_in_the_answer_that_showed_it(
    entitled: Entitled,
    admin: AsyncClient,
    capsys: pytest.CaptureFixture[str],
    redis: Redis,
    postgres_dsn: str,
) -> None:
    org = await entitled("tiny")
    key = await created(admin, org, name="CI")
    rolled = (await admin.post(f"/v1/organizations/{org}/keys/{key['id']}/roll")).json()
    await admin.post("/v1/keys/verify", json={"key": key["key"]})
    await admin.post("/v1/keys/verify", json={"key": key["key"], "unknown": 1})
    await admin.post(f"/v1/organizations/{org}/keys", json={"name": 1, "key": key["key"]})
    secrets = [key["key"], rolled["new"]["key"]]
    random_parts = [text.split("_")[2] for text in secrets]
    connection = await asyncpg.connect(postgres_dsn)
    try:
        tables = await connection.fetch(
            "SELECT c.relname FROM pg_class c WHERE c.relkind = 'r' AND c.relnamespace = 'public'::regnamespace"
        )
        everything = ""
        for table in tables:
            rows = await connection.fetch(f'SELECT t::text AS text FROM "{table["relname"]}" t')
            everything += "\n".join(row["text"] for row in rows)
    finally:
        await connection.close()
    names = [name async for name in redis.scan_iter()]
    held = b" ".join([*names, *[await redis.dump(name) or b"" for name in names]])
    output = capsys.readouterr()
    for text, random_part in zip(secrets, random_parts, strict=True):
        assert text not in everything
        assert random_part not in everything
        assert random_part not in output.out + output.err
        assert random_part.encode() not in held
    assert key["id"] in everything
