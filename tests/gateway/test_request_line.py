"""The first line of a request is a method, a target and a version with one blank between them (RFC 9112 section 3),
wherever in a read it begins and however it is cut. llhttp alone takes more."""

from types import SimpleNamespace
from typing import Any

import httptools
import pytest

from gateway.client.states import ClientState
from gateway.http.boundaries import METHODS as METHODS_KNOWN
from gateway.http.boundaries import BadRequestLine, Boundaries
from gateway.http.head import RequestHead
from tests.gateway.bench import Bench, forwarded_requests, statuses
from tests.gateway.rig import OK, Gateway, Organization, StartGateway, Upstream

HOST = b"Host: api.example.com\r\n"
GOOD = b"GET /good HTTP/1.1\r\n%b\r\n" % HOST
LINES = {
    "two blanks before the target": b"GET  / HTTP/1.1",
    "two blanks before the version": b"GET /  HTTP/1.1",
    "a blank at the end": b"GET / HTTP/1.1 ",
    "a blank at the start": b" GET / HTTP/1.1",
    "a tab before the target": b"GET\t/ HTTP/1.1",
    "a tab before the version": b"GET /\tHTTP/1.1",
    "a tab at the end": b"GET / HTTP/1.1\t",
    "a vertical tab": b"GET /\x0bHTTP/1.1",
    "RTSP": b"GET / RTSP/1.0",
    "ICE": b"SOURCE / ICE/1.0",
    "a protocol in lower case": b"GET / http/1.1",
    "a version without a point": b"GET / HTTP/11",
    "a version with a third part": b"GET / HTTP/1.1.1",
    "a version of two digits": b"GET / HTTP/1.10",
    "a version with a blank in it": b"GET / HTTP/ 1.1",
    "no version": b"GET /",
    "no target": b"GET HTTP/1.1",
    "no method": b"/ HTTP/1.1",
    "a bare CR before it": b"\rGET / HTTP/1.1",
    "a bare LF before it": b"\nGET / HTTP/1.1",
    "a bare CR behind it": b"GET / HTTP/1.1\r",
}
BEFORE = {
    "nothing": b"",
    "an empty line": b"\r\n",
    "a request without a body": GOOD,
    "a sized body": b"POST /s HTTP/1.1\r\n%bContent-Length: 6\r\n\r\n\r\n\r\n\r\n" % HOST,
    "a chunked body": b"POST /c HTTP/1.1\r\n%bTransfer-Encoding: chunked\r\n\r\n6\r\n\r\n\r\n\r\n\r\n0\r\n\r\n" % HOST,
    "trailers": b"POST /t HTTP/1.1\r\n%bTransfer-Encoding: chunked\r\n\r\n2;e=1\r\nhi\r\n0;e\r\nX-T: t\r\n\r\n" % HOST,
}


@pytest.mark.parametrize("before", BEFORE)
@pytest.mark.parametrize("line", LINES)
def test_a_request_line_that_is_not_one_is_refused_wherever_it_begins_and_however_it_is_cut(
    bench: Bench, line: str, before: str
) -> None:
    first = BEFORE[before]
    whole = first + LINES[line] + b"\r\n" + HOST + b"\r\n"
    requests = first.count(b" HTTP/1.1")
    cuts = range(max(1, len(first) - 3), len(whole)) if first else range(1, len(whole))
    for reads in (
        [whole],
        *([whole[:at], whole[at:]] for at in cuts),
        [whole[at : at + 1] for at in range(len(whole))],
    ):
        at = len(reads[0])
        written, messages, goes_on = bench.play(reads, [OK])
        assert not goes_on, at
        assert len(forwarded_requests(messages)) == requests, at
        assert len(messages) == requests, "nothing of it was sent"
        answered = statuses(written)
        assert answered[:requests] == [200] * requests, at
        # Behind an answered request it is refused; behind one that is under way it ends the connection.
        assert answered[requests:] in ([], [400]) if requests else answered == [400], at


@pytest.mark.parametrize("before", BEFORE)
def test_a_good_request_line_is_read_wherever_it_begins_and_however_it_is_cut(bench: Bench, before: str) -> None:
    """The hidden one, in a chunk and behind an empty line, is data."""
    hidden = b"\r\n\r\nGET /hidden HTTP/1.1\r\n\r\n"
    whole = (
        BEFORE[before]
        + b"PUT /1 HTTP/1.1\r\n%bTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (HOST, len(hidden), hidden)
        + b"PUT /2 HTTP/1.1\r\n%bContent-Length: %d\r\n\r\n%b" % (HOST, len(hidden), hidden)
        + b"\r\n\r\n\r\n"
        + GOOD
        + b"GET / HTTP/1.0\r\n\r\n"
    )
    expected = None
    for at in range(len(whole)):
        written, messages, _ = bench.play([whole[:at], whole[at:]] if at else [whole], [OK])
        forwarded = forwarded_requests(messages)
        expected = expected or forwarded
        assert forwarded == expected, at
        assert statuses(written) == [200] * len(forwarded)
    assert expected is not None
    assert [target for _, target, _ in expected][-4:] == [b"/1", b"/2", b"/good", b"/"]
    assert [body for *_, body in expected][-4:] == [hidden, hidden, b"", b""]


async def test_a_request_line_that_is_not_one_gets_a_400_and_the_end_of_the_connection(
    start: StartGateway, upstream: Upstream
) -> None:
    gateway = await start(routes=[{"path": "/", "upstream": "api", "exempt": True}])
    for line in LINES.values():
        client = await gateway.connect()
        answer = await client.ask(line + b"\r\n" + HOST + b"\r\n", "GET")
        assert (answer.status, answer["connection"]) == (400, "close"), line
        assert answer.problem["detail"]
        assert await client.ended()
    assert not upstream.requests
    client = await gateway.connect()
    assert (await client.ask(GOOD)).status == 200
    assert (await client.ask(LINES["RTSP"] + b"\r\n" + HOST + b"\r\n", "GET")).status == 400, "behind a good one"
    assert await client.ended()
    assert len(upstream.requests) == 1


async def test_a_request_line_over_the_limit_is_refused_before_it_ends(start: StartGateway, upstream: Upstream) -> None:
    gateway = await start(limits={"head_bytes_max": 1024})
    client = await gateway.connect()
    client.send(b"GET /" + b"a" * 600)
    client.send(b"a" * 600)
    assert (await client.answer()).status in (414, 431)
    assert await client.ended()
    assert not upstream.requests


async def test_empty_lines_before_a_request_cost_no_memory(gateway: Gateway, acme: Organization) -> None:
    client = await gateway.connect()
    for _ in range(50):
        await client.send_all(b"\r\n" * 4096 + b"\r")
        await client.send_all(b"\n")
    assert (await client.ask(b"GET / HTTP/1.1\r\n%b%b\r\n" % (HOST, acme.auth), "GET")).status == 200
    assert len(gateway.connections[0]._reader._boundaries._line) == 0


def test_a_request_that_begins_where_none_was_expected_is_refused(bench: Bench) -> None:
    """Should the two readings of where a request ends ever differ, the second request is not read at all."""
    client, transport, _ = bench.accept()
    client._reader._boundaries.line_passed = True  # as if the request before went on
    client.data_received(GOOD)
    assert (statuses(transport.written), client.state) == ([400], ClientState.LINGERING)
    client.connection_lost(None)


def test_each_part_holds_bytes_of_one_request_only() -> None:
    head_of_request = RequestHead()
    head_of_request.content_length = 4
    request: Any = SimpleNamespace(head_complete=False, head=head_of_request, body_bytes=0)
    data = b"POST / HTTP/1.1\r\nContent-Length: 4\r\n\r\nbodyGET / HTTP/1.1\r\n\r\nGET"
    boundaries = Boundaries()
    head = boundaries.next_part(data, 0, request)
    request.head_complete = True
    body = boundaries.next_part(data, head, request)
    boundaries.request_ended()
    following = boundaries.next_part(data, body, None)
    boundaries.request_ended()
    assert (data[head:body], data[body:following]) == (b"body", b"GET / HTTP/1.1\r\n\r\n")
    assert boundaries.next_part(data, following, None) == len(data)
    with pytest.raises(BadRequestLine):
        boundaries.next_part(b"  / HTTP/1.1\r\n", 0, None)


METHODS = [b"FOO", b"BASELINE-CONTROL", b"GETT", b"GE", b"get", b"Post", b"DESCRIBE", b"X_Y.z~1", b"G" * 100]


@pytest.mark.parametrize("before", BEFORE)
@pytest.mark.parametrize("method", METHODS)
def test_an_unknown_method_is_not_implemented_wherever_it_comes_and_however_it_is_cut(
    bench: Bench, method: bytes, before: str
) -> None:
    """And what follows it is read by nobody, however much it looks like a request."""
    first = BEFORE[before]
    whole = first + b"%b / HTTP/1.1\r\n%bContent-Length: %d\r\n\r\n%b" % (method, HOST, len(GOOD), GOOD)
    requests = first.count(b" HTTP/1.1")
    cuts = range(max(1, len(first) - 3), len(first) + len(method) + 20)
    for reads in (
        [whole],
        *([whole[:at], whole[at:]] for at in cuts),
        [whole[at : at + 1] for at in range(len(whole))],
    ):
        written, messages, goes_on = bench.play(reads, [OK])
        assert (len(forwarded_requests(messages)), len(messages), goes_on) == (requests, requests, False)
        answered = statuses(written)
        assert answered[:requests] == [200] * requests
        assert answered[requests:] in ([], [501]) if requests else answered == [501], reads


def test_each_method_that_the_parser_takes_is_known_and_no_other() -> None:
    def taken(method: bytes) -> bool:
        try:
            httptools.HttpRequestParser(object()).feed_data(b"%b / HTTP/1.1\r\nHost: a\r\n\r\n" % method)
        except httptools.HttpParserUpgrade:
            return True
        except httptools.HttpParserError:
            return False
        return True

    others = (
        b"DESCRIBE ANNOUNCE SETUP PLAY PAUSE TEARDOWN GET_PARAMETER RECORD FLUSH UPDATE LABEL ORDERPATCH "
        b"UPDATEREDIRECTREF MKREDIRECTREF MKWORKSPACE VERSION-CONTROL UNCHECKOUT CHECKIN"
    ).split()
    assert all(taken(method) for method in METHODS_KNOWN)
    assert not [method for method in others if taken(method) or method in METHODS_KNOWN]


async def test_an_unknown_method_is_told_as_501_and_sends_nothing_upstream(
    start: StartGateway, upstream: Upstream
) -> None:
    gateway = await start(routes=[{"path": "/", "upstream": "api", "exempt": True}])
    client = await gateway.connect()
    answer = await client.ask(b"BREW /pot HTTP/1.1\r\n%bContent-Length: %d\r\n\r\n%b" % (HOST, len(GOOD), GOOD), "GET")
    assert (answer.status, answer["connection"]) == (501, "close")
    assert answer.problem["type"] == "urn:quotagate:problem:not-implemented"
    assert await client.ended()
    assert not upstream.requests


async def test_an_unknown_method_without_an_end_is_refused_in_time_and_size(
    start: StartGateway, upstream: Upstream
) -> None:
    gateway = await start(limits={"head_bytes_max": 1024}, timeouts={"head_seconds": 0.1})
    client = await gateway.connect()
    client.send(b"G" * 2000)
    assert (await client.answer()).status == 431
    assert await client.ended()
    client = await gateway.connect()
    client.send(b"BREW")
    await client.gone()
    assert not upstream.requests


@pytest.mark.parametrize("target", [b"*", b"http://api.example.com"])
async def test_a_question_about_the_server_as_a_whole_is_answered_here(
    gateway: Gateway, upstream: Upstream, target: bytes
) -> None:
    client = await gateway.connect()
    for _ in range(2):
        answer = await client.ask(b"OPTIONS %b HTTP/1.1\r\n%b\r\n" % (target, HOST))
        assert (answer.status, answer["content-length"]) == (200, "0")
        assert "OPTIONS" in (answer["allow"] or "")
    assert not upstream.requests
    assert (await client.ask(b"GET %b HTTP/1.1\r\n%b\r\n" % (b"*", HOST))).status == 400, "for OPTIONS only"
