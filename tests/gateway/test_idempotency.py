"""Idempotency-Key: a request is charged once, however often, from wherever and with whatever luck it is repeated."""

import asyncio
import json
from pathlib import Path

import pytest

from gateway.decision.idempotency import key_of
from quota.model import MeterLimit
from tests.gateway.rig import Gateway, MakeOrganization, Organization, Peer, StartGateway, Until, Upstream

KEY = b"Idempotency-Key: 8e03978e-40d5-43dd-bc93-6894a57f9324\r\n"
UNREACHABLE = "http://127.0.0.1:1"


def post(auth: bytes, lines: bytes = KEY, path: bytes = b"/orders", method: bytes = b"POST") -> bytes:
    return b"%b %b HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n%b%b\r\n{}" % (method, path, auth, lines)


async def test_a_repeated_request_is_charged_once_forwarded_each_time_and_told_the_balance(
    gateway: Gateway, acme: Organization, upstream: Upstream
) -> None:
    client = await gateway.connect()
    answers = [await client.ask(post(acme.auth)) for _ in range(3)]
    assert [(answer.status, answer.remaining) for answer in answers] == 3 * [(200, 99)]
    assert answers[2]["ratelimit-policy"] == '"api_calls";q=100;w=101000'
    assert await acme.events() == ["t"]
    assert len(upstream.requests) == 3
    assert all(KEY in request for request in upstream.requests)


async def test_50_requests_with_one_key_over_50_connections_are_one_charge_and_50_answers(
    gateway: Gateway, acme: Organization, upstream: Upstream
) -> None:
    answers = await asyncio.gather(*(gateway.ask(post(acme.auth)) for _ in range(50)))
    assert [answer.status for answer in answers] == 50 * [200]
    assert await acme.used() == 1
    assert await acme.events() == ["t"]
    assert len(upstream.requests) == 50


async def test_requests_through_two_gateways_with_one_key_are_one_charge(
    start: StartGateway, acme: Organization, upstream: Upstream
) -> None:
    one, other = await start(), await start()
    await asyncio.gather(*(each.ask(post(acme.auth)) for each in 10 * [one, other]))
    assert await acme.used() == 1


async def test_the_second_of_two_pipelined_requests_with_one_key_is_not_charged(
    gateway: Gateway, acme: Organization
) -> None:
    client = await gateway.connect()
    client.send(2 * post(acme.auth))
    assert [(await client.answer("POST")).status for _ in range(2)] == [200, 200]
    assert await acme.events() == ["t"]


async def test_a_get_that_is_recognized_by_its_bytes_is_charged_once_as_well(
    gateway: Gateway, acme: Organization
) -> None:
    client = await gateway.connect()
    data = b"GET / HTTP/1.1\r\nHost: a\r\n%b%b\r\n" % (acme.auth, KEY)
    assert [(await client.ask(data)).remaining for _ in range(4)] == 4 * [99]
    assert await acme.events() == ["t"]


@pytest.mark.parametrize("changed", ["key", "method", "path", "query", "organization"])
async def test_a_key_is_that_of_one_method_one_target_and_one_organization(
    gateway: Gateway, acme: Organization, organization: MakeOrganization, changed: str
) -> None:
    other = await organization("other", 100)
    first, second = (
        post(acme.auth),
        {
            "key": post(acme.auth, b"Idempotency-Key: another\r\n"),
            "method": post(acme.auth, method=b"PUT"),
            "path": post(acme.auth, path=b"/payments"),
            "query": post(acme.auth, path=b"/orders?page=2"),
            "organization": post(other.auth),
        }[changed],
    )
    await gateway.ask(first)
    assert (await gateway.ask(second)).remaining == (99 if changed == "organization" else 98)


async def test_the_key_of_a_cheap_route_pays_for_no_dear_one(
    start: StartGateway, organization: MakeOrganization
) -> None:
    routes = [
        {"path": "/", "host": "cheap", "upstream": "api"},
        {"path": "/", "host": "dear", "upstream": "api", "meters": {"api_calls": 50}},
    ]
    gateway, acme = await start(routes=routes), await organization("acme", 100)
    for host in (b"cheap", b"dear", b"cheap", b"dear"):
        assert (await gateway.ask(post(acme.auth).replace(b"Host: a", b"Host: " + host))).status == 200
    assert await acme.used() == 51


async def test_a_repetition_is_forwarded_though_the_organization_is_exhausted(
    gateway: Gateway, organization: MakeOrganization, upstream: Upstream
) -> None:
    one = await organization("one", 1)
    assert (await gateway.ask(post(one.auth))).status == 200
    for _ in range(3):  # the last from memory
        assert (await gateway.ask(post(one.auth, b""))).status == 429
        assert (await gateway.ask(post(one.auth, b"Idempotency-Key: new\r\n"))).status == 429
    answer = await gateway.ask(post(one.auth))
    assert (answer.status, answer.remaining) == (200, 0)
    assert await one.events() == ["t"]


async def test_an_attempt_whose_charge_was_given_back_leaves_its_key_free(
    start: StartGateway, acme: Organization, upstream: Upstream
) -> None:
    broken, whole = await start(UNREACHABLE), await start()
    for attempts in (1, 2):
        assert (await broken.ask(post(acme.auth))).status == 502
        assert await acme.settled("ts" * attempts)  # before it the next attempt would count as a repetition
    assert [(await whole.ask(post(acme.auth))).remaining for _ in range(2)] == [99, 99]
    assert await acme.events() == ["t", "s", "t", "s", "t"]
    assert await acme.used() == 1


async def test_the_charge_stays_when_the_first_attempt_fails_while_a_second_is_under_way(
    start: StartGateway, acme: Organization, upstream: Upstream, until: Until
) -> None:
    async def fail_the_first(peer: Peer, request: bytes) -> None:
        if len(upstream.requests) > 1:
            first.writer.transport.abort()
            await asyncio.sleep(0.01)
            peer.send(upstream.answer)

    upstream.script = fail_the_first
    gateway = await start()
    one, other = await gateway.connect(), await gateway.connect()
    one.send(post(acme.auth))
    await until(lambda: len(upstream.requests) == 1)
    [first] = upstream.peers
    other.send(post(acme.auth))
    assert (await other.answer("POST")).status == 200
    assert (await one.answer("POST")).status == 502
    await until(lambda: not gateway.worker.settlements.open)
    assert await acme.events() == ["t"]
    assert (await gateway.ask(post(acme.auth))).remaining == 99


async def test_when_all_attempts_fail_nothing_is_charged(
    start: StartGateway, acme: Organization, upstream: Upstream, until: Until
) -> None:
    async def fail_together(peer: Peer, request: bytes) -> None:
        if len(upstream.requests) == 10:
            for each in upstream.peers:
                each.writer.transport.abort()

    upstream.script = fail_together
    gateway = await start()
    answers = await asyncio.gather(*(gateway.ask(post(acme.auth)) for _ in range(10)))
    assert [answer.status for answer in answers] == 10 * [502]
    await until(lambda: not gateway.worker.settlements.open)
    assert await acme.events() == ["t", "s"]
    assert await acme.used() == 0


async def test_a_client_that_leaves_keeps_its_charge_and_its_repetition_is_free(
    gateway: Gateway, acme: Organization, upstream: Upstream, until: Until
) -> None:
    async def hold(peer: Peer, request: bytes) -> None:
        if len(upstream.requests) > 1:
            peer.send(upstream.answer)

    upstream.script = hold
    client = await gateway.connect()
    client.send(post(acme.auth))
    await until(lambda: upstream.requests)
    await client.close()
    assert (await gateway.ask(post(acme.auth))).remaining == 99
    assert await acme.events() == ["t"]


MALFORMED = {
    "twice": KEY + KEY,
    "empty": b"Idempotency-Key: \r\n",
    "an empty string": b'Idempotency-Key: ""\r\n',
    "too long": b"Idempotency-Key: %b\r\n" % (b"a" * 256),
    "a blank": b"Idempotency-Key: a b\r\n",
    "two joined": b"Idempotency-Key: a, b\r\n",
    "two joined without a blank": b"Idempotency-Key: a,b\r\n",
    "not ASCII": b"Idempotency-Key: \xc3\xa4\r\n",
    "an open string": b'Idempotency-Key: "a\r\n',
    "a parameter": b'Idempotency-Key: "a";b=1\r\n',
}


@pytest.mark.parametrize("shape", MALFORMED)
async def test_a_malformed_key_is_refused_and_nothing_is_charged(
    gateway: Gateway, acme: Organization, upstream: Upstream, shape: str
) -> None:
    answer = await gateway.ask(post(acme.auth, MALFORMED[shape]))
    assert answer.status == 400
    assert "Idempotency-Key" in answer.problem["detail"]
    assert not upstream.requests
    assert await acme.events() == []


async def test_a_quoted_key_and_a_bare_one_are_the_same(gateway: Gateway, acme: Organization) -> None:
    for line in (b"Idempotency-Key: abc\r\n", b'idempotency-key: "abc"\r\n', b"IDEMPOTENCY-KEY:  abc \r\n"):
        assert (await gateway.ask(post(acme.auth, line))).remaining == 99


@pytest.mark.parametrize(
    ("value", "key"),
    [
        (b"a", b"a"),
        (b"a" * 255, b"a" * 255),
        (b'"a b"', b"a b"),
        (rb'"a\"b\\c"', rb'a"b\c'),
        (rb'"a\b"', None),
        (b'a"b', None),
        (b"Zm9v/+==", b"Zm9v/+=="),
        (b"", None),
    ],
)
def test_what_a_key_is(value: bytes, key: bytes | None) -> None:
    assert key_of(value) == key


async def test_a_route_can_charge_each_request_whatever_its_key(
    start: StartGateway, acme: Organization, upstream: Upstream
) -> None:
    gateway = await start(routes=[{"path": "/", "upstream": "api", "idempotency": False}])
    for line in (KEY, KEY, KEY + KEY):
        assert (await gateway.ask(post(acme.auth, line))).status == 200
    assert await acme.used() == 3
    assert upstream.requests[2].count(KEY) == 2


async def test_an_exempt_route_has_no_use_for_a_key(start: StartGateway, upstream: Upstream) -> None:
    gateway = await start(routes=[{"path": "/", "upstream": "api", "exempt": True}])
    assert (await gateway.ask(post(b"", KEY + KEY))).status == 200


async def test_several_meters_are_charged_once_together(start: StartGateway, organization: MakeOrganization) -> None:
    gateway = await start(routes=[{"path": "/", "upstream": "api", "meters": {"api_calls": 1, "tokens": 40}}])
    both = await organization("both", None, meters=(MeterLimit("api_calls", 10), MeterLimit("tokens", 100)))
    for _ in range(4):
        answer = await gateway.ask(post(both.auth))
        balances = answer["ratelimit"] or ""
        assert balances.startswith('"api_calls";r=9;t=')
        assert '"tokens";r=60;t=' in balances
    assert await both.used("tokens") == 40


async def test_repetitions_are_counted_and_logged_as_such(
    start: StartGateway, acme: Organization, tmp_path: Path, until: Until
) -> None:
    path = tmp_path / "access.log"
    gateway = await start(access_log={"path": str(path)})
    for _ in range(3):
        await gateway.ask(post(acme.auth))
    counts = {tally.verdict: tally.count for tally in gateway.worker.recorder.tallies()}
    assert counts == {"admitted": 1, "replayed": 2}
    await until(lambda: len(path.read_text().splitlines()) == 3)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(line["verdict"], line.get("meters")) for line in lines] == [
        ("admitted", {"api_calls": 1}),
        ("replayed", None),
        ("replayed", None),
    ]
