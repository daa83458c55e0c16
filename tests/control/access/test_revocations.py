"""Marks: what is revoked is refused from the answer on, here and in what gateways read."""

import asyncio
import time
from dataclasses import replace
from datetime import timedelta
from math import inf
from typing import Any

import jwt
import pytest
from httpx import AsyncClient

from control.access import revocations
from control.access.cleanup import Cleanup
from control.http.context import Context
from control.moments import moment
from devstack import token_mint
from quota.access import AccessChanges, KeyState, Mark, MarkKind, digest16, marks_of, refusing
from quota.ledger import LedgerUnavailable
from tests.control.access.keys import created
from tests.control.plane import JWT_SECRET, Entitled, MovedClock

UNVERIFIED: Any = {"verify_signature": False}


async def marked(admin: AsyncClient, org: str, **content: object) -> dict[str, Any]:
    answer = await admin.post(f"/v1/organizations/{org}/revocations", json=content)
    assert answer.status_code == 201, answer.text
    mark: dict[str, Any] = answer.json()
    return mark


async def refused_by(context: Context, org: str, issued_at: float | None, **ids: str) -> Mark | None:
    marks = marks_of(**ids)
    return (await context.ledger.look(org, marks=marks)).refused_by(issued_at)


@pytest.mark.parametrize(
    ("kind", "claim"), [("token", "token_id"), ("session", "session"), ("user", "user"), ("site", "site")]
)
async def test_a_mark_refuses_what_carries_its_subject_until_it_is_lifted(
    context: Context, entitled: Entitled, admin: AsyncClient, kind: str, claim: str
) -> None:
    org = await entitled("tiny")
    before = (await context.ledger.look(org)).version
    await marked(admin, org, kind=kind, subject="one:1", reason="lost laptop")
    assert await refused_by(context, org, 1e9, **{claim: "one:1"}) == Mark(MarkKind(kind), "one:1")
    assert await refused_by(context, org, 1e9, **{claim: "other"}) is None
    assert (await context.ledger.look(org)).version != before, "what gateways remember is stale"
    lift = f"/v1/organizations/{org}/revocations/{kind}"
    assert (await admin.delete(lift, params={"subject": "one:1"})).status_code == 204
    assert await refused_by(context, org, 1e9, **{claim: "one:1"}) is None
    assert (await admin.delete(lift, params={"subject": "one:1"})).status_code == 404


async def test_a_revocation_is_in_force_though_postgres_has_gone_back_to_older_versions_than_redis(
    context: Context, entitled: Entitled, admin: AsyncClient
) -> None:
    org = await entitled("tiny")
    await marked(admin, org, kind="user", subject="u1")
    published = await context.publisher.install(org)
    ahead = replace(published, version=published.version + 1000)
    assert await context.ledger.publish(ahead, access=AccessChanges(since=published.version))
    await marked(admin, org, kind="user", subject="u2")
    assert await refused_by(context, org, None, user="u2") is not None
    assert await refused_by(context, org, None, user="u1") is not None
    looked = await context.ledger.look(org)
    assert looked.version is not None
    assert looked.version > ahead.version


async def test_a_mark_of_what_was_issued_until_now_lets_in_who_signs_in_again(
    context: Context, entitled: Entitled, admin: AsyncClient, clock: MovedClock
) -> None:
    org = await entitled("tiny")
    await marked(admin, org, kind="user", subject="u1", issued_until_now=True)
    user = Mark(MarkKind.USER, "u1")
    assert await refused_by(context, org, clock.now, user="u1") == user
    assert await refused_by(context, org, None, user="u1") == user, "what does not say when it was issued"
    assert await refused_by(context, org, clock.now + 2, user="u1") is None


@pytest.mark.parametrize("kind", ["user", "organization"])
async def test_keys_that_a_mark_with_a_time_means_are_revoked_with_it_and_later_ones_work(
    context: Context, entitled: Entitled, admin: AsyncClient, kind: str
) -> None:
    org = await entitled("tiny")
    theirs, others = await created(admin, org, user="u1"), await created(admin, org)
    subject = {"subject": "u1"} if kind == "user" else {}
    answer = await marked(admin, org, kind=kind, issued_until_now=True, **subject)
    assert answer["keys_revoked"] == (1 if kind == "user" else 2)
    later = await created(admin, org, user="u1")

    async def state(key: dict[str, Any]) -> KeyState:
        look = await context.ledger.look(org, digest16(key["key"]), marks_of(user="u1"))
        assert refusing(look.marks, inf) is None
        assert look.record is not None
        return look.record.state

    assert await state(theirs) is KeyState.REVOKED
    assert await state(others) is (KeyState.ACTIVE if kind == "user" else KeyState.REVOKED)
    assert await state(later) is KeyState.ACTIVE


async def test_setting_a_mark_again_never_lets_through_what_it_refused_before(
    context: Context, entitled: Entitled, admin: AsyncClient, clock: MovedClock
) -> None:
    org = await entitled("tiny")
    soon = (moment(int(clock.now)) + timedelta(hours=1)).isoformat()
    await marked(admin, org, kind="user", subject="u1")
    again = await marked(admin, org, kind="user", subject="u1", issued_until_now=True, expires_at=soon)
    assert (again["issued_until"], again["expires_at"]) == (None, None)
    assert await refused_by(context, org, clock.now + 3600, user="u1") is not None


async def test_marks_are_listed_by_kind_and_subject_in_pages(entitled: Entitled, admin: AsyncClient) -> None:
    org = await entitled("tiny")
    for kind, subject in (("user", "b"), ("token", "x:y"), ("user", "a")):
        await marked(admin, org, kind=kind, subject=subject)
    await marked(admin, org, kind="organization")
    found, after = [], None
    while True:
        query = {"limit": "2"} | ({"after": after} if after else {})
        page = (await admin.get(f"/v1/organizations/{org}/revocations", params=query)).json()
        found += [(each["kind"], each["subject"]) for each in page["revocations"]]
        after = page["next"]
        if after is None:
            break
    assert found == [("organization", None), ("token", "x:y"), ("user", "a"), ("user", "b")]
    only = (await admin.get(f"/v1/organizations/{org}/revocations", params={"kind": "user"})).json()["revocations"]
    assert [each["subject"] for each in only] == ["a", "b"]


async def test_a_mark_is_dropped_only_when_what_it_refuses_has_expired_for_sure(
    context: Context, entitled: Entitled, admin: AsyncClient, clock: MovedClock
) -> None:
    org = await entitled("tiny")
    expires_at = (moment(int(clock.now)) + timedelta(minutes=15)).isoformat()
    await marked(admin, org, kind="token", subject="t1", expires_at=expires_at)
    await marked(admin, org, kind="user", subject="u1")
    cleanup = Cleanup(context.db, context.ledger, context.publisher, clock)
    clock.move(minutes=20)
    await cleanup.round()
    assert await refused_by(context, org, 1e9, token_id="t1") is not None
    clock.move(hours=2)
    await cleanup.round()
    assert await refused_by(context, org, 1e9, token_id="t1") is None
    assert await refused_by(context, org, 1e9, user="u1") is not None
    clock.move(days=31)
    await cleanup.round()
    async with context.db.connection() as connection:
        rows = await connection.fetch("SELECT kind FROM revocation WHERE org = $1", org)
    assert [row["kind"] for row in rows] == ["user"]


async def test_a_token_that_is_revoked_opens_this_api_no_more_also_while_redis_is_away(
    context: Context,
    entitled: Entitled,
    admin: AsyncClient,
    nobody: AsyncClient,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    org = await entitled("tiny")
    headers, other = [{"authorization": f"Bearer {token_with_id(org, token_id)}"} for token_id in ("t1", "t2")]
    path = f"/v1/organizations/{org}"
    assert (await nobody.get(path, headers=headers)).status_code == 200
    await marked(admin, org, kind="token", subject="t1")
    for away in (False, True):
        if away:
            monkeypatch.setattr("quota.ledger.Ledger.look", look_away)
        refused = await nobody.get(path, headers=headers)
        assert (refused.status_code, refused.json()["reason"]) == (401, "token_revoked")
        assert (await nobody.get(path, headers=other)).status_code == 200


def token_with_id(org: str, token_id: str) -> str:
    claims = jwt.decode(token_mint.mint(org, JWT_SECRET, now=time.time(), ttl=timedelta(hours=1)), options=UNVERIFIED)
    return jwt.encode(claims | {"jti": token_id}, JWT_SECRET, "HS256")


async def look_away(*_: object, **__: object) -> None:
    raise LedgerUnavailable("refused")


async def test_of_a_hundred_parallel_marks_each_is_in_force_when_it_is_answered(
    context: Context, entitled: Entitled, admin: AsyncClient
) -> None:
    org = await entitled("tiny")

    async def mark(subject: str) -> None:
        await marked(admin, org, kind="session", subject=subject)
        assert await refused_by(context, org, 1e9, session=subject) is not None

    await asyncio.gather(*[mark(f"s{n}") for n in range(100)])


@pytest.mark.parametrize(
    "content",
    [
        {"kind": "user"},
        {"kind": "organization", "subject": "x"},
        {"kind": "key", "subject": "x"},
        {"kind": "user", "subject": "a\x00"},
        {"kind": "user", "subject": ""},
        {"kind": "token", "subject": "t", "expires_at": "2020-01-01T00:00:00Z"},
    ],
)
async def test_what_is_no_mark_is_refused(entitled: Entitled, admin: AsyncClient, content: dict[str, object]) -> None:
    org = await entitled("tiny")
    answer = await admin.post(f"/v1/organizations/{org}/revocations", json=content)
    assert answer.status_code == 422, answer.text


async def test_a_rule_that_is_broken_is_told_in_its_own_words(entitled: Entitled, admin: AsyncClient) -> None:
    org = await entitled("tiny")
    answer = await admin.post(f"/v1/organizations/{org}/revocations", json={"kind": "user"})
    assert answer.json()["errors"] == [
        {"field": "body", "message": "subject is required, unless the kind is organization"}
    ]


async def test_an_organization_of_as_many_marks_as_it_can_have_can_still_be_refused_as_a_whole(
    context: Context, entitled: Entitled, admin: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    org = await entitled("tiny")
    monkeypatch.setattr(revocations, "PUBLISHED_MAX", 1)
    await marked(admin, org, kind="user", subject="u1")
    full = await admin.post(f"/v1/organizations/{org}/revocations", json={"kind": "user", "subject": "u2"})
    assert full.status_code == 409
    await marked(admin, org, kind="organization")
    assert await refused_by(context, org, 1e9) == Mark(MarkKind.ORGANIZATION)
