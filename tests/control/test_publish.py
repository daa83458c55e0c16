"""Postgres first, then Redis, and whatever comes between is repaired."""

from dataclasses import replace
from uuid import uuid4

import pytest
from httpx import AsyncClient
from redis.asyncio import Redis

from control.db import StoreUnavailable
from control.entitlements import changes, stored_state
from control.entitlements.derive import derive
from control.entitlements.publish import Publisher
from control.http.context import Context
from control.journal import Author
from quota import keys
from quota.ledger import LedgerUnavailable
from quota.model import Admitted, Exhausted, Grant, Status, Unknown
from tests import charging
from tests.control.plane import Entitled, MovedClock

AUTHOR = Author("tests", "tests")


async def test_what_an_admin_sets_is_enforced_when_the_answer_is_there(context: Context, entitled: Entitled) -> None:
    org = await entitled("tiny", meters={"api_calls": 1})
    assert isinstance(await charging.take(context.ledger, org, "r1", {"api_calls": 1}), Admitted)
    assert isinstance(await charging.take(context.ledger, org, "r2", {"api_calls": 1}), Exhausted)


async def test_a_change_that_redis_missed_is_published_by_the_next_round(
    context: Context, entitled: Entitled, admin: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    org = await entitled("tiny")

    async def redis_is_away(*_: object, **__: object) -> bool:
        raise LedgerUnavailable("publish: refused")

    monkeypatch.setattr(context.ledger, "publish", redis_is_away)
    answer = (await admin.put(f"/v1/entitlements/{org}", json={"plan": "growth"})).json()
    assert (answer["plan"], answer["published"]) == ("growth", False)
    monkeypatch.undo()
    await context.publisher.round()
    answer = (await admin.get(f"/v1/entitlements/{org}")).json()
    assert (answer["plan"], answer["policy"], answer["published"]) == ("growth", "METERED", True)
    assert await context.publisher.round() == 0


async def test_a_crash_after_redis_and_before_the_note_is_repaired_and_harms_nobody(
    context: Context, entitled: Entitled, monkeypatch: pytest.MonkeyPatch
) -> None:
    org = await entitled("tiny")

    async def crash(*_: object) -> None:
        raise StoreUnavailable("the power is gone")

    await changes.set_entitlement(context.db, org, lambda *_: changes.Wanted("bulk"), None, context.clock(), AUTHOR)
    monkeypatch.setattr(stored_state, "mark_published", crash)
    with pytest.raises(StoreUnavailable):
        await context.publisher.round()
    monkeypatch.undo()
    assert await context.publisher.round() == 1
    assert await context.publisher.round() == 0


async def test_an_older_version_never_replaces_a_newer_one(context: Context, entitled: Entitled) -> None:
    org = await entitled("tiny")
    async with context.db.connection() as connection:
        stale = await stored_state.load_state(connection, org, context.clock())
    assert stale is not None
    await changes.set_entitlement(context.db, org, lambda *_: changes.Wanted("bulk"), None, context.clock(), AUTHOR)
    await context.publisher.install(org)
    await stored_state.mark_published(context.db, derive(stale, context.clock()), None, context.clock())
    async with context.db.connection() as connection:
        state = await stored_state.load_state(connection, org, context.clock())
        published = await connection.fetchval("SELECT published_version FROM publication WHERE org = $1", org)
    assert state is not None
    assert published == state.version > stale.version
    assert state.renew_at is not None


async def test_the_next_period_is_published_ahead_and_renewed_when_it_has_begun(
    context: Context, entitled: Entitled, clock: MovedClock
) -> None:
    org = await entitled("tiny")
    standing = await context.ledger.peek(org)
    assert standing is not None
    current, following = standing.periods
    assert current.end == following.start

    clock.now = current.end - 1
    await context.publisher.round()
    unchanged = await context.ledger.peek(org)
    assert unchanged is not None
    assert replace(unchanged, now_us=0) == replace(standing, now_us=0)
    clock.now = current.end + 1
    await context.publisher.round()
    renewed = await context.ledger.peek(org)
    assert renewed is not None
    assert renewed.periods[0] == following
    assert renewed.periods[1].start == following.end
    assert renewed.version > standing.version
    assert await context.publisher.round() == 0


async def test_a_renewal_that_several_find_due_draws_one_version(
    context: Context, entitled: Entitled, clock: MovedClock
) -> None:
    org = await entitled("tiny")
    clock.move(days=40)
    first = await context.publisher.install(org)
    second = await context.publisher.install(org)
    assert first.version == second.version


async def test_a_period_that_was_not_renewed_for_months_is_renewed_when_someone_asks(
    context: Context, entitled: Entitled, clock: MovedClock
) -> None:
    org = await entitled("tiny")
    clock.move(days=100)
    entitlement = await context.publisher.install(org)
    assert clock.now in entitlement.periods[0]
    standing = await context.ledger.peek(org)
    assert standing is not None
    assert standing.periods == entitlement.periods


async def test_a_grant_is_enforced_by_the_next_take_and_a_revoked_one_no_longer(
    context: Context, entitled: Entitled, admin: AsyncClient
) -> None:
    org = await entitled("tiny", meters={"api_calls": 0})
    assert isinstance(await charging.take(context.ledger, org, "r1", {"api_calls": 1}), Exhausted)
    body = {"meter": "api_calls", "units": 2, "expires_at": "2099-01-01T00:00:00Z", "reason": "an outage"}
    made = await admin.post(f"/v1/organizations/{org}/grants", json=body)
    assert made.status_code == 201, made.text
    assert isinstance(await charging.take(context.ledger, org, "r2", {"api_calls": 1}), Admitted)
    assert (await admin.delete(f"/v1/organizations/{org}/grants/{made.json()['id']}")).status_code == 204
    assert isinstance(await charging.take(context.ledger, org, "r3", {"api_calls": 1}), Exhausted)


async def test_a_plan_change_never_touches_what_was_used(
    context: Context, entitled: Entitled, admin: AsyncClient
) -> None:
    org = await entitled("tiny")
    for n in range(30):
        await charging.take(context.ledger, org, f"r{n}", {"api_calls": 2})
    for plan in ("bulk", "starter", "growth", "tiny"):
        meter = (await admin.put(f"/v1/entitlements/{org}", json={"plan": plan})).json()["meters"][0]
        assert (meter["used"], meter["remaining"]) == (60, meter["limit"] - 60)
    meter = (await admin.put(f"/v1/entitlements/{org}", json={"plan": "tiny", "meters": {"api_calls": 50}})).json()[
        "meters"
    ][0]
    assert (meter["used"], meter["remaining"]) == (60, 0)


async def test_an_unknown_organization_gets_none_and_is_forgotten_after_a_minute(
    context: Context, redis: Redis
) -> None:
    org = f"nobody-{uuid4().hex[:8]}"
    assert isinstance(await charging.take(context.ledger, org, "r1", {"api_calls": 1}), Unknown)
    entitlement = await context.publisher.install(org)
    assert (entitlement.version, entitlement.status) == (0, Status.NONE)
    decision = await charging.take(context.ledger, org, "r2", {"api_calls": 1})
    assert getattr(decision, "status", None) is Status.NONE
    assert 0 < await redis.ttl(keys.org_key(org, 32)) <= 60


async def test_an_organization_without_entitlement_is_none_until_it_is_given_one(
    context: Context, admin: AsyncClient, catalogue: None, redis: Redis
) -> None:
    org = f"org-{uuid4().hex[:8]}"
    await admin.put(f"/v1/organizations/{org}", json={"name": org})
    assert (await context.publisher.install(org)).status is Status.NONE
    await admin.put(f"/v1/entitlements/{org}", json={"plan": "tiny"})
    assert isinstance(await charging.take(context.ledger, org, "r1", {"api_calls": 1}), Admitted)
    assert await redis.ttl(keys.org_key(org, 32)) == -1, "what is paid for must not be forgotten"


async def test_one_organization_that_cannot_be_published_does_not_keep_the_others_waiting(
    context: Context, entitled: Entitled, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken, well = await entitled("tiny"), await entitled("tiny")
    for org in (broken, well):
        await changes.set_entitlement(context.db, org, lambda *_: changes.Wanted("bulk"), None, context.clock(), AUTHOR)
    install = Publisher.install

    async def sometimes(self: Publisher, org: str, traceparent: str | None = None) -> object:
        if org == broken:
            raise RuntimeError("a row that nobody foresaw")
        return await install(self, org, traceparent)

    monkeypatch.setattr(Publisher, "install", sometimes)
    await context.publisher.round()
    standing = await context.ledger.peek(well)
    assert standing is not None
    assert standing.meters[0].allowance == 10**9


async def test_the_grants_of_an_organization_are_published_with_their_expiry(
    context: Context, entitled: Entitled, admin: AsyncClient
) -> None:
    org = await entitled("tiny")
    body = {"meter": "api_calls", "units": 5, "expires_at": "2099-01-01T00:00:00Z", "reason": "sorry"}
    grant = (await admin.post(f"/v1/organizations/{org}/grants", json=body)).json()
    standing = await context.ledger.peek(org)
    assert standing is not None
    assert standing.grants == (Grant(grant["id"], "api_calls", 5, 4_070_908_800),)
