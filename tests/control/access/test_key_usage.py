"""Usage of keys and users: as it is charged, written, reported, and restored."""

from typing import Any
from uuid import uuid4

import pytest
from httpx import AsyncClient
from redis.asyncio import Redis

from control.access.keys.index import KeyIndex
from control.http.context import Context
from control.moments import moment
from quota import keys
from quota.access import KeyState, Path, digest16, version_word
from quota.calls.look import IndexMiss
from quota.model import Admitted, Exhausted
from tests import charging
from tests.control.access.keys import created
from tests.control.plane import Entitled
from tests.control.usage import write_all

pytestmark = pytest.mark.usefixtures("new_streams")


async def charge(context: Context, org: str, key: dict[str, Any], units: int = 1) -> bytes | None:
    """Charges as a gateway does that has just looked; the receipt, or None where the key's own quota refuses."""
    look = await context.ledger.look(org, digest16(key["key"]))
    assert look.record is not None
    assert look.version is not None
    path, word = str(Path(org, look.record.user, look.record.id)), version_word(look.version, [look.record.limits])
    decision = await charging.take(context.ledger, org, uuid4().hex, {"api_calls": units}, path=path, version=word)
    if isinstance(decision, Exhausted):
        return None
    assert isinstance(decision, Admitted), decision
    return decision.receipt


async def usage_by(admin: AsyncClient, org: str, by: str) -> dict[str | None, int]:
    answer = await admin.get("/v1/usage", params={"org": org, "by": by})
    assert answer.status_code == 200, answer.text
    principals = answer.json()["principals"]
    return {each["principal"]: sum(meter["units"] for meter in each["meters"]) for each in principals}


async def test_usage_is_reported_by_key_and_by_user_and_adds_up_to_all(
    context: Context, entitled: Entitled, admin: AsyncClient
) -> None:
    org = await entitled("tiny")
    one, two = await created(admin, org, user="u 1"), await created(admin, org, user="u 1")
    other = await created(admin, org)
    for key, units in ((one, 3), (two, 4), (other, 5)):
        await charge(context, org, key, units)
    receipt = await charge(context, org, one, 6)
    assert receipt is not None
    await charging.settle(context.ledger, org, receipt, {"api_calls": 2})
    assert isinstance(await charging.take(context.ledger, org, "r1", {"api_calls": 7}), Admitted)
    await write_all(context)
    assert await usage_by(admin, org, "key") == {None: 7, one["id"]: 5, other["id"]: 5, two["id"]: 4}
    assert await usage_by(admin, org, "user") == {None: 12, "u 1": 9}
    total = (await admin.get("/v1/usage", params={"org": org})).json()
    assert (total["meters"][0]["units"], total["by"], total["principals"]) == (21, None, None)
    assert (await admin.get("/v1/usage", params={"org": org, "by": "team"})).status_code == 422


async def test_a_key_shows_the_minute_of_its_last_admitted_request(
    context: Context, entitled: Entitled, admin: AsyncClient
) -> None:
    org = await entitled("tiny")
    key = await created(admin, org)
    assert key["last_used_at"] is None
    await charge(context, org, key)
    standing = await context.ledger.peek(org)
    assert standing is not None
    await write_all(context)
    shown = (await admin.get(f"/v1/organizations/{org}/keys/{key['id']}")).json()["last_used_at"]
    minute = standing.now_us // 60_000_000 * 60
    assert shown in [moment(at).isoformat().replace("+00:00", "Z") for at in (minute, minute - 60)]


@pytest.mark.parametrize("writer", ["wrote nothing", "wrote a part", "wrote all"])
async def test_a_lost_organization_has_the_same_left_of_a_keys_own_quota_however_far_the_writer_was(
    context: Context, entitled: Entitled, admin: AsyncClient, redis: Redis, writer: str
) -> None:
    org = await entitled("tiny")
    quotas = [{"meter": "api_calls", "units": 10}, {"meter": "api_calls", "units": 9, "window_seconds": 30_000_000}]
    key, other = await created(admin, org, quotas=quotas), await created(admin, org, quotas=quotas)
    await charge(context, org, key, 3)
    await charge(context, org, other, 1)
    if writer == "wrote a part":
        await write_all(context)
    receipt = await charge(context, org, key, 5)
    assert receipt is not None
    await charging.settle(context.ledger, org, receipt, {"api_calls": 2})
    if writer == "wrote all":
        await write_all(context)
    before = await context.ledger.peek(org)
    assert before is not None
    assert sorted(node.used for node in before.nodes) == [1, 1, 5, 5]
    await redis.delete(keys.org_key(org, 32), keys.access_key(org, 32))
    await context.publisher.install(org)
    after = await context.ledger.peek(org)
    assert after is not None
    assert sorted(after.nodes, key=repr) == sorted(before.nodes, key=repr)
    assert await charge(context, org, key, 5) is None
    assert await charge(context, org, key, 4) is not None


@pytest.mark.parametrize("lost", ["all of it", "the organization", "its newest version"])
async def test_after_redis_lost_something_keys_work_again_and_revoked_ones_do_not(
    context: Context, entitled: Entitled, admin: AsyncClient, redis: Redis, lost: str
) -> None:
    org = await entitled("tiny")
    good, revoked, dropped = [await created(admin, org, user="u1") for _ in range(3)]
    names = [keys.org_key(org, 32), keys.access_key(org, 32)]
    older = {name: await redis.dump(name) for name in names}
    await admin.delete(f"/v1/organizations/{org}/keys/{revoked['id']}")
    later = await created(admin, org)
    await admin.post(f"/v1/organizations/{org}/revocations", json={"kind": "session", "subject": "s1"})
    if lost == "all of it":
        await redis.flushall()
        await context.recovery.round()
        assert await context.ledger.owner(digest16(good["key"])) is IndexMiss.INCOMPLETE
        await KeyIndex(context.db, context.ledger).round()
    elif lost == "the organization":
        await redis.delete(*names)
    else:  # as a replica has it that lagged when its primary failed
        for name, value in older.items():
            assert value is not None
            await redis.restore(name, 0, value, replace=True)
    await context.publisher.install(org)
    states = [(await context.ledger.look(org, digest16(key["key"]))).record for key in (good, revoked, dropped, later)]
    assert [record and record.state for record in states] == [
        KeyState.ACTIVE,
        KeyState.REVOKED,
        KeyState.ACTIVE,
        KeyState.ACTIVE,
    ]
    for key in (good, later):
        assert await context.ledger.owner(digest16(key["key"])) == org
        assert await charge(context, org, key) is not None


async def test_a_redis_that_goes_back_while_a_revocation_is_published_gets_all_of_it(
    context: Context, entitled: Entitled, admin: AsyncClient, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise what changed between the two versions would be lost for good, and a revoked key would come back."""
    org = await entitled("tiny")
    first, second = await created(admin, org), await created(admin, org)
    names = [keys.org_key(org, 32), keys.access_key(org, 32)]
    older = {name: await redis.dump(name) for name in names}
    await admin.delete(f"/v1/organizations/{org}/keys/{first['id']}")
    peek = context.ledger.peek

    async def overtaken(asked: str) -> object:
        held = await peek(asked)
        for name, value in older.items():
            assert value is not None
            await redis.restore(name, 0, value, replace=True)
        return held

    monkeypatch.setattr(context.ledger, "peek", overtaken)
    assert (await admin.delete(f"/v1/organizations/{org}/keys/{second['id']}")).status_code == 204
    for key in (first, second):
        record = (await context.ledger.look(org, digest16(key["key"]))).record
        assert record is not None
        assert record.state is KeyState.REVOKED
