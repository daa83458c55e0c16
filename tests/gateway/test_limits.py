"""How much and how slowly a client may send: heads, bodies, silence. The others are served meanwhile."""

import asyncio

import pytest

from gateway.client.states import ENDED
from tests.gateway.rig import Gateway, MakeOrganization, Organization, Peer, StartGateway, Until, Upstream

HOST = b"Host: api.example.com\r\n"
HEAD_MAX = 65_536


def request(auth: bytes = b"", method: bytes = b"GET", lines: bytes = b"", body: bytes = b"") -> bytes:
    return b"%b / HTTP/1.1\r\n%b%b%b\r\n%b" % (method, HOST, auth, lines, body)


@pytest.fixture
async def free(start: StartGateway) -> Gateway:
    """A gateway whose route needs no token."""
    return await start(routes=[{"path": "/", "upstream": "api", "exempt": True}])


# Heads

LONG = {
    "one long field": b"X-Long: " + b"a" * HEAD_MAX + b"\r\n",
    "one long name": b"X" * HEAD_MAX + b": a\r\n",
    "many fields of some length": b"".join(b"X-%d: %b\r\n" % (n, b"a" * 1000) for n in range(80)),
    "101 fields": b"".join(b"X-%d: a\r\n" % n for n in range(100)),
    "101 fields that are not forwarded": b"X-Forwarded-For: a\r\n" * 100,
}


@pytest.mark.parametrize("piece_bytes", [None, 997])
@pytest.mark.parametrize("shape", LONG)
async def test_a_head_beyond_the_limits_is_refused_and_the_client_reads_why(
    free: Gateway, upstream: Upstream, shape: str, piece_bytes: int | None
) -> None:
    client = await free.connect()
    data = request(lines=LONG[shape])
    for at in range(0, len(data), piece_bytes or len(data)):
        client.send(data[at : at + (piece_bytes or len(data))])
        await asyncio.sleep(0)
    answer = await client.answer()
    assert (answer.status, answer["connection"]) == (431, "close")
    assert answer.problem["type"] == "urn:quotagate:problem:headers-too-large"
    assert await client.ended()
    assert not upstream.requests


@pytest.mark.parametrize("end", [b"", b" HTTP/1.1\r\n\r\n"])
async def test_a_target_beyond_the_limit_is_refused(free: Gateway, upstream: Upstream, end: bytes) -> None:
    client = await free.connect()
    client.send(b"GET /" + b"a" * (HEAD_MAX + 1))
    await asyncio.sleep(0)
    client.send(b"a" * HEAD_MAX + end)
    assert (await client.answer()).status == 431
    assert not upstream.requests


async def test_a_head_up_to_the_limits_is_forwarded(free: Gateway, upstream: Upstream) -> None:
    client = await free.connect()
    long = b"X-Long: " + b"a" * (HEAD_MAX - 200) + b"\r\n"
    assert (await client.ask(request(lines=long))).status == 200
    assert long in upstream.requests[0]
    many = b"".join(b"X-%d: a\r\n" % n for n in range(99))
    assert (await client.ask(request(lines=many))).status == 200
    for at in range(0, len(data := request(lines=long)), 5000):
        client.send(data[at : at + 5000])
        await asyncio.sleep(0)
    assert (await client.answer()).status == 200


@pytest.mark.parametrize("tail", [b"0\r\nX-T: ", b"5;ext="])
async def test_trailers_and_chunk_extensions_are_bounded_as_the_head_is(
    free: Gateway, upstream: Upstream, until: Until, tail: bytes
) -> None:
    client = await free.connect()
    client.send(request(method=b"POST", lines=b"Transfer-Encoding: chunked\r\n", body=b"5\r\nhello\r\n" + tail))
    for _ in range(100):
        client.send(b"t" * 10_000)
        await asyncio.sleep(0.001)
        if not free.connections or free.connections[0].state in ENDED:
            break
    answer = await client.answer("POST")
    assert (answer.status, answer["connection"]) == (431, "close")
    assert not upstream.requests


async def test_a_chunked_body_in_many_reads_is_no_head(free: Gateway, upstream: Upstream) -> None:
    client = await free.connect()
    client.send(request(method=b"POST", lines=b"Transfer-Encoding: chunked\r\n"))
    for _ in range(40):
        await client.send_all(b"1000\r\n%b\r\n" % bytes(4096))
        await asyncio.sleep(0)
    client.send(b"0\r\n\r\n")
    assert (await client.answer("POST")).status == 200


# Bodies


async def test_a_sized_body_beyond_the_limit_is_refused_before_it_costs_anything(
    start: StartGateway, acme: Organization, upstream: Upstream
) -> None:
    gateway = await start(limits={"body_bytes_max": 10})
    client = await gateway.connect()
    assert (await client.ask(request(acme.auth, b"POST", b"Content-Length: 10\r\n", b"0123456789"))).status == 200
    answer = await client.ask(request(acme.auth, b"POST", b"Content-Length: 11\r\n", b"0123456789A"))
    assert (answer.status, answer["connection"]) == (413, "close")
    assert await client.ended()
    assert await acme.events() == ["t"]
    assert len(upstream.requests) == 1


async def test_a_chunked_body_beyond_the_limit_is_refused_and_given_back(
    start: StartGateway, acme: Organization, upstream: Upstream
) -> None:
    gateway = await start(limits={"body_bytes_max": 10})
    client = await gateway.connect()
    chunks = b"5\r\n01234\r\n5\r\n56789\r\n"
    lines = b"Transfer-Encoding: chunked\r\n"
    assert (await client.ask(request(acme.auth, b"POST", lines, chunks + b"0\r\n\r\n"))).status == 200
    answer = await client.ask(request(acme.auth, b"POST", lines, chunks + b"1\r\nA\r\n"))
    assert (answer.status, answer["connection"]) == (413, "close")
    assert await client.ended()
    assert await acme.settled("tts")
    assert await acme.used() == 1
    assert len(upstream.requests) == 1


async def test_a_route_has_its_own_limit_of_bodies(start: StartGateway, acme: Organization, upstream: Upstream) -> None:
    routes = [
        {"path": "/", "upstream": "api"},
        {"path": "/small", "upstream": "api", "body_bytes_max": 3},
        {"path": "/large", "upstream": "api", "body_bytes_max": 20},
        {"path": "/none", "upstream": "api", "body_bytes_max": 0, "exempt": True},
    ]
    gateway = await start(limits={"body_bytes_max": 10}, routes=routes)
    body, refused = b"0123456789", []
    for path, limit in ((b"/", 10), (b"/small", 3), (b"/large", 20), (b"/none", 0)):
        for length in (limit, limit + 1):
            sized = request(acme.auth, b"POST", b"Content-Length: %d\r\n" % length, (3 * body)[:length])
            answer = await gateway.ask(sized.replace(b"POST /", b"POST " + path, 1))
            refused.append(answer.status == 413)
    assert refused == 4 * [False, True]
    assert len(upstream.requests) == 4
    assert await acme.events() == ["t", "t", "t"]


async def test_a_chunked_body_is_cut_at_the_byte_of_its_routes_limit_also_behind_another_request(
    start: StartGateway, acme: Organization, upstream: Upstream, until: Until
) -> None:
    routes = [
        {"path": "/", "upstream": "api"},
        {"path": "/small", "upstream": "api", "body_bytes_max": 3},
        {"path": "/large", "upstream": "api", "body_bytes_max": 20},
    ]
    gateway = await start(limits={"body_bytes_max": 10}, routes=routes)
    first = request(acme.auth)
    for path, size, status in ((b"/small", 3, 200), (b"/small", 4, 413), (b"/large", 20, 200), (b"/large", 21, 413)):
        chunked = request(acme.auth, b"POST", b"Transfer-Encoding: chunked\r\n", b"%x\r\n%b\r\n0\r\n\r\n")
        chunked = chunked.replace(b"POST /", b"POST " + path, 1) % (size, b"x" * size)
        assert (await gateway.ask(chunked)).status == status
        client = await gateway.connect()
        client.send(first + chunked)
        assert [(await client.answer()).status, (await client.answer("POST")).status] == [200, status]
    await until(lambda: not gateway.worker.settlements.open)
    assert await acme.used() == len(upstream.requests)


async def test_a_refused_request_with_a_small_body_leaves_the_connection_usable(
    gateway: Gateway, acme: Organization, organization: MakeOrganization, upstream: Upstream
) -> None:
    empty = await organization("empty", 0)
    client = await gateway.connect()
    for auth, status in ((empty.auth, 429), (b"", 401)):
        for lines, body in ((b"Content-Length: 5\r\n", b"hello"), (b"Content-Length: 60000\r\n", bytes(60_000))):
            answer = await client.ask(request(auth, b"POST", lines, body))
            assert (answer.status, answer["connection"]) == (status, None)
    answer = await client.ask(request(b"", b"POST", b"Content-Length: 5\r\n", b"he"))
    assert answer.status == 401
    client.send(b"llo" + request(acme.auth))
    assert (await client.answer()).status == 200
    assert len(upstream.requests) == 1


@pytest.mark.parametrize(
    "lines", [b"Content-Length: 10000000\r\n", b"Transfer-Encoding: chunked\r\n"], ids=["sized", "chunked"]
)
async def test_a_refused_client_that_goes_on_sending_can_read_the_answer(
    gateway: Gateway, upstream: Upstream, lines: bytes
) -> None:
    for _ in range(5):
        client = await gateway.connect()
        body = b"10000\r\n%b\r\n" % bytes(65_536) if b"chunked" in lines else bytes(65_536)
        client.send(request(b"", b"POST", lines, body * 40))
        answer = await client.answer("POST")
        assert (answer.status, answer["connection"]) == (401, "close")
        assert await client.ended()


# Time


async def test_a_head_that_comes_slowly_is_given_up_and_others_are_served_meanwhile(
    start: StartGateway, organization: MakeOrganization
) -> None:
    gateway, acme = await start(timeouts={"head_seconds": 2}), await organization("acme", 10_000_000)
    slow, fast = await gateway.connect(), await gateway.connect()

    async def drip() -> None:
        for at in range(len(request(acme.auth))):
            slow.send(request(acme.auth)[at : at + 1])
            await asyncio.sleep(0.02)  # a byte now and then moves no deadline

    dripping = asyncio.create_task(drip())
    answered = asyncio.create_task(slow.answer())
    served = 0
    while not answered.done():
        assert (await fast.ask(request(acme.auth))).status == 200
        served += 1
    assert (answered.result().status, answered.result()["connection"]) == (408, "close")
    assert await slow.ended()
    assert served > 10
    dripping.cancel()


async def test_many_silent_and_slow_connections_keep_nobody_from_being_answered(
    start: StartGateway, organization: MakeOrganization, upstream: Upstream, until: Until
) -> None:
    """Neither a silent connection, nor half a head, nor half a body takes what another client needs."""
    gateway = await start(timeouts={"head_seconds": 2, "body_idle_seconds": 2})
    acme = await organization("acme", 10_000_000)
    half_body = request(acme.auth, b"POST", b"Content-Length: 10\r\n", b"half")
    slow = [await gateway.connect() for _ in range(90)]
    for client, sent in zip(slow, 30 * [b"", b"GET / HTTP/1.1\r\nHo", half_body], strict=True):
        client.send(sent)
    await until(lambda: len(gateway.connections) == len(slow))
    ended = asyncio.gather(*(client.gone() for client in slow))
    fast, served = await gateway.connect(), 0
    while not ended.done():
        assert (await fast.ask(request(acme.auth))).status == 200
        served += 1
    assert served > 10
    answers = await ended
    assert [answer[9:12] for answer in answers] == 30 * [b"", b"408", b"408"]
    assert len(upstream.requests) == served, "half a request is none"
    await acme.comes_to(served)


async def test_silent_connections_are_ended(start: StartGateway, until: Until) -> None:
    gateway = await start(timeouts={"head_seconds": 0.1})
    silent = [await gateway.connect() for _ in range(50)]
    assert all(await asyncio.gather(*(client.ended() for client in silent)))
    await until(lambda: not gateway.connections)


async def test_a_connection_that_waits_too_long_for_its_next_request_is_ended(
    start: StartGateway, acme: Organization, until: Until
) -> None:
    gateway = await start(timeouts={"idle_seconds": 0.1})
    for requests in (1, 2, 3):
        client = await gateway.connect()
        client.send(request(acme.auth) * requests)
        for _ in range(requests):
            assert (await client.answer()).status == 200
        assert await client.ended()


async def test_a_second_head_that_began_behind_a_request_is_given_up_as_well(
    start: StartGateway, acme: Organization, upstream: Upstream
) -> None:
    gateway = await start(timeouts={"head_seconds": 0.1})
    client = await gateway.connect()
    client.send(request(acme.auth) + b"GET / HTTP/1.1\r\nHost: a\r\nX-Half")
    assert (await client.answer()).status == 200
    assert (await client.answer()).status == 408
    assert await client.ended()


@pytest.mark.parametrize("lines", [b"Content-Length: 10\r\n", b"Transfer-Encoding: chunked\r\n"])
async def test_a_body_that_stops_arriving_is_given_up_and_given_back(
    start: StartGateway, acme: Organization, upstream: Upstream, lines: bytes
) -> None:
    gateway = await start(timeouts={"body_idle_seconds": 0.1})
    gone = asyncio.Event()

    async def serve(peer: Peer) -> None:
        await peer.gone()
        gone.set()

    upstream.serve = serve
    client = await gateway.connect()
    answer = await client.ask(request(acme.auth, b"POST", lines, b"3\r\nabc\r\n"))
    assert (answer.status, answer["connection"]) == (408, "close")
    assert await client.ended()
    await asyncio.wait_for(gone.wait(), 60)
    assert await acme.settled("ts")


async def test_a_body_that_stopped_after_it_was_held_back_is_given_up_as_well(
    start: StartGateway, acme: Organization, upstream: Upstream, until: Until
) -> None:
    gateway = await start(timeouts={"body_idle_seconds": 0.2})
    go_on = asyncio.Event()

    async def serve(peer: Peer) -> None:
        peer.transport.pause_reading()
        await go_on.wait()
        peer.transport.resume_reading()
        await peer.gone()

    upstream.serve = serve
    client = await gateway.connect()
    size = 20_000_000
    client.send(request(acme.auth, b"POST", b"Content-Length: %d\r\n" % (size + 1)) + bytes(size))
    await until(lambda: bool(gateway.connections) and gateway.connections[0]._flow.paused)
    go_on.set()
    assert (await client.answer("POST")).status == 408


async def test_more_connections_than_allowed_are_turned_away(
    start: StartGateway, acme: Organization, until: Until
) -> None:
    gateway = await start(limits={"connections_max": 3})
    kept = [await gateway.connect() for _ in range(3)]
    for client in kept:
        assert (await client.ask(request(acme.auth))).status == 200
    beyond = await gateway.connect()
    await beyond.gone()
    await kept[0].close()
    await until(lambda: len(gateway.connections) == 2)
    assert (await gateway.get("/", acme)).status == 200
