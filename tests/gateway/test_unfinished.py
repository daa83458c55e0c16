"""What is charged when an answer ends before it told what was used: it is cut, its client leaves, or it never tells."""

import asyncio
import gzip
import json
import random
from pathlib import Path
from typing import Any

import pytest

from quota.model import MeterLimit
from tests.gateway.rig import Gateway, MakeOrganization, Organization, Peer, StartGateway, Until, Upstream, get

METERS = (MeterLimit("api_calls", 100), MeterLimit("tokens", 100_000))
COST = {"reported": {"json": "usage.total_tokens"}, "estimate": 500, "max": 5000}
HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Type: %b\r\n%b\r\n"
EVENTS = b"text/event-stream"
END = b"0\r\n\r\n"
PER_EVENT = {"per": "event", "units": 3, "base": 10}


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def event(text: Any) -> bytes:
    return b"data: %b\n\n" % json.dumps(text).encode()


USED = event({"usage": {"total_tokens": 1234}})


def routes(unreported: Any = "estimate", **others: Any) -> list[dict[str, Any]]:
    return [{"path": "/", "upstream": "api", "meters": {"tokens": COST | {"unreported": unreported}}, **others}]


@pytest.fixture
async def acme(organization: MakeOrganization) -> Organization:
    return await organization("acme", None, meters=METERS)


class Stream:
    """An answer that the test lets on."""

    def __init__(
        self, upstream: Upstream, kind: bytes = EVENTS, fields: bytes = b"", length: int | None = None
    ) -> None:
        self.go_on = asyncio.Event()
        self.rest = b""
        self.left = False
        self._head = HEAD % (kind, fields)
        if length is not None:
            self._head = self._head.replace(b"Transfer-Encoding: chunked", b"Content-Length: %d" % length)
        self.first = b""
        upstream.script = self._play

    async def _play(self, peer: Peer, _: bytes) -> None:
        self.peer = peer
        peer.send(self._head + self.first)
        left = asyncio.create_task(self._watch(peer))
        await self.go_on.wait()
        left.cancel()
        await asyncio.wait([left])
        if self.rest == b"cut":
            await peer.close()
        else:
            peer.send(self.rest)

    async def _watch(self, peer: Peer) -> None:
        try:
            self.left = not await peer.reader.read(1)
        except ConnectionError:
            self.left = True


# What was delivered


@pytest.mark.parametrize("leaves", ["client", "upstream"])
async def test_a_stream_that_is_cut_is_charged_by_its_events_where_the_route_says_so(
    start: StartGateway, acme: Organization, upstream: Upstream, leaves: str
) -> None:
    stream = Stream(upstream)
    stream.first = b"".join(map(chunk, (event("one"), b": a comment\n\n", event("two"), b"data: 3\n\ndata: the for")))
    gateway = await start(routes=routes(PER_EVENT))
    client = await gateway.connect()
    client.send(get("/", acme))
    await client.until(b"the for")
    if leaves == "upstream":
        stream.rest = b"cut"
        stream.go_on.set()
        await client.gone()
    else:
        await client.close()
    assert await acme.settled("ts")
    assert await acme.used("tokens") == 10 + 3 * 3
    assert gateway.worker.recorder.reports == {("/", "missing"): 1}


@pytest.mark.parametrize("unreported", ["estimate", PER_EVENT])
async def test_what_was_reported_before_the_client_left_counts_and_not_what_was_delivered(
    start: StartGateway, acme: Organization, upstream: Upstream, unreported: Any
) -> None:
    Stream(upstream).first = chunk(event("one")) + chunk(USED)
    gateway = await start(routes=routes(unreported))
    client = await gateway.connect()
    client.send(get("/", acme))
    await client.until(b"1234}}\n\n\r\n")
    await client.close()
    assert await acme.settled("ts")
    assert await acme.used("tokens") == 1234


async def test_a_stream_that_the_client_leaves_stays_at_the_estimate_by_default(
    start: StartGateway, acme: Organization, upstream: Upstream, until: Until
) -> None:
    stream = Stream(upstream)
    stream.first = chunk(event("one"))
    gateway = await start(routes=routes())
    client = await gateway.connect()
    client.send(get("/", acme))
    await client.until(b"one")
    await client.close()
    await until(lambda: stream.left)
    await until(lambda: gateway.worker.recorder.reports == {("/", "missing"): 1})
    assert (await acme.events(), await acme.used("tokens")) == (["t"], 500)


PACKED = gzip.compress(b"x" * 1000, mtime=0)  # without the time, so that each process of a run names its tests alike


@pytest.mark.parametrize(
    ("unreported", "kind", "coding", "body", "units"),
    [
        (PER_EVENT, EVENTS, b"", event("one") + event("two"), 16),
        (PER_EVENT, EVENTS, b"", b"", 10),
        (PER_EVENT, b"application/x-ndjson", b"", b'{"a": 1}\n\n{"a": 2}\n{"a": 3}', 19),
        (PER_EVENT, b"application/json", b"", b'{"error": "no"}', 13),
        (PER_EVENT, b"text/plain", b"", b"words", 500),
        (PER_EVENT, EVENTS, b"compress", event("one"), 500),
        (PER_EVENT | {"units": 10**6}, EVENTS, b"", event("one"), 5000),
        ({"per": "byte"}, b"text/plain", b"", b"words", 5),
        ({"per": "byte"}, EVENTS, b"gzip", PACKED, 1000),
        ({"per": "byte"}, EVENTS, b"compress", b"words", 500),
        ({"per": "byte", "units": 0.1}, b"text/plain", b"", b"x" * 30, 3),  # as a float: 3.0000000000000004, so 4
        ({"per": "byte", "units": 0.25, "base": 1}, b"text/plain", b"", b"words", 3),
        (PER_EVENT, EVENTS, b"", event({"usage": {"total_tokens": 5001}}), 13),
        (PER_EVENT, EVENTS, b"", event({"usage": {"total_tokens": "5"}}), 13),
        (PER_EVENT, EVENTS, b"", USED, 1234),
    ],
)
async def test_an_answer_that_tells_nothing_credible_is_charged_by_what_can_be_counted_of_it(
    start: StartGateway,
    acme: Organization,
    upstream: Upstream,
    unreported: Any,
    kind: bytes,
    coding: bytes,
    body: bytes,
    units: int,
) -> None:
    fields = b"Content-Encoding: %b\r\n" % coding if coding else b""
    upstream.answer = HEAD % (kind, fields) + (chunk(body) if body else b"") + END
    gateway = await start(routes=routes(unreported))
    assert (await gateway.ask(get("/", acme))).body == body
    assert await acme.settled("t" if units == 500 else "ts")
    assert await acme.used("tokens") == units


async def test_a_report_in_a_trailer_that_never_came_is_made_up_for_likewise(
    start: StartGateway, acme: Organization, upstream: Upstream
) -> None:
    cost = COST | {"reported": {"trailer": "X-Units"}, "unreported": PER_EVENT}
    gateway = await start(routes=[{"path": "/", "upstream": "api", "meters": {"tokens": cost}}])
    upstream.answer = HEAD % (EVENTS, b"") + chunk(event("one")) + END
    assert (await gateway.ask(get("/", acme))).status == 200
    assert await acme.settled("ts")
    assert await acme.used("tokens") == 13
    upstream.answer = HEAD % (EVENTS, b"") + chunk(event("one")) + b"0\r\nX-Units: 7\r\n\r\n"
    assert (await gateway.ask(get("/", acme))).status == 200
    assert await acme.settled("tsts")
    assert await acme.used("tokens") == 20


# Read on

DRAIN = {"on_abort": {"drain_seconds": 60, "drain_bytes_max": 100_000}}


async def abandoned(gateway: Gateway, acme: Organization, until: Until, sign: bytes = b"one") -> None:
    """A client that asked, has seen this much, and left; and the gateway knows it."""
    client = await gateway.connect()
    client.send(get("/", acme))
    if sign:
        await client.until(sign)
    await client.close()
    await until(lambda: not [c for c in gateway.connections if hasattr(c, "transport")])


async def test_a_client_that_leaves_pays_what_the_upstream_reports_at_the_end_of_its_stream(
    start: StartGateway, acme: Organization, upstream: Upstream, until: Until, tmp_path: Path
) -> None:
    stream = Stream(upstream)
    stream.first = chunk(event("one"))
    gateway = await start(routes=routes(PER_EVENT, **DRAIN), access_log={"path": tmp_path / "log"})
    await abandoned(gateway, acme, until)
    assert not stream.left
    assert await acme.events() == ["t"]
    assert gateway.pool.busy == 1
    stream.rest = chunk(event("two")) + chunk(USED) + END
    stream.go_on.set()
    assert await acme.settled("ts")
    assert await acme.used("tokens") == 1234
    assert not gateway.connections
    assert (gateway.pool.busy, len(gateway.pool._idle)) == (0, 1), "the connection is used again"
    await until(lambda: (tmp_path / "log").read_text().endswith("\n"))
    [line] = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert (line["status"], line["aborted"], line["meters"]) == (200, True, {"tokens": 1234})


async def test_a_client_that_leaves_before_the_head_of_its_answer_pays_what_that_reports(
    start: StartGateway, acme: Organization, upstream: Upstream, until: Until
) -> None:
    go_on = upstream.holds()
    body = b'{"usage": {"total_tokens": 77}}'
    upstream.answer = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (
        len(body),
        body,
    )
    gateway = await start(routes=routes(**DRAIN))
    client = await gateway.connect()
    client.send(get("/", acme))
    await until(lambda: len(upstream.requests) == 1)
    await client.close()
    await until(lambda: not [c for c in gateway.connections if hasattr(c, "transport")])
    go_on.set()
    assert await acme.settled("ts")
    assert await acme.used("tokens") == 77


async def test_a_client_that_did_not_take_its_answer_does_not_hold_the_reading_up(
    start: StartGateway, acme: Organization, upstream: Upstream, until: Until
) -> None:
    stream = Stream(upstream)
    stream.first = b"".join(chunk(event("x" * 10_000)) for _ in range(1000))
    stream.rest = chunk(USED) + END
    stream.go_on.set()
    gateway = await start(routes=routes(on_abort={"drain_bytes_max": 10**9}))
    client = await gateway.connect(receive_buffer=4096)
    client.send(get("/", acme))
    await until(lambda: any(getattr(c, "writing_paused", False) for c in gateway.connections))
    client.writer.transport.abort()
    assert await acme.settled("ts")
    assert await acme.used("tokens") == 1234


@pytest.mark.parametrize("bound", ["bytes", "seconds"])
@pytest.mark.parametrize("unreported", ["estimate", PER_EVENT])
async def test_reading_on_ends_at_its_bounds_and_is_charged_by_what_was_read(
    start: StartGateway, acme: Organization, upstream: Upstream, until: Until, bound: str, unreported: Any
) -> None:
    stream = Stream(upstream)
    stream.first = chunk(event("one"))
    bounds = {"drain_bytes_max": 50_000} if bound == "bytes" else {"drain_seconds": 0.2}
    gateway = await start(routes=routes(unreported, on_abort=bounds))
    await abandoned(gateway, acme, until)
    if bound == "bytes":
        stream.peer.send(b"".join(chunk(event("x" * 1000)) for _ in range(100)))
    await until(lambda: stream.left)
    await until(lambda: not gateway.connections)
    assert gateway.worker.recorder.reports == {("/", "missing"): 1}
    if unreported == "estimate":
        assert await acme.events() == ["t"]
        return
    assert await acme.settled("ts")
    used = await acme.used("tokens")
    assert used == 13 if bound == "seconds" else 160 < used <= 13 + 300


async def test_an_upstream_that_fails_while_it_is_read_on_is_treated_by_the_rules_of_refunds(
    start: StartGateway, acme: Organization, upstream: Upstream, until: Until
) -> None:
    stream = Stream(upstream)
    stream.first, stream.rest = chunk(event("one")), b"cut"
    gateway = await start(routes=routes(refund={"on": ["cut_answer"]}, **DRAIN))
    await abandoned(gateway, acme, until)
    stream.go_on.set()
    assert await acme.settled("ts")
    assert await acme.used("tokens") == 0
    assert not gateway.connections


async def test_where_a_client_that_leaves_has_its_charge_back_nothing_is_read_on(
    start: StartGateway, acme: Organization, upstream: Upstream, until: Until
) -> None:
    stream = Stream(upstream)
    stream.first = chunk(event("one"))
    gateway = await start(routes=routes(refund={"on": ["client_abort"]}, **DRAIN))
    await abandoned(gateway, acme, until)
    await until(lambda: stream.left)
    assert await acme.settled("ts")
    assert await acme.used("tokens") == 0


async def test_a_request_that_the_client_did_not_send_whole_is_not_read_on(
    start: StartGateway, acme: Organization, upstream: Upstream, until: Until
) -> None:
    left = asyncio.Event()

    async def serve(peer: Peer) -> None:
        await peer.until(b"\r\n\r\n")
        peer.send(HEAD % (EVENTS, b"") + chunk(event("one")))
        await peer.gone()
        left.set()

    upstream.serve = serve
    gateway = await start(routes=routes(**DRAIN))
    client = await gateway.connect()
    client.send(b"POST / HTTP/1.1\r\nHost: a\r\n%bContent-Length: 100\r\n\r\nonly" % acme.auth)
    await client.until(b"one")
    await client.close()
    await asyncio.wait_for(left.wait(), 30)
    await until(lambda: not gateway.connections)


async def test_the_permit_of_a_client_that_left_is_free_when_the_upstream_has_ended_its_work(
    start: StartGateway, organization: MakeOrganization, upstream: Upstream, until: Until
) -> None:
    acme = await organization("acme", None, meters=METERS, concurrent_max=1)
    stream = Stream(upstream)
    stream.first = chunk(event("one"))
    gateway = await start(routes=routes(**DRAIN))
    await abandoned(gateway, acme, until)
    refused = await gateway.ask(get("/", acme))
    assert (refused.status, refused.problem["type"]) == (429, "urn:quotagate:problem:concurrency-limited")
    stream.rest = chunk(USED) + END
    stream.go_on.set()
    assert await acme.settled("ts")
    await until(lambda: not gateway.worker.permits.held)
    async with asyncio.timeout(30):
        while (await gateway.ask(get("/", acme))).status == 429:  # noqa: ASYNC110 - the ledger rings no bell
            await asyncio.sleep(0.01)


async def test_however_500_clients_leave_what_is_charged_is_the_sum_of_what_was_reported_and_nothing_is_left_open(
    start: StartGateway, organization: MakeOrganization, upstream: Upstream, until: Until
) -> None:
    acme = await organization("acme", None, meters=(MeterLimit("tokens", 10**9),), concurrent_max=1000)
    chance, reported = random.Random(5), {}

    async def script(peer: Peer, sent: bytes) -> None:
        units = chance.randrange(1, 3000)
        reported[int(sent.split(b"n=")[1].split(b" ")[0])] = units
        texts = [event("x" * chance.randrange(1, 5000)) for _ in range(chance.randrange(5))]
        body, field = b"".join([*texts, event({"usage": {"total_tokens": units}})]), b""
        if chance.random() < 0.3:
            body, field = gzip.compress(body), b"Content-Encoding: gzip\r\n"
        peer.send(HEAD % (EVENTS, field))
        while body:
            size = chance.randrange(1, 3000)
            peer.send(chunk(body[:size]))
            body = body[size:]
            await asyncio.sleep(chance.choice([0, 0, 0.005]))
        peer.send(END)

    upstream.script = script
    gateway = await start(routes=routes(PER_EVENT, **DRAIN), access_log={"enabled": False})

    async def ask(number: int) -> None:
        client = await gateway.connect(receive_buffer=chance.choice([None, 2048]))
        client.send(b"GET /?n=%d HTTP/1.1\r\nHost: a\r\n%b\r\n" % (number, acme.auth))
        if number % 3:
            await until(lambda: number in reported)
            await asyncio.sleep(chance.choice([0, 0.01]))
            client.writer.transport.abort()
        else:
            await client.answer()
            await client.close()

    for batch in range(10):
        await asyncio.gather(*(ask(50 * batch + number) for number in range(50)))
    worker = gateway.worker
    await until(lambda: not gateway.connections and not worker.permits.held and not worker.settlements.open)
    assert await acme.used("tokens") == sum(reported.values())
    assert worker.recorder.reports == {("/", "told"): 500}
    assert gateway.pool.busy == 0
