"""Whoever guesses is slowed, at whichever control plane, and also where Redis is away."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import pytest
from fastapi import Body, FastAPI
from httpx import ASGITransport, AsyncClient
from redis.asyncio import Redis

from control.access.guesses import PAUSE_SECONDS, REQUESTS, WRONG, Guess, Guesses, TooManyGuesses
from control.app import build, opened
from control.http.context import Context, Ctx
from control.http.secrets import ClientAddress, TakesSecrets
from control.settings.control_plane import LeakReports, Settings
from devstack.ports import free_port
from quota.ledger import Ledger
from tests.control.plane import ADMIN_TOKEN, MovedClock

KIND = Guess.ACTIVATION


async def tries(guesses: Guesses, number: int, address: str, subject: str = "") -> int:
    """How many of them were let through; each is wrong."""
    through = 0
    for _ in range(number):
        try:
            await guesses.check(KIND, address, subject)
        except TooManyGuesses:
            continue
        through += 1
        await guesses.count(KIND, address, subject)
    return through


async def test_all_processes_count_together(redis: Redis, clock: MovedClock) -> None:
    planes = [Guesses(Ledger(redis), clock) for _ in range(4)]
    assert sum([await tries(each, WRONG.at_once, "203.0.113.1") for each in planes]) == WRONG.at_once
    clock.move(seconds=WRONG.each_ms / 1000)
    assert sum([await tries(each, 5, "203.0.113.1") for each in planes]) == 1
    clock.move(seconds=WRONG.at_once * WRONG.each_ms / 1000)
    assert sum([await tries(each, WRONG.at_once, "203.0.113.1") for each in planes]) == WRONG.at_once


async def test_one_secret_is_guessed_slowly_from_however_many_addresses(redis: Redis, clock: MovedClock) -> None:
    guesses = Guesses(Ledger(redis), clock)
    through = [await tries(guesses, 1, f"203.0.{n // 250}.{n % 250}", "code-1") for n in range(500)]
    assert sum(through) == WRONG.at_once
    assert await tries(guesses, 1, "198.51.100.1", "code-2") == 1, "another secret is not concerned"


async def test_each_kind_has_its_own_tries(redis: Redis, clock: MovedClock) -> None:
    guesses = Guesses(Ledger(redis), clock)
    await tries(guesses, WRONG.at_once, "203.0.113.1")
    with pytest.raises(TooManyGuesses):
        await guesses.check(KIND, "203.0.113.1")
    await guesses.check(Guess.BEARER, "203.0.113.1")


async def test_how_long_to_wait_is_said_and_true(redis: Redis, clock: MovedClock) -> None:
    guesses = Guesses(Ledger(redis), clock)
    await tries(guesses, 3 * WRONG.at_once, "203.0.113.1")
    with pytest.raises(TooManyGuesses) as refused:
        await guesses.check(KIND, "203.0.113.1")
    assert 0 < refused.value.retry_seconds <= WRONG.each_ms / 1000
    clock.move(seconds=refused.value.retry_seconds)
    await guesses.check(KIND, "203.0.113.1")


async def test_nothing_in_redis_tells_the_secret_and_all_of_it_expires(redis: Redis, clock: MovedClock) -> None:
    guesses = Guesses(Ledger(redis), clock)
    await tries(guesses, 30, "203.0.113.1", "qga_the-whole-code")
    names = await redis.keys("qg:guesses:*")
    assert len(names) == 2
    for name in names:
        assert b"the-whole-code" not in name
        assert 0 < await redis.pttl(name) <= WRONG.at_once * WRONG.each_ms


async def test_a_clock_that_is_set_back_keeps_nobody_out_for_longer_than_a_full_bucket(
    redis: Redis, clock: MovedClock
) -> None:
    guesses = Guesses(Ledger(redis), clock)
    await tries(guesses, WRONG.at_once, "203.0.113.1")
    clock.move(days=-1)
    with pytest.raises(TooManyGuesses) as refused:
        await guesses.check(KIND, "203.0.113.1")
    assert refused.value.retry_seconds <= WRONG.each_ms / 1000


async def test_without_redis_each_process_counts_alone_and_nobody_waits_for_it(clock: MovedClock) -> None:
    async with Redis.from_url(f"redis://127.0.0.1:{free_port()}", socket_connect_timeout=0.1) as nowhere:
        planes = [Guesses(Ledger(nowhere), clock) for _ in range(2)]
        for guesses in planes:
            assert await tries(guesses, 3 * WRONG.at_once, "203.0.113.1", "code-1") == WRONG.at_once


async def test_a_redis_that_does_not_answer_is_asked_once_in_some_seconds(clock: MovedClock) -> None:
    connections = 0

    async def silent(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with Redis.from_url(f"redis://127.0.0.1:{port}") as redis:
        guesses = Guesses(Ledger(redis), clock)
        started = time.monotonic()
        await tries(guesses, WRONG.at_once, "203.0.113.1", "code-1")
        assert connections == 1 or time.monotonic() - started > PAUSE_SECONDS
    server.close()


async def test_two_control_planes_refuse_an_address_together(
    settings: Settings, context: Context, clock: MovedClock
) -> None:
    async with opened(settings, clock) as other:
        clients = [
            AsyncClient(transport=ASGITransport(build(each), client=("203.0.113.9", 50_000)), base_url="http://control")
            for each in (context, other)
        ]
        for client in clients * (WRONG.at_once // 2):  # neither has seen enough of them by itself
            await client.get("/v1/plans", headers={"authorization": "Bearer wrong"})
        for client in clients:
            answer = await client.get("/v1/plans", headers={"authorization": f"Bearer {ADMIN_TOKEN}"})
            assert (answer.status_code, "retry-after" in answer.headers) == (429, True)
            await client.aclose()


def with_secret_endpoint(context: Context) -> FastAPI:
    app = build(context)

    @app.post("/v1/secret", dependencies=[TakesSecrets])
    async def judge(ctx: Ctx, client: ClientAddress, code: Annotated[str, Body(embed=True)]) -> str:
        await ctx.guesses.check(KIND, client, code)
        if code != "right":
            await ctx.guesses.count(KIND, client, code)
        return "right" if code == "right" else "wrong"

    return app


async def test_an_endpoint_that_takes_secrets_has_a_rate_limit_for_right_ones_too(
    context: Context, clock: MovedClock
) -> None:
    transport: Callable[[str], ASGITransport] = lambda address: ASGITransport(  # noqa: E731  one app for both
        with_secret_endpoint(context), client=(address, 50_000)
    )
    async with (
        AsyncClient(transport=transport("203.0.113.1"), base_url="http://control") as client,
        AsyncClient(transport=transport("203.0.113.2"), base_url="http://control") as other,
    ):
        answers = [await client.post("/v1/secret", json={"code": "right"}) for _ in range(REQUESTS.at_once + 20)]
        assert [answer.status_code for answer in answers] == [200] * REQUESTS.at_once + [429] * 20
        assert answers[-1].headers["retry-after"] == "1"
        assert (await other.post("/v1/secret", json={"code": "right"})).status_code == 200
        clock.move(seconds=1)
        assert (await client.post("/v1/secret", json={"code": "right"})).status_code == 200


async def test_whoever_sends_reports_that_the_scanner_did_not_sign_is_slowed(
    settings: Settings, clock: MovedClock, tmp_path: Path
) -> None:
    file = tmp_path / "public_keys.json"
    file.write_text('{"public_keys": []}')
    reports = settings.model_copy(update={"leak_reports": LeakReports(public_keys=str(file))})
    async with opened(reports, clock) as context:
        transport = ASGITransport(build(context), client=("203.0.113.1", 50_000))
        async with AsyncClient(transport=transport, base_url="http://control") as client:
            statuses = [(await client.post("/v1/keys/leaks", content=b"[]")).status_code for _ in range(20)]
    assert statuses == [400] * WRONG.at_once + [429] * (20 - WRONG.at_once)
