"""API keys that are rolled, expire, are forgotten, and are found again by a Redis that lost them."""

import asyncio
from datetime import timedelta

from httpx import AsyncClient
from redis.asyncio import Redis

from control.access.cleanup import Cleanup
from control.access.keys.index import KeyIndex
from control.http.context import Context
from control.moments import moment
from identity.api_key import generate
from quota import keys
from quota.access import KeyState, digest16
from quota.calls.look import IndexMiss
from tests.control.access.keys import created
from tests.control.plane import Entitled, MovedClock


async def test_a_rolled_key_and_its_successor_both_work_until_the_grace_is_over(
    context: Context, entitled: Entitled, admin: AsyncClient, clock: MovedClock
) -> None:
    org = await entitled("tiny")
    old = await created(admin, org, name="CI", scopes=["route:a"], quotas=[{"meter": "api_calls", "units": 5}])
    path = f"/v1/organizations/{org}/keys/{old['id']}"
    rolled = (await admin.post(f"{path}/roll", json={"grace_seconds": 600})).json()
    new = rolled["new"]
    assert (new["name"], new["scopes"], new["quotas"]) == ("CI", ["route:a"], old["quotas"])
    assert (new["rolled_from"], rolled["old"]["rolled_to"]) == (old["id"], new["id"])
    old_record = (await context.ledger.look(org, digest16(old["key"]))).record
    new_record = (await context.ledger.look(org, digest16(new["key"]))).record
    assert old_record is not None
    assert new_record is not None
    assert old_record.state is new_record.state is KeyState.ACTIVE
    assert old_record.expires_s == int(clock.now + 600)
    assert new_record.expires_s is None
    assert (await admin.post(f"{path}/roll")).status_code == 409
    clock.move(seconds=601)
    assert (await admin.get(path)).json()["state"] == "expired"


async def test_a_roll_without_a_grace_revokes_the_old_key_at_once(
    context: Context, entitled: Entitled, admin: AsyncClient
) -> None:
    org = await entitled("tiny")
    old = await created(admin, org)
    rolled = (await admin.post(f"/v1/organizations/{org}/keys/{old['id']}/roll", json={"grace_seconds": 0})).json()
    assert (rolled["old"]["state"], rolled["new"]["state"]) == ("revoked", "active")
    record = (await context.ledger.look(org, digest16(old["key"]))).record
    assert record is not None
    assert record.state is KeyState.REVOKED


async def test_of_a_hundred_parallel_rolls_one_has_a_successor(entitled: Entitled, admin: AsyncClient) -> None:
    org = await entitled("tiny")
    key = await created(admin, org)
    path = f"/v1/organizations/{org}/keys/{key['id']}/roll"
    answers = await asyncio.gather(*[admin.post(path) for _ in range(100)])
    assert sorted(answer.status_code for answer in answers) == [201, *[409] * 99]
    assert len((await admin.get(f"/v1/organizations/{org}/keys")).json()["keys"]) == 2


async def test_keys_that_are_long_over_are_forgotten_by_redis_and_recent_ones_say_why_they_are_refused(
    context: Context, entitled: Entitled, admin: AsyncClient, clock: MovedClock, redis: Redis
) -> None:
    org = await entitled("tiny")
    expires_at = moment(int(clock.now) + 60).isoformat()
    revoked, expiring, live = (
        await created(admin, org),
        await created(admin, org, expires_at=expires_at),
        await created(admin, org),
    )
    await admin.delete(f"/v1/organizations/{org}/keys/{revoked['id']}")
    cleanup = Cleanup(context.db, context.ledger, context.publisher, clock)
    clock.move(days=29)
    await cleanup.round()
    assert (await context.ledger.look(org, digest16(revoked["key"]))).record is not None
    clock.move(days=2)
    await cleanup.round()
    for gone in (revoked, expiring):
        assert (await context.ledger.look(org, digest16(gone["key"]))).record is None
        assert await redis.get(keys.key_index_key(digest16(gone["key"]), 32)) is None
    assert (await context.ledger.look(org, digest16(live["key"]))).record is not None
    path = f"/v1/organizations/{org}/keys/{expiring['id']}"
    assert (await admin.patch(path, json={"expires_at": None})).status_code == 409


async def test_an_index_that_redis_lost_is_not_believed_until_it_is_filled_again(
    context: Context, entitled: Entitled, admin: AsyncClient, redis: Redis
) -> None:
    org = await entitled("tiny")
    key = await created(admin, org)
    stranger = digest16(generate("qg", "live"))
    index = KeyIndex(context.db, context.ledger)
    await index.round()
    assert await context.ledger.owner(stranger) is IndexMiss.NO_KEY
    await redis.flushall()
    await context.recovery.round()
    assert await context.ledger.owner(digest16(key["key"])) is IndexMiss.INCOMPLETE
    assert await index.round() == 32
    assert await context.ledger.owner(digest16(key["key"])) == org
    assert await context.ledger.owner(stranger) is IndexMiss.NO_KEY
    assert await index.round() == 0


async def test_an_expired_key_that_is_extended_works_again(
    context: Context, entitled: Entitled, admin: AsyncClient, clock: MovedClock
) -> None:
    org = await entitled("tiny")
    key = await created(admin, org, expires_at=moment(int(clock.now) + 60).isoformat())
    clock.move(minutes=2)
    later = moment(int(clock.now)) + timedelta(days=1)
    path = f"/v1/organizations/{org}/keys/{key['id']}"
    assert (await admin.patch(path, json={"expires_at": later.isoformat()})).json()["state"] == "active"
    record = (await context.ledger.look(org, digest16(key["key"]))).record
    assert record is not None
    assert record.expires_s == int(later.timestamp())
