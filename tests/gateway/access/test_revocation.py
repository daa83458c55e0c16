"""Revocation is a fact: what was revoked, and so published, admits no request that begins later, whatever a gateway
remembers and whatever it was not told."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

import pytest
from redis.asyncio import Redis

from quota import keys
from quota.access import OF_ORGANIZATION, Mark, MarkKind
from quota.calls.encoded import TAKE_BY_DIGEST
from quota.scripts import script
from tests.gateway.access.tokens import bearer
from tests.gateway.rig import (
    Gateway,
    MakeOrganization,
    Organization,
    StartGateway,
    StartProcess,
    Upstream,
    connected,
    request,
)
from tests.gateway.rig.keys import Keyring, lift, revoke

CARRIED: dict[str, tuple[dict[str, Any], Mark]] = {
    "token": ({"jti": "t1"}, Mark(MarkKind.TOKEN, "t1")),
    "session": ({"sid": "s1"}, Mark(MarkKind.SESSION, "s1")),
    "user": ({"sub": "u1"}, Mark(MarkKind.USER, "u1")),
    "site": ({"site": "example.com"}, Mark(MarkKind.SITE, "example.com")),
    "organization": ({}, OF_ORGANIZATION),
}


@pytest.mark.parametrize("kind", CARRIED)
async def test_a_token_that_is_remembered_is_refused_once_what_it_carries_is_revoked_and_works_when_that_is_lifted(
    gateway: Gateway, acme: Organization, upstream: Upstream, kind: str
) -> None:
    claims, mark = CARRIED[kind]
    auth = bearer(**claims)
    client = await gateway.connect()
    assert [(await client.ask(request(auth))).status for _ in range(3)] == [200] * 3
    await revoke(acme, mark)
    refused = [await client.ask(request(auth)) for _ in range(2)]
    assert [answer.status for answer in refused] == [401, 401]
    assert {answer.problem["reason"] for answer in refused} == {f"{kind}_revoked"}
    assert 'error="invalid_token"' in (refused[0]["www-authenticate"] or "")
    await lift(acme, mark)
    assert (await client.ask(request(auth))).status == 200
    assert len(upstream.requests) == 4
    assert await acme.used() == 4


@pytest.mark.parametrize("kind", CARRIED)
async def test_a_token_that_is_met_first_after_it_was_revoked_is_refused_and_others_are_not(
    gateway: Gateway, acme: Organization, kind: str
) -> None:
    claims, mark = CARRIED[kind]
    await revoke(acme, mark)
    assert (await gateway.ask(request(bearer(**claims)))).status == 401
    another = dict.fromkeys(claims, "another") or {"sub": "7"}
    expected = 401 if kind == "organization" else 200
    assert (await gateway.ask(request(bearer(**another)))).status == expected


async def test_a_mark_with_a_time_refuses_what_was_issued_until_then_and_what_does_not_say_when(
    gateway: Gateway, acme: Organization
) -> None:
    now = int(time.time())
    await revoke(acme, Mark(MarkKind.USER, "7"), now - 100)
    for issued_at, expected in ((now - 200, 401), (now - 100, 401), (now - 99, 200), (None, 401)):
        assert (await gateway.ask(request(bearer(iat=issued_at)))).status == expected, issued_at


async def test_a_revocation_holds_though_the_message_that_announces_it_never_comes(
    start: StartGateway, acme: Organization, redis_url: str
) -> None:
    """The gateway's subscription is dead, and nobody has told it."""
    gateway = await start()
    gateway.worker.hydrator._listener.cancel()  # type: ignore[union-attr]  # it listens since it was started
    auth = bearer(jti="t1")
    client = await gateway.connect()
    assert (await client.ask(request(auth))).status == 200
    await revoke(acme, Mark(MarkKind.TOKEN, "t1"))
    assert (await client.ask(request(auth))).status == 401


async def test_a_request_with_an_idempotency_key_is_refused_like_others(gateway: Gateway, acme: Organization) -> None:
    auth = bearer(jti="t1")
    client = await gateway.connect()
    for number in range(2):
        assert (await client.ask(request(auth, lines=b"Idempotency-Key: %d\r\n" % number))).status == 200
    await revoke(acme, Mark(MarkKind.TOKEN, "t1"))
    for number in range(3):
        assert (await client.ask(request(auth, lines=b"Idempotency-Key: %d\r\n" % number))).status == 401
    assert await acme.used() == 2


async def test_a_change_of_the_organization_costs_each_principal_one_look_and_no_request(
    gateway: Gateway, acme: Organization, upstream: Upstream
) -> None:
    users = [bearer(sub=f"u{number}") for number in range(5)]
    for _ in range(3):
        await acme.publish(1000)
        for auth in users:
            answers = await asyncio.gather(*[gateway.ask(request(auth)) for _ in range(8)])
            assert [answer.status for answer in answers] == [200] * 8
    assert gateway.worker.looks.outcomes["token", "good"] == 15
    assert await acme.used() == 120


async def test_requests_of_one_principal_that_come_together_share_one_look(
    gateway: Gateway, acme: Organization, redis_url: str
) -> None:
    async with Redis.from_url(redis_url) as redis:
        await redis.config_resetstat()
        auth = bearer()
        clients = [await gateway.connect() for _ in range(32)]
        answers = await asyncio.gather(*[client.ask(request(auth)) for client in clients])
        stats = await redis.info("commandstats")
    assert [answer.status for answer in answers] == [200] * 32
    calls = {name: stats.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in ("hmget", "evalsha", "mget")}
    # One look, and what takes read; each look at what is written is an HMGET and an MGET.
    assert calls["hmget"] - calls["evalsha"] - calls["mget"] <= 33
    assert sum(gateway.worker.looks.outcomes.values()) == 1


@asynccontextmanager
async def racing(redis_url: str, change: Callable[[], Awaitable[None]]) -> AsyncIterator[str]:
    """The URL of a way to Redis on which something changes before each take arrives."""
    target = urlsplit(redis_url)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_connection(target.hostname, target.port)

        async def back() -> None:
            while data := await up_reader.read(65_536):
                writer.write(data)
            writer.close()

        returning = asyncio.create_task(back())
        with suppress(ConnectionError):
            while data := await reader.read(65_536):
                if TAKE_BY_DIGEST + b"$1\r\n2\r\n" in data:  # one take: the call without any is of the handshake
                    await change()
                up_writer.write(data)
        up_writer.close()
        await returning

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0"
    server.close()


async def test_an_organization_that_changes_before_every_take_is_given_up_after_eight_rounds_and_nothing_is_charged(
    start: StartGateway, acme: Organization, redis_url: str
) -> None:
    changes = 0

    async def change() -> None:
        nonlocal changes
        changes += 1
        await acme.publish(100)

    async with racing(redis_url, change) as url:
        gateway = await start(redis={"url": url})
        async with Redis.from_url(redis_url) as redis:
            await redis.script_load(script("take").source)  # else the first take is sent twice
        answer = await gateway.ask(request(bearer()))
        assert (answer.status, answer["retry-after"]) == (503, "1")
        assert changes == 9  # the first take, and one after each look
        assert await acme.used() == 0


async def test_an_organization_that_changes_while_it_is_looked_at_is_charged_once(
    start: StartGateway, acme: Organization, redis_url: str
) -> None:
    left = 5

    async def change() -> None:
        nonlocal left
        if left:
            left -= 1
            await acme.publish(100)

    async with racing(redis_url, change) as url:
        gateway = await start(redis={"url": url})
        assert (await gateway.ask(request(bearer()))).status == 200
        assert await acme.used() == 1


async def test_an_answer_that_has_begun_goes_on(gateway: Gateway, acme: Organization, upstream: Upstream) -> None:
    go_on = upstream.holds()
    auth = bearer(jti="t1")
    client = await gateway.connect()
    client.send(request(auth))
    async with asyncio.timeout(30):
        while not upstream.requests:  # noqa: ASYNC110 - the scripted upstream rings no bell
            await asyncio.sleep(0.005)
    await revoke(acme, Mark(MarkKind.TOKEN, "t1"))
    assert (await gateway.ask(request(auth))).status == 401
    go_on.set()
    assert (await client.until(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")


async def test_a_key_that_is_revoked_in_the_store_is_refused_though_nothing_was_dropped_from_any_cache(
    run: StartProcess, organization: MakeOrganization, redis_url: str
) -> None:
    """litellm-rs#959: the row was updated, deleting it from the cache failed, and the cached key went on. Here two
    processes remember the key, and then nothing can be announced to them: their Redis user loses all channels, by which
    its subscriptions end, too."""
    acme = await organization("acme", 10_000)
    key = await Keyring().make(acme)
    async with Redis.from_url(redis_url) as redis:
        await redis.execute_command("ACL", "SETUSER", "gateways", "on", "nopass", "~*", "+@all", "allchannels")
        try:
            gateway = await run(workers=2, redis={"url": redis_url.replace("://", "://gateways:any@")})
            clients = [await connected(gateway.port) for _ in range(16)]
            assert {(await client.ask(request(key.auth))).status for client in clients for _ in range(3)} == {200}
            await redis.execute_command("ACL", "SETUSER", "gateways", "resetchannels")
            await key.revoke()
            answers = [await client.ask(request(key.auth)) for client in clients for _ in range(3)]
            assert keys.CHANGED.encode() not in await redis.pubsub_channels()
        finally:
            await redis.execute_command("ACL", "DELUSER", "gateways")
    assert {answer.status for answer in answers} == {401}
    assert {answer.problem["reason"] for answer in answers} == {"key_revoked"}
    for client in clients:
        await client.close()
