"""API keys: a gateway finds their organization in Redis, and refuses those that may not be used, with the reason."""

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from identity.api_key import generate
from quota import keys
from quota.access import OF_ORGANIZATION, AccessChanges, KeyState, Mark, MarkKind
from tests.gateway.rig import (
    Gateway,
    MakeOrganization,
    Organization,
    StartGateway,
    Until,
    Upstream,
    request,
)
from tests.gateway.rig.keys import Key, Keyring, complete_index, revoke


@pytest.fixture
def keyring() -> Keyring:
    return Keyring()


@pytest.fixture
async def key(acme: Organization, keyring: Keyring) -> Key:
    return await keyring.make(acme)


def bearer(text: str) -> bytes:
    return b"Authorization: Bearer %b\r\n" % text.encode()


async def reason(gateway: Gateway, auth: bytes) -> tuple[int, str]:
    answer = await gateway.ask(request(auth))
    return answer.status, answer.problem["reason"]


async def test_a_key_is_charged_to_its_organization_and_the_event_names_it(
    gateway: Gateway, acme: Organization, keyring: Keyring, upstream: Upstream
) -> None:
    key = await keyring.make(acme, user="demo@acme ü")
    client = await gateway.connect()
    answers = [await client.ask(request(key.auth)) for _ in range(3)]
    assert [(answer.status, answer.remaining) for answer in answers] == [(200, 99), (200, 98), (200, 97)]
    assert all(b"X-Quota-Org: acme\r\n" in sent for sent in upstream.requests)
    assert all(b"X-Quota-Key" not in sent and b"X-Quota-User" not in sent for sent in upstream.requests)
    paths = {event.split(" ")[2] for event in await acme.event_texts()}
    assert paths == {f"acme/u:demo@acme%20%C3%BC/k:{key.id}"}
    assert gateway.worker.looks.outcomes == {("key", "good"): 1}


async def test_upstreams_are_told_of_key_and_user_where_the_settings_say_so(
    start: StartGateway, acme: Organization, keyring: Keyring, upstream: Upstream
) -> None:
    gateway = await start(identity={"key": True, "user": True})
    key = await keyring.make(acme, user="a b")
    client = await gateway.connect()
    forged = b"X-Quota-Key: other\r\nX_Quota_User: other\r\n"
    assert (await client.ask(request(key.auth, lines=forged))).status == 200
    await key.change(user="c")
    assert (await client.ask(request(key.auth, lines=forged))).status == 200
    first, second = upstream.requests
    assert b"other" not in first + second
    for sent, user in ((first, b"a%20b"), (second, b"c")):
        assert b"X-Quota-Key: %b\r\n" % key.id.encode() in sent
        assert b"X-Quota-User: %b\r\n" % user in sent


@pytest.mark.parametrize("met", [True, False], ids=["met before", "met first"])
@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"state": KeyState.REVOKED}, "key_revoked"),
        ({"state": KeyState.DISABLED}, "key_disabled"),
        ({"expires_s": 1_000_000_000}, "key_expired"),
    ],
)
async def test_a_key_that_may_not_be_used_is_refused_with_its_reason_and_works_again_when_it_may(
    gateway: Gateway, key: Key, upstream: Upstream, change: dict[str, Any], expected: str, met: bool
) -> None:
    if met:
        assert (await gateway.ask(request(key.auth))).status == 200
    usual = {name: getattr(key.record, name) for name in change}
    await key.change(**change)
    assert [await reason(gateway, key.auth) for _ in range(2)] == [(401, expected)] * 2
    await key.change(**usual)
    assert (await gateway.ask(request(key.auth))).status == 200
    assert len(upstream.requests) == 1 + met


async def test_a_key_ends_at_its_second_and_goes_on_when_that_is_put_off(
    gateway: Gateway, organization: MakeOrganization, keyring: Keyring
) -> None:
    acme = await organization("acme", 1_000_000)
    key = await keyring.make(acme, expires_s=int(time.time()) + 3)
    assert (await gateway.ask(request(key.auth))).status == 200
    statuses: list[int] = []
    async with asyncio.timeout(30):
        while not statuses or statuses[-1] == 200:
            statuses.append((await gateway.ask(request(key.auth))).status)
    assert statuses[-1] == 401
    assert time.time() >= (key.record.expires_s or 0)
    assert await reason(gateway, key.auth) == (401, "key_expired")
    await key.change(expires_s=int(time.time()) + 3600)
    assert (await gateway.ask(request(key.auth))).status == 200


async def test_a_mistyped_key_and_one_of_another_environment_are_refused_without_a_look(
    gateway: Gateway, acme: Organization, keyring: Keyring
) -> None:
    key = await keyring.make(acme, environment="test")
    typo = generate("qg", "live")
    typo = typo[:-1] + ("x" if typo[-1] != "x" else "y")
    assert await reason(gateway, bearer(typo)) == (401, "key_checksum")
    assert await reason(gateway, key.auth) == (401, "key_environment")
    assert not gateway.worker.looks.outcomes


async def test_a_key_that_does_not_exist_is_unknown_only_while_the_index_is_complete(
    start: StartGateway, acme: Organization, key: Key, redis_url: str
) -> None:
    """After a loss of Redis' memory a good key must not be told that it does not exist: its owner throws it away."""
    nobody = bearer(generate("qg", "live"))
    async with Redis.from_url(redis_url) as redis:
        await complete_index(redis)
        gateway = await start()
        assert await reason(gateway, nobody) == (401, "key_unknown")
        for shard in range(32):
            await redis.delete(keys.key_index_marker(shard))
        answer = await gateway.ask(request(nobody))
        assert (answer.status, answer["retry-after"]) == (503, "1")
        assert answer.problem["type"] == "urn:quotagate:problem:ledger-unavailable"
        assert answer["www-authenticate"] is None
        assert (await gateway.ask(request(key.auth))).status == 200
        await complete_index(redis)
        assert await reason(gateway, nobody) == (401, "key_unknown")


async def test_ten_thousand_guesses_cost_one_command_each_at_most_and_are_not_remembered(
    start: StartGateway, acme: Organization, key: Key, redis_url: str
) -> None:
    """No database (a gateway knows none), no organization is asked of the control plane, no key set is fetched."""
    async with Redis.from_url(redis_url) as redis:
        await complete_index(redis)
        gateway = await start(auth={"cache_entries_max": 100})
        client = await gateway.connect()
        assert (await client.ask(request(key.auth))).status == 200
        await redis.config_resetstat()
        for number in range(10_000):
            text = generate("qg", "live") if number % 2 else f"qg_live_{number:028d}_000000"
            answer = await client.ask(request(bearer(text)))
            assert answer.status == 401, number
        stats = await redis.info("commandstats")
        looks = sum(stats.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in ("mget", "hmget", "hget"))
        assert 5_000 <= looks <= 5_200  # and the link's own, for the clock
        assert await redis.llen(keys.HYDRATE) == 0
        assert (await client.ask(request(key.auth))).status == 200
    assert gateway.worker.looks.outcomes == {("key", "good"): 1, ("key", "key_unknown"): 5_000}
    assert not gateway.worker.looks._of_keys
    assert not gateway.worker.looks._of_claims


async def test_marks_of_the_organization_and_of_the_keys_user_refuse_the_key_too(
    gateway: Gateway, acme: Organization, keyring: Keyring
) -> None:
    mine, other = await keyring.make(acme, user="7"), await keyring.make(acme)
    assert [(await gateway.ask(request(key.auth))).status for key in (mine, other)] == [200, 200]
    await revoke(acme, Mark(MarkKind.USER, "7"))
    assert await reason(gateway, mine.auth) == (401, "user_revoked")
    assert (await gateway.ask(request(other.auth))).status == 200
    await revoke(acme, OF_ORGANIZATION)
    assert await reason(gateway, other.auth) == (401, "organization_revoked")


async def test_a_key_that_gets_a_user_whose_access_is_revoked_is_refused(
    gateway: Gateway, acme: Organization, key: Key
) -> None:
    assert (await gateway.ask(request(key.auth))).status == 200
    await revoke(acme, Mark(MarkKind.USER, "8"))
    assert (await gateway.ask(request(key.auth))).status == 200
    await key.change(user="8")
    assert await reason(gateway, key.auth) == (401, "user_revoked")


async def test_a_key_of_an_organization_that_redis_does_not_know_waits_until_it_is_loaded(
    gateway: Gateway, acme: Organization, key: Key, redis_url: str
) -> None:
    async with Redis.from_url(redis_url) as redis:
        await redis.delete(keys.org_key("acme", 32))
        waiting = [asyncio.create_task(gateway.ask(request(key.auth))) for _ in range(5)]
        asked = await redis.blpop([keys.HYDRATE], timeout=30)
        assert asked is not None
        assert asked[1] == b"acme"
        await acme.publish(100)
        assert [(await each).status for each in waiting] == [200] * 5
        assert await redis.llen(keys.HYDRATE) == 0


async def test_a_key_that_an_organization_no_longer_has_is_unknown(
    gateway: Gateway, acme: Organization, key: Key, redis_url: str
) -> None:
    """Its index entry stays: it never changes its meaning."""
    assert (await gateway.ask(request(key.auth))).status == 200
    await acme.publish_access(AccessChanges(acme.version, dropped=frozenset({key.digest})))
    assert [await reason(gateway, key.auth) for _ in range(2)] == [(401, "key_unknown")] * 2


async def test_an_imported_key_is_looked_up_only_where_the_settings_say_so(
    start: StartGateway, acme: Organization, keyring: Keyring
) -> None:
    key = await keyring.make(acme, text="sk_imported_from_elsewhere_0123456789")
    gateway = await start()
    assert (await gateway.ask(request(key.auth))).status == 401
    assert not gateway.worker.looks.outcomes
    importing = await start(auth={"keys": {"imported": True}})
    assert (await importing.ask(request(key.auth))).status == 200


async def test_while_redis_is_away_a_key_that_is_met_first_is_refused_with_503_and_not_401(
    start: StartGateway, acme: Organization, key: Key, unopened: None
) -> None:
    gateway = await start(redis={"url": "redis://127.0.0.1:1/0"})
    answer = await gateway.ask(request(key.auth))
    assert (answer.status, answer["retry-after"]) == (503, "1")


async def test_a_client_that_leaves_during_the_look_is_charged_nothing(
    gateway: Gateway, acme: Organization, key: Key, upstream: Upstream, redis_url: str, until: Until
) -> None:
    async with Redis.from_url(redis_url) as redis:
        await redis.client_pause(500)
        client = await gateway.connect()
        client.send(request(key.auth))
        await until(lambda: gateway.worker.looks._of_keys)
        await client.close()
        await until(lambda: not gateway.worker.looks._of_keys)
        assert (await gateway.ask(request(key.auth))).status == 200
    assert await acme.used() == 1
    assert len(upstream.requests) == 1


async def test_a_line_of_the_access_log_names_key_and_user_also_of_a_key_that_is_refused(
    start: StartGateway, acme: Organization, keyring: Keyring, tmp_path: Path, until: Until
) -> None:
    file = tmp_path / "access.log"
    gateway = await start(access_log={"path": str(file)})
    key = await keyring.make(acme, user='"7"')
    client = await gateway.connect()
    assert (await client.ask(request(key.auth))).status == 200
    await key.revoke()
    assert (await client.ask(request(key.auth))).status == 401
    await until(lambda: file.exists() and file.read_bytes().count(b"\n") >= 2)
    lines = [json.loads(line) for line in file.read_bytes().splitlines()]
    assert [(line["org"], line["key"], line["user"], line["verdict"]) for line in lines] == [
        ("acme", key.id, '"7"', "admitted"),
        ("acme", key.id, '"7"', "token_key_revoked"),
    ]


async def test_a_revoked_key_in_shadow_is_forwarded_and_names_nobody_upstream(
    start: StartGateway, organization: MakeOrganization, keyring: Keyring, upstream: Upstream
) -> None:
    gateway = await start(shadow={"organizations": ["acme"]})
    acme, other = await organization("acme"), await organization("other")
    mine, theirs = await keyring.make(acme), await keyring.make(other)
    for key in (mine, theirs):
        await key.revoke()
    assert (await gateway.ask(request(theirs.auth))).status == 401
    assert (await gateway.ask(request(mine.auth))).status == 200
    [sent] = upstream.requests
    assert b"X-Quota-Org" not in sent
