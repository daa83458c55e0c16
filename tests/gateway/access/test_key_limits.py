"""A key's own quotas and rate, within its organization's: the refusal says whose limit it was, and others go on."""

import asyncio

import pytest

from quota.access import Quota
from quota.model import MeterLimit, RateLimit
from tests.gateway.access.opening import opened
from tests.gateway.rig import Gateway, MakeOrganization, Organization, StartGateway, Upstream, request
from tests.gateway.rig.keys import Keyring
from tests.gateway.tunnels import MESSAGE, closed_with, frame, route

HOUR = 3600


@pytest.fixture
def keyring() -> Keyring:
    return Keyring()


async def test_a_key_uses_its_quota_and_its_refusal_is_not_taken_for_the_organizations(
    gateway: Gateway, acme: Organization, keyring: Keyring, upstream: Upstream
) -> None:
    small, free = await keyring.make(acme, quotas=(Quota("api_calls", 3, HOUR),)), await keyring.make(acme)
    client = await gateway.connect()
    assert [(await client.ask(request(small.auth))).status for _ in range(5)] == [200, 200, 200, 429, 429]
    answer = await client.ask(request(small.auth))
    assert answer.problem["type"] == "https://iana.org/assignments/http-problem-types#quota-exceeded"
    assert (answer.problem["level"], answer.problem["limit"], answer.problem["remaining"]) == ("key", 3, 0)
    assert answer["ratelimit-policy"] == f'"api_calls";q=3;w={HOUR}'
    assert 1 <= int(answer["retry-after"] or "") <= HOUR
    assert not gateway.worker.exhausted.by_org
    assert [(await client.ask(request(free.auth))).status for _ in range(2)] == [200, 200]
    assert await acme.used() == len(upstream.requests) == 5


async def test_an_organization_that_is_exhausted_says_so_whatever_the_key_has_left(
    gateway: Gateway, organization: MakeOrganization, keyring: Keyring
) -> None:
    acme = await organization("acme", 2)
    key = await keyring.make(acme, quotas=(Quota("api_calls", 50, HOUR),))
    answers = [await gateway.ask(request(key.auth)) for _ in range(4)]
    assert [answer.status for answer in answers] == [200, 200, 429, 429]
    assert {answer.problem["level"] for answer in answers[2:]} == {"organization"}


async def test_a_key_has_a_rate_of_its_own(gateway: Gateway, acme: Organization, keyring: Keyring) -> None:
    slow, free = await keyring.make(acme, rate=RateLimit(2, 3600.0, 2)), await keyring.make(acme)
    answers = [await gateway.ask(request(slow.auth)) for _ in range(3)]
    assert [answer.status for answer in answers] == [200, 200, 429]
    assert answers[2].problem["type"] == "urn:quotagate:problem:rate-limited"
    assert answers[2].problem["level"] == "key"
    assert (await gateway.ask(request(free.auth))).status == 200
    assert await acme.used() == 3


async def test_limits_that_change_hold_for_the_next_request(
    gateway: Gateway, acme: Organization, keyring: Keyring
) -> None:
    key = await keyring.make(acme, quotas=(Quota("api_calls", 1, HOUR),))
    client = await gateway.connect()
    assert [(await client.ask(request(key.auth))).status for _ in range(2)] == [200, 429]
    await key.change(quotas=(Quota("api_calls", 2, HOUR),))
    assert [(await client.ask(request(key.auth))).status for _ in range(2)] == [200, 429]
    await key.change(quotas=())
    assert [(await client.ask(request(key.auth))).status for _ in range(2)] == [200, 200]


async def test_of_a_key_with_ten_units_left_ten_of_fifty_requests_at_once_are_admitted(
    gateway: Gateway, acme: Organization, keyring: Keyring, upstream: Upstream
) -> None:
    key = await keyring.make(acme, quotas=(Quota("api_calls", 10, HOUR),))
    answers = await asyncio.gather(*[gateway.ask(request(key.auth)) for _ in range(50)])
    assert sorted(answer.status for answer in answers) == [200] * 10 + [429] * 40
    assert await acme.used() == len(upstream.requests) == 10


async def test_what_is_given_back_is_given_back_to_the_key_too(
    start: StartGateway, acme: Organization, keyring: Keyring, upstream: Upstream
) -> None:
    gateway = await start(routes=[{"path": "/", "upstream": "api", "refund": {"on": ["server_error"]}}])
    key = await keyring.make(acme, quotas=(Quota("api_calls", 1, HOUR),))
    usual, upstream.answer = upstream.answer, b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n"
    assert (await gateway.ask(request(key.auth))).status == 500
    assert await acme.settled("ts")
    upstream.answer = usual
    assert [(await gateway.ask(request(key.auth))).status for _ in range(2)] == [200, 429]


async def test_a_tunnel_ends_where_its_keys_quota_does(
    start: StartGateway, organization: MakeOrganization, keyring: Keyring, upstream: Upstream
) -> None:
    acme = await organization("acme", None, meters=(MeterLimit("api_calls", 100), MeterLimit("messages", 100)))
    gateway = await start(routes=route(tunnel=MESSAGE))
    key = await keyring.make(acme, quotas=(Quota("messages", 2, HOUR),))
    client, far = await opened(gateway, upstream, key.auth)
    client.send(4 * frame(b"m"))
    assert closed_with(1008, await client.gone())
    assert (await far.gone()).startswith(2 * frame(b"m") + b"\x88")
    assert await acme.used("messages") == 2
