"""Requests under way at once: so many as the organization may have, and a permit is never lost."""

import asyncio
from typing import Any

import pytest
from redis.asyncio import Redis

from quota import keys
from quota.model import Admitted
from quota.wire import PERMIT_SECONDS
from tests import charging
from tests.gateway.rig import Gateway, MakeOrganization, Organization, Peer, StartGateway, Until, Upstream
from tests.replies import as_bytes


@pytest.fixture
async def two(organization: MakeOrganization) -> Organization:
    return await organization("two", 100, concurrent_max=2)


@pytest.fixture
def hold(upstream: Upstream) -> asyncio.Event:
    """Answers are given when this is set."""
    event = asyncio.Event()

    async def play(peer: Peer, request: bytes) -> None:
        await event.wait()
        peer.send(upstream.answer)

    upstream.script = play
    return event


def get(auth: bytes, lines: bytes = b"") -> bytes:
    return b"GET / HTTP/1.1\r\nHost: a\r\n%b%b\r\n" % (auth, lines)


async def held(redis_url: str, org: str = "two") -> int:
    async with Redis.from_url(redis_url) as redis:
        return int(await redis.zcard(keys.permits_key(org, keys.SHARDS_DEFAULT)))


async def freed(redis_url: str) -> bool:
    async with asyncio.timeout(60):
        while await held(redis_url):  # noqa: ASYNC110 - a set rings no bell
            await asyncio.sleep(0.005)
    return True


async def test_a_request_beyond_the_limit_is_refused_at_once_and_charged_nothing(
    gateway: Gateway, two: Organization, upstream: Upstream, hold: asyncio.Event, until: Until, redis_url: str
) -> None:
    clients = [await gateway.connect() for _ in range(3)]
    for client in clients[:2]:
        client.send(get(two.auth))
    await until(lambda: len(upstream.requests) == 2)
    refused = await clients[2].ask(get(two.auth))
    assert (refused.status, refused["retry-after"]) == (429, "1")
    assert refused.problem["type"] == "urn:quotagate:problem:concurrency-limited"
    assert refused["ratelimit-policy"] == '"concurrent-requests";q=2;qu="concurrent-requests"'
    assert refused["ratelimit"] == '"concurrent-requests";r=0'
    assert refused.problem["violated-policies"] == ["concurrent-requests"]
    hold.set()
    assert [(await client.answer()).status for client in clients[:2]] == [200, 200]
    assert (await clients[2].ask(get(two.auth))).status == 200
    assert await two.used() == 3
    assert await freed(redis_url)
    counts = {tally.verdict: tally.count for tally in gateway.worker.recorder.tallies()}
    assert counts == {"admitted": 3, "concurrency_limited": 1}


async def test_requests_one_after_the_other_never_meet_the_limit(
    gateway: Gateway, organization: MakeOrganization
) -> None:
    one = await organization("one", 100, concurrent_max=1)
    client = await gateway.connect()
    client.send(get(one.auth) * 20)
    assert [(await client.answer()).status for _ in range(20)] == 20 * [200]
    for _ in range(10):
        assert (await gateway.ask(get(one.auth))).status == 200


async def test_of_many_at_once_no_more_are_under_way_than_allowed(
    gateway: Gateway, organization: MakeOrganization, upstream: Upstream, hold: asyncio.Event, redis_url: str
) -> None:
    five, statuses = await organization("two", 1000, concurrent_max=5), []

    async def ask() -> None:
        statuses.append((await gateway.ask(get(five.auth))).status)
        if len(statuses) == 55:  # all but those that are held
            hold.set()

    await asyncio.gather(*(ask() for _ in range(60)))
    assert statuses == 55 * [429] + 5 * [200]
    assert await five.used() == len(upstream.requests) == 5
    assert await freed(redis_url)


@pytest.mark.parametrize("end", ["upstream dies", "client leaves", "unreachable", "timeout"])
async def test_a_permit_is_free_whatever_the_request_came_to(
    start: StartGateway,
    two: Organization,
    upstream: Upstream,
    hold: asyncio.Event,
    until: Until,
    redis_url: str,
    end: str,
) -> None:
    settings: dict[str, Any] = {"head_timeout_seconds": 0.1} if end == "timeout" else {}
    url = "http://127.0.0.1:1" if end == "unreachable" else upstream.url
    gateway = await start(url, upstreams={"api": settings})
    client = await gateway.connect()
    client.send(get(two.auth))
    if end != "unreachable":
        await until(lambda: upstream.requests)
    if end in ("upstream dies", "client leaves"):  # a timeout may have freed it by now
        assert await held(redis_url) == 1
    if end == "upstream dies":
        upstream.peers[0].writer.transport.abort()
    if end == "client leaves":
        await client.close()
    else:
        assert (await client.answer()).status in (502, 504)
    assert await freed(redis_url)
    assert not gateway.worker.permits.held


async def test_a_streamed_answer_holds_its_permit_to_the_end(
    gateway: Gateway, two: Organization, upstream: Upstream, redis_url: str
) -> None:
    rest = asyncio.Event()

    async def stream(peer: Peer, request: bytes) -> None:
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no")
        await rest.wait()
        peer.send(b"k")

    upstream.script = stream
    client = await gateway.connect()
    client.send(get(two.auth))
    await client.until(b"\r\n\r\n")
    assert await held(redis_url) == 1
    rest.set()
    assert await client.exactly(2) == b"ok"
    assert await freed(redis_url)


async def test_a_request_that_lasts_keeps_its_permit(
    start: StartGateway,
    two: Organization,
    upstream: Upstream,
    hold: asyncio.Event,
    until: Until,
    redis_url: str,
    intervals: dict[str, Any],
) -> None:
    intervals["permit_renew_seconds"] = 0.02
    gateway = await start()
    client = await gateway.connect()
    client.send(get(two.auth))
    await until(lambda: upstream.requests)
    name = keys.permits_key("two", keys.SHARDS_DEFAULT)
    async with Redis.from_url(redis_url) as redis:
        seconds, _ = await redis.time()
        [request_id] = map(as_bytes, await redis.zrange(name, 0, -1))
        await redis.zadd(name, {request_id: seconds})
        async with asyncio.timeout(60):
            while (await redis.zscore(name, request_id) or 0) < seconds + PERMIT_SECONDS:  # noqa: ASYNC110 - a key rings no bell
                await asyncio.sleep(0.005)
    hold.set()
    assert (await client.answer()).status == 200
    assert await freed(redis_url)


async def test_the_permit_of_a_worker_that_was_killed_is_free_in_time(
    gateway: Gateway, organization: MakeOrganization, redis_url: str
) -> None:
    one = await organization("two", 100, concurrent_max=1)
    taken = await charging.take(one.ledger, "two", "killed", {"api_calls": 1})
    assert isinstance(taken, Admitted)
    assert taken.permit
    assert (await gateway.ask(get(one.auth))).status == 429
    async with Redis.from_url(redis_url) as redis:
        seconds, _ = await redis.time()
        await redis.zadd(keys.permits_key("two", keys.SHARDS_DEFAULT), {"killed": seconds})  # its minute is over
    assert (await gateway.ask(get(one.auth))).status == 200


async def test_a_repeated_request_counts_among_those_under_way_and_is_not_charged(
    gateway: Gateway, organization: MakeOrganization, upstream: Upstream, hold: asyncio.Event, until: Until
) -> None:
    two, key = await organization("two", 1, concurrent_max=2), b"Idempotency-Key: k\r\n"
    clients = [await gateway.connect() for _ in range(3)]
    for client in clients[:2]:
        client.send(get(two.auth, key))
    await until(lambda: len(upstream.requests) == 2)
    assert (await clients[2].ask(get(two.auth, key))).status == 429
    hold.set()
    assert [(await client.answer()).status for client in clients[:2]] == [200, 200]
    assert await two.events() == ["t"]


async def test_an_organization_without_a_limit_has_no_permits(
    gateway: Gateway, acme: Organization, redis_url: str
) -> None:
    assert (await gateway.ask(get(acme.auth))).status == 200
    assert await held(redis_url, "acme") == 0
    assert not gateway.worker.permits.held
