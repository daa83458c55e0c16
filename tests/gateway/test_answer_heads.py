"""What the head of an upstream's answer must say to be one, and what a gateway adds to it."""

import pytest

from tests.gateway.bench import Bench, statuses
from tests.gateway.rig import OK, Gateway, Organization, Peer, Upstream, request

GET = b"GET / HTTP/1.1\r\nHost: api.example.com\r\n\r\n"
DATED = b"HTTP/1.1 200 OK\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nContent-Length: 2\r\n\r\nok"
HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
FOREIGN = [b"RTSP/1.1", b"RTSP/1.0", b"ICE/1.0", b"HTTP/2.0", b"HTTP/0.9", b"HTTP/3.0", b"HTTP/1", b"http/1.1", b"ICY"]
CLOCK = "Sun, 22 Nov 2026 12:00:00 GMT"  # of the gateway, in these tests


def cuts(whole: bytes) -> list[list[bytes]]:
    """In one read, in two however they are cut, and byte by byte."""
    two = [[whole[:at], whole[at:]] for at in range(1, len(whole))]
    return [[whole], *two, [whole[at : at + 1] for at in range(len(whole))]]


@pytest.mark.parametrize("before", [b"", HINTS, HINTS + b"HTTP/1.1 100 Continue\r\n\r\n", b"\r\n"])
@pytest.mark.parametrize("protocol", FOREIGN)
def test_an_answer_of_another_protocol_is_none_however_it_is_cut(bench: Bench, protocol: bytes, before: bytes) -> None:
    for reads in cuts(before + protocol + b" 200 OK\r\nContent-Length: 2\r\n\r\nok"):
        written, _, _ = bench.play([GET], reads)
        assert statuses(written)[-1:] == [502], reads
        assert b"ok" not in written.partition(b" 502 ")[0]


@pytest.mark.parametrize("version", [b"HTTP/1.1", b"HTTP/1.0"])
@pytest.mark.parametrize("before", [b"", HINTS, HINTS + b"HTTP/1.1 100 Continue\r\n\r\n", b"\r\n"])
def test_an_answer_of_http_1_is_passed_on_however_it_is_cut(bench: Bench, version: bytes, before: bytes) -> None:
    for reads in cuts(before + OK.replace(b"HTTP/1.1", version)):
        written, _, _ = bench.play([GET], reads)
        assert statuses(written) == [*[int(part[:3]) for part in before.split(b"HTTP/1.1 ")[1:]], 200], reads
        assert written.endswith(b"\r\n\r\nok")


@pytest.mark.parametrize("protocol", FOREIGN)
async def test_an_answer_of_another_protocol_is_told_as_502_and_given_back(
    gateway: Gateway, acme: Organization, upstream: Upstream, protocol: bytes
) -> None:
    upstream.answer = protocol + b" 200 OK\r\nContent-Length: 2\r\n\r\nok"
    answer = await gateway.get("/", acme)
    assert (answer.status, answer.problem["type"]) == (502, "urn:quotagate:problem:upstream-invalid")
    assert await acme.settled("ts")


# The Date of an answer, RFC 9110 section 6.6.1


async def test_an_answer_without_a_date_gets_the_time_when_it_came(
    gateway: Gateway, acme: Organization, upstream: Upstream
) -> None:
    """Also when its head is recognized: each answer has the date of its own time."""
    client = await gateway.connect()
    for date in (CLOCK, CLOCK, "Sun, 22 Nov 2026 12:00:01 GMT"):
        gateway.state.default_headers = [(b"date", date.encode())]
        answer = await client.ask(request(acme.auth))
        assert (answer["date"], answer.body) == (date, b"ok")
    assert upstream.accepted == 1


async def test_an_answer_with_a_date_keeps_it(gateway: Gateway, acme: Organization, upstream: Upstream) -> None:
    upstream.answer = DATED
    client = await gateway.connect()
    for method in (b"GET", b"GET", b"HEAD"):
        assert (await client.ask(request(acme.auth, method)))["date"] == "Sun, 06 Nov 1994 08:49:37 GMT"


@pytest.mark.parametrize(
    "said",
    [
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 304 Not Modified\r\n\r\n",
        b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nConnection: date\r\nDate: Sun, 22 Nov 2026 12:00:00 GMT\r\nContent-Length: 0\r\n\r\n",
    ],
)
async def test_answers_of_any_kind_have_one_date(
    gateway: Gateway, acme: Organization, upstream: Upstream, said: bytes
) -> None:
    async def play(peer: Peer, _: bytes) -> None:
        peer.send(said)
        if b"Connection: close" in said:
            await peer.close()

    upstream.script = play
    assert (await gateway.get("/", acme))["date"] == CLOCK


async def test_an_interim_answer_stays_as_it_is_and_the_final_one_has_its_date(
    gateway: Gateway, acme: Organization, upstream: Upstream
) -> None:
    upstream.answer = HINTS.replace(b"Link", b"Date: Sun, 06 Nov 1994 08:49:37 GMT\r\nLink") + HINTS + OK
    answer = await gateway.get("/", acme)
    assert [[name for name, _ in fields] for fields in answer.interim_fields] == [[b"Date", b"Link"], [b"Link"]]
    assert answer["date"] == CLOCK
