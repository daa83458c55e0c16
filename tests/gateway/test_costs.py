"""What a request costs where that is no fixed number: told by the request, or by the upstream in its answer."""

import asyncio
import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from quota.model import MeterLimit
from tests.gateway.rig import OK, Gateway, MakeOrganization, Organization, Peer, StartGateway, Until, Upstream

METERS = (MeterLimit("api_calls", 100), MeterLimit("tokens", 1000))


def routes(*meters: Any, **others: Any) -> list[dict[str, Any]]:
    return [{"path": "/", "upstream": "api", "meters": meters[0], **others}]


def request(organization: Organization, target: bytes = b"/", lines: bytes = b"", method: bytes = b"GET") -> bytes:
    return b"%b %b HTTP/1.1\r\nHost: a\r\n%b%b\r\n" % (method, target, organization.auth, lines)


@pytest.fixture
async def acme(organization: MakeOrganization) -> Organization:
    return await organization("acme", None, meters=METERS)


def logged(gateway: Gateway, event: str) -> list[Any]:
    return [entry for entry in gateway.logs if entry["event"] == event]


# Told by the request

ASKED = {
    "header": {"header": "X-Cost", "default": 3, "max": 50},
    "query": {"query": "n", "default": 3, "max": 50},
}


@pytest.mark.parametrize("kind", ASKED)
async def test_a_cost_that_the_request_tells_is_charged_and_its_default_without(
    start: StartGateway, acme: Organization, upstream: Upstream, kind: str
) -> None:
    gateway = await start(routes=routes({"tokens": ASKED[kind], "api_calls": 1}))
    asked = {"header": request(acme, lines=b"x-cost:  7 \r\n"), "query": request(acme, b"/a?m=1&%6e=%37&q")}
    client = await gateway.connect()
    for used in (7, 14):  # the second time the head is recognized, not parsed
        answer = await client.ask(asked[kind])
        assert (answer.status, await acme.used("tokens")) == (200, used)
        assert f'"tokens";r={1000 - used};' in (answer["ratelimit"] or "")
    assert (await client.ask(request(acme))).status == 200
    assert (await acme.used("tokens"), await acme.used("api_calls")) == (17, 3)
    assert len(upstream.requests) == 3


BAD = [
    ("header", b"/", b"X-Cost: \r\n"),
    ("header", b"/", b"X-Cost: 1.5\r\n"),
    ("header", b"/", b"X-Cost: -1\r\n"),
    ("header", b"/", b"X-Cost: +1\r\n"),
    ("header", b"/", b"X-Cost: 0\r\n"),
    ("header", b"/", b"X-Cost: 51\r\n"),
    ("header", b"/", b"X-Cost: 1e1\r\n"),
    ("header", b"/", b"X-Cost: 0x10\r\n"),
    ("header", b"/", b"X-Cost: 1_0\r\n"),
    ("header", b"/", b"X-Cost: " + b"9" * 400 + b"\r\n"),
    ("header", b"/", b"X-Cost: \xd9\xa1\r\n"),
    ("header", b"/", b"X-Cost: 1, 2\r\n"),
    ("header", b"/", b"X-Cost: 1\r\nx-cost: 1\r\n"),
    ("header", b"/", b"X_Cost: 40\r\n"),
    ("header", b"/", b"X-Cost: 1\r\nX_Cost: 40\r\n"),
    ("query", b"/?n=", b""),
    ("query", b"/?n", b""),
    ("query", b"/?n=x", b""),
    ("query", b"/?n=-1", b""),
    ("query", b"/?n=+5", b""),
    ("query", b"/?n=0", b""),
    ("query", b"/?n=51", b""),
    ("query", b"/?n=1&n=1", b""),
    ("query", b"/?n=1&%6E=40", b""),
    ("query", b"/?n=%D9%A1", b""),
    ("query", b"/?n=1;n=40", b""),
    ("query", b"/?a=1;n=40", b""),
]


@pytest.mark.parametrize(("kind", "target", "lines"), BAD)
async def test_a_cost_that_is_told_badly_is_refused_by_its_name_and_nothing_is_charged(
    start: StartGateway, acme: Organization, upstream: Upstream, kind: str, target: bytes, lines: bytes
) -> None:
    gateway = await start(routes=routes({"tokens": ASKED[kind], "api_calls": 1}))
    client = await gateway.connect()
    answer = await client.ask(request(acme, target, lines))
    assert (answer.status, answer.problem["type"]) == (400, "urn:quotagate:problem:bad-request")
    assert ("X-Cost" if kind == "header" else "parameter n") in answer.problem["detail"]
    assert not upstream.requests
    assert (await client.ask(request(acme))).status == 200, "the connection goes on"
    assert await acme.events() == ["t"]


async def test_a_cost_field_that_the_connection_field_takes_away_was_not_told(
    start: StartGateway, acme: Organization, upstream: Upstream
) -> None:
    gateway = await start(routes=routes({"tokens": ASKED["header"]}))
    assert (await gateway.ask(request(acme, lines=b"X-Cost: 1\r\nConnection: X-Cost\r\n"))).status == 200
    assert b"X-Cost" not in upstream.requests[0]
    assert await acme.used("tokens") == 3


async def test_a_request_is_free_only_where_the_route_says_so(start: StartGateway, acme: Organization) -> None:
    gateway = await start(routes=routes({"tokens": ASKED["header"] | {"min": 0}}))
    assert (await gateway.ask(request(acme, lines=b"X-Cost: 0\r\n"))).status == 200
    assert await acme.used("tokens") == 0


async def test_a_refusal_tells_the_cost_that_the_request_told_and_is_remembered_for_it_alone(
    start: StartGateway, organization: MakeOrganization
) -> None:
    acme = await organization("acme", None, meters=(MeterLimit("tokens", 10),))
    gateway = await start(routes=routes({"tokens": ASKED["header"] | {"max": 10**6}}))
    assert (await gateway.ask(request(acme, lines=b"X-Cost: 6\r\n"))).status == 200
    for _ in range(2):
        answer = await gateway.ask(request(acme, lines=b"X-Cost: 5\r\n"))
        assert (answer.status, answer.problem["cost"], answer.problem["remaining"]) == (429, 5, 4)
    for cost in range(5, 205):
        assert (await gateway.ask(request(acme, lines=b"X-Cost: %d\r\n" % cost))).status == 429
    assert len(gateway.worker.exhausted.by_org["acme"]) <= 64
    assert (await gateway.ask(request(acme, lines=b"X-Cost: 4\r\n"))).status == 200


# Told by the upstream

HEADER, TRAILER, JSON = (
    {"reported": source, "estimate": 100, "max": 500}
    for source in ({"header": "X-Usage-Units"}, {"trailer": "X-Usage-Units"}, {"json": "usage.total_tokens"})
)


def chunked(*parts: bytes, fields: bytes = b"", trailers: bytes = b"") -> bytes:
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts)
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n%b\r\n%b0\r\n%b\r\n" % (fields, chunks, trailers)


def sized(body: bytes, fields: bytes = b"") -> bytes:
    return b"HTTP/1.1 200 OK\r\n%bContent-Length: %d\r\n\r\n%b" % (fields, len(body), body)


def usage(units: Any) -> bytes:
    return json.dumps({"text": "x" * 100, "usage": {"total_tokens": units}}).encode()


AS_JSON, AS_EVENTS = b"Content-Type: application/json\r\n", b"Content-Type: text/event-stream\r\n"


@pytest.mark.parametrize("units", [0, 7, 100, 500])
@pytest.mark.parametrize("kind", ["header", "trailer", "json", "json in chunks", "json to the end", "gzip", "events"])
async def test_what_the_upstream_reports_becomes_the_charge_and_the_answer_is_as_it_was(
    start: StartGateway, acme: Organization, upstream: Upstream, kind: str, units: int
) -> None:
    field, body = b"X-Usage-Units: %d\r\n" % units, usage(units)
    events = b'data: {"usage": null}\n\n', b"data: " + body + b"\n\n", b"data: [DONE]\n\n"
    cost, answer, seen = {
        "header": (HEADER, sized(b"ok", field), b"ok"),
        "trailer": (TRAILER, chunked(b"ok", trailers=field), b"ok"),
        "json": (JSON, sized(body, AS_JSON), body),
        "json in chunks": (JSON, chunked(body[:120], body[120:], fields=AS_JSON), body),
        "json to the end": (JSON, b"HTTP/1.1 200 OK\r\nConnection: close\r\n" + AS_JSON + b"\r\n" + body, body),
        "gzip": (JSON, sized(gzip.compress(body), AS_JSON + b"Content-Encoding: gzip\r\n"), gzip.compress(body)),
        "events": (JSON, chunked(*events, fields=AS_EVENTS), b"".join(events)),
    }[kind]

    async def answers(peer: Peer, _: bytes) -> None:
        peer.send(answer)
        if kind == "json to the end":
            await peer.close()

    upstream.script = answers
    gateway = await start(routes=routes({"api_calls": 1, "tokens": cost}))
    client = await gateway.connect()
    for asked in (1, 2):  # what is known of an answer that came before must not keep it from being read
        source = await client.ask(request(acme))
        assert (source.status, len(source.body)) == (200, len(seen))
        assert source["x-usage-units"] == (str(units) if kind == "header" else None)
        assert f'"tokens";r={1000 - 100 - (asked - 1) * units};' in (source["ratelimit"] or ""), "as at admission"
        assert await acme.settled(("t" if units == 100 else "ts") * asked)
        assert (await acme.used("tokens"), await acme.used("api_calls")) == (asked * units, asked)
    assert gateway.worker.recorder.reports == {("/", "told"): 2}


@pytest.mark.parametrize(
    ("cost", "answer", "outcome"),
    [
        (HEADER, OK, "missing"),
        (HEADER, sized(b"ok", b"X-Usage-Units: 1\r\nX-Usage-Units: 1\r\n"), "malformed"),
        (HEADER, sized(b"ok", b"X-Usage-Units: -1\r\n"), "malformed"),
        (HEADER, sized(b"ok", b"X-Usage-Units: many\r\n"), "malformed"),
        (HEADER, sized(b"ok", b"X-Usage-Units: 501\r\n"), "above_max"),
        (TRAILER, OK, "missing"),
        (TRAILER, sized(b"ok", b"X-Usage-Units: 5\r\n"), "missing"),
        (TRAILER, chunked(b"ok", trailers=b"X-Usage-Units: 501\r\n"), "above_max"),
        (JSON, OK, "unreadable"),
        (JSON, sized(usage("5"), AS_JSON), "malformed"),
        (JSON, sized(usage(5)[:-3], AS_JSON), "missing"),
        (JSON, sized(b"?", AS_JSON + b"Content-Encoding: compress\r\n"), "unreadable"),
        (JSON, b"HTTP/1.1 204 No Content\r\n\r\n", "unreadable"),
    ],
)
async def test_a_report_that_is_missing_or_cannot_be_believed_leaves_the_estimate_and_is_counted(
    start: StartGateway, acme: Organization, upstream: Upstream, cost: Any, answer: bytes, outcome: str
) -> None:
    upstream.answer = answer
    gateway = await start(routes=routes({"tokens": cost}))
    assert (await gateway.ask(request(acme))).status in (200, 204)
    assert gateway.worker.recorder.reports == {("/", outcome): 1}
    [entry] = logged(gateway, "usage not reported")
    assert (entry["meter"], entry["reason"]) == ("tokens", outcome)
    assert gateway.worker.settlements.open == 0
    assert (await acme.events(), await acme.used("tokens")) == (["t"], 100)


async def test_several_meters_are_reported_each_by_itself(
    start: StartGateway, acme: Organization, upstream: Upstream
) -> None:
    body = b'{"usage": {"in": 3, "out": 4}}'
    upstream.answer = sized(body, AS_JSON + b"X-Calls: 2\r\n")
    await acme.publish(None, meters=(*METERS, MeterLimit("written", 1000)))
    source = {
        "tokens": JSON | {"reported": {"json": "usage.in"}},
        "written": JSON | {"reported": {"json": "usage.out"}},
        "api_calls": {"reported": {"header": "x-calls"}, "estimate": 1, "max": 9},
    }
    gateway = await start(routes=routes(source))
    assert (await gateway.ask(request(acme))).status == 200
    assert await acme.settled("ts")
    assert [await acme.used(meter) for meter in ("tokens", "written", "api_calls")] == [3, 4, 2]


async def test_more_than_a_hard_limit_has_left_is_charged_up_to_it_and_later_requests_are_refused(
    start: StartGateway, organization: MakeOrganization, upstream: Upstream
) -> None:
    acme = await organization("acme", None, meters=(MeterLimit("tokens", 120),))
    upstream.answer = sized(b"ok", b"X-Usage-Units: 300\r\n")
    gateway = await start(routes=routes({"tokens": HEADER}))
    assert (await gateway.ask(request(acme))).status == 200
    assert await acme.settled("ts")
    assert await acme.used("tokens") == 120
    assert gateway.worker.settlements.shortfall == {"tokens": 180}
    assert [entry["units"] for entry in logged(gateway, "used beyond the limit")] == [180]
    assert (await gateway.ask(request(acme))).status == 429


async def test_units_that_a_report_gives_back_are_there_for_the_next_request_at_once(
    start: StartGateway, organization: MakeOrganization, upstream: Upstream, until: Until
) -> None:
    acme = await organization("acme", None, meters=(MeterLimit("tokens", 150),))
    release = asyncio.Event()

    async def slowly(peer: Peer, _: bytes) -> None:
        await release.wait()
        peer.send(sized(b"ok", b"X-Usage-Units: 20\r\n"))

    upstream.script = slowly
    gateway = await start(routes=routes({"tokens": HEADER}))
    first, second = await gateway.connect(), await gateway.connect()
    first.send(request(acme))
    await until(lambda: upstream.requests)
    assert (await second.ask(request(acme))).status == 429
    release.set()
    assert (await first.answer()).status == 200
    assert await acme.settled("ts")
    assert (await second.ask(request(acme))).status == 200, "the refusal is forgotten"


@pytest.mark.parametrize("leaves", ["client", "upstream"])
async def test_a_stream_that_is_cut_is_charged_what_it_had_reported_by_then(
    start: StartGateway, acme: Organization, upstream: Upstream, leaves: str
) -> None:
    async def cut(peer: Peer, _: bytes) -> None:
        head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n" + AS_EVENTS + b"\r\n"
        event = b"data: " + usage(33) + b"\n\n"
        peer.send(head + b"%x\r\n%b\r\n" % (len(event), event))
        await (peer.close() if leaves == "upstream" else peer.gone())

    upstream.script = cut
    gateway = await start(routes=routes({"tokens": JSON}))
    client = await gateway.connect()
    client.send(request(acme))
    await client.until(b"}}\n\n\r\n")
    await (client.close() if leaves == "client" else client.gone())
    assert await acme.settled("ts")
    assert await acme.used("tokens") == 33


async def test_a_large_body_is_read_in_constant_memory_while_it_passes(
    start: StartGateway, acme: Organization, upstream: Upstream
) -> None:
    body = b'{"data": ["' + b'\\"}]' * 2_000_000 + b'"], "usage": {"total_tokens": 44}}'
    upstream.answer = sized(body, AS_JSON)
    gateway = await start(routes=routes({"tokens": JSON}))
    assert len((await gateway.ask(request(acme))).body) == len(body)
    assert await acme.settled("ts")
    assert await acme.used("tokens") == 44


async def test_the_access_log_tells_what_was_charged_in_the_end(
    start: StartGateway, acme: Organization, upstream: Upstream, tmp_path: Path, until: Until
) -> None:
    upstream.answer = sized(b"ok", b"X-Usage-Units: 20\r\n")
    gateway = await start(
        routes=routes({"api_calls": {"query": "n", "max": 9}, "tokens": HEADER}), access_log={"path": tmp_path / "log"}
    )
    for n in (2, 3):
        assert (await gateway.ask(request(acme, b"/?n=%d" % n))).status == 200
    await until(lambda: (tmp_path / "log").read_text().count("\n") == 2)
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert [line["meters"] for line in lines] == [{"api_calls": n, "tokens": 20} for n in (2, 3)]


async def test_a_route_of_plain_numbers_watches_nothing(
    start: StartGateway, acme: Organization, upstream: Upstream
) -> None:
    upstream.answer = sized(b"ok", b"X-Usage-Units: 20\r\n")
    gateway = await start(routes=routes({"tokens": 5}))
    assert (await gateway.ask(request(acme, b"/?n=9", b"X-Cost: 9\r\n"))).status == 200
    assert (await acme.used("tokens"), gateway.worker.recorder.reports) == (5, {})
