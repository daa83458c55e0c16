"""A head that is whole in one read is read by its lines. It means what the parser says: same verdict, same bytes."""

import re
from itertools import count
from typing import Any

import pytest
from hypothesis import given

from gateway.client.head_reader import HeadReader
from gateway.http.head import RequestHead
from gateway.http.lines import REMEMBERED_MAX, REMEMBERED_OF_NAME_MAX
from tests.gateway.bench import Bench
from tests.gateway.damaged import THOROUGH, messages, parsed
from tests.gateway.rig import OK
from tests.gateway.test_fuzz import REQUESTS
from tests.gateway.test_smuggling import SHAPES

CLIENTS = {
    "curl": b"User-Agent: curl/8.5.0\r\nAccept: */*\r\n",
    "requests": b"User-Agent: python-requests/2.32.3\r\nAccept-Encoding: gzip, deflate\r\nConnection: keep-alive\r\n",
    "a browser": b"Connection: keep-alive\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64)\r\nOrigin: https://app.example.com\r\n"
    b"Sec-Fetch-Mode: cors\r\nAccept-Language: en-US,en;q=0.9\r\nCookie: a=b; c=d\r\n",
    "a traced client": b"traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\nX-Request-Id: r-1\r\n",
    "one that repeats itself": b"Idempotency-Key: 8e03978e-40d5-43dd-bc93-6894a57f9324\r\n",
    "a proxy": b"X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Proto: https\r\nForwarded: for=192.0.2.1\r\n",
    "one with an identity of its own": b"X-Quota-Org: evil\r\nX_Request_Id: 1\r\n",
    "beyond ASCII": b"X-Name: J\xc3\xbcrgen\r\nX-Tab: a\tb\r\n",
    "an upload": b"Content-Type: application/json\r\nContent-Length: 0\r\n",
}
"""Fields of clients whose requests are read by their lines."""
LEFT_TO_THE_PARSER = {
    "HTTP/1.0": b"GET / HTTP/1.0\r\nHost: a\r\n\r\n",
    "an unusual method": b"PROPFIND / HTTP/1.1\r\nHost: a\r\n\r\n",
    "two blanks": b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
    "a target that is no path": b"GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n",
    "a control in the target": b"GET /\x00 HTTP/1.1\r\nHost: a\r\n\r\n",
    "no host": b"GET / HTTP/1.1\r\nAccept: */*\r\n\r\n",
    "two hosts": b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "two tokens": b"GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer a\r\nAuthorization: Bearer b\r\n\r\n",
    "two lengths": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
    "a signed length": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\n",
    "chunks": b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
    "an end": b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    "an end by an old name": b"GET / HTTP/1.1\r\nHost: a\r\nProxy-Connection: close\r\n\r\n",
    "an upgrade": b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    "an expectation": b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\r\n",
    "a preflight": b"OPTIONS / HTTP/1.1\r\nHost: a\r\nAccess-Control-Request-Method: PUT\r\n\r\n",
    "a folded line": b"GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n",
    "a bare LF": b"GET / HTTP/1.1\r\nHost: a\r\nX: a\nY: b\r\n\r\n",
    "a bare CR": b"GET / HTTP/1.1\r\nHost: a\r\nX: a\rY: b\r\n\r\n",
    "a NUL": b"GET / HTTP/1.1\r\nHost: a\r\nX: a\x00b\r\n\r\n",
    "no blank": b"GET / HTTP/1.1\r\nHost: a\r\nX:a\r\n\r\n",
    "blanks around a value": b"GET / HTTP/1.1\r\nHost: a\r\nX:  a \r\n\r\n",
    "a value of nothing": b"GET / HTTP/1.1\r\nHost: a\r\nX: \r\n\r\n",
    "a name that is none": b"GET / HTTP/1.1\r\nHost: a\r\nX Y: a\r\n\r\n",
}


def read(data: bytes, reader: HeadReader | None = None) -> RequestHead | None:
    found = (reader or HeadReader()).read(data, 0, data.index(b"\r\n\r\n") + 2, 100, trusted=True)
    return None if found is None else found.head


def with_fields(lines: bytes, target: bytes = b"/a?b") -> bytes:
    return b"GET %b HTTP/1.1\r\nHost: api.example.com\r\n%b\r\n" % (target, lines)


@pytest.mark.parametrize("lines", CLIENTS.values(), ids=CLIENTS)
def test_the_heads_of_usual_clients_are_read_by_their_lines(lines: bytes) -> None:
    assert read(with_fields(lines)) is not None


@pytest.mark.parametrize("data", LEFT_TO_THE_PARSER.values(), ids=LEFT_TO_THE_PARSER)
def test_what_changes_how_a_message_is_read_is_left_to_the_parser(data: bytes) -> None:
    assert read(data) is None


def without_ids(data: bytes) -> bytes:
    """As another request would have it: each has an id of its own."""
    return re.sub(rb"[0-9a-f]{20}", b"<id>", data)


def outcome(bench: Bench, reads: list[bytes]) -> tuple[bytes, list[bytes], bool]:
    written, messages, goes_on = bench.play(reads, [OK])
    return without_ids(written), [without_ids(message) for message in messages], goes_on


NAMES = (
    *(
        b"Host",
        b"Authorization",
        b"Content-Length",
        b"Transfer-Encoding",
        b"Connection",
        b"Proxy-Connection",
        b"Upgrade",
    ),
    *(b"Expect", b"TE", b"Trailer", b"Keep-Alive", b"Origin", b"Access-Control-Request-Method", b"X-Request-Id"),
    *(b"Idempotency-Key", b"traceparent", b"tracestate", b"X-Forwarded-For", b"X-Forwarded-Host", b"Forwarded"),
    *(
        b"X-Quota-Org",
        b"X_Quota_Org",
        b"X_Request_Id",
        b"Content-Type",
        b"Cookie",
        b"Accept",
        b"X-Odd",
        b"X!#$%&'*+-.^_`|~1",
    ),
)
VALUES = (
    *(
        b"api.example.com",
        b"api.example.com:8080",
        b"Bearer a.b.c",
        b"0",
        b"5",
        b"05",
        b"+5",
        b"5, 5",
        b"18446744073709551616",
    ),
    *(
        b"chunked",
        b"identity",
        b"keep-alive",
        b"close",
        b"keep-alive, X-Odd",
        b"Upgrade",
        b"websocket",
        b"100-continue",
    ),
    *(b"trailers", b"https://app.example.com", b"POST", b"for=192.0.2.1;proto=http", b"192.0.2.1, 198.51.100.2", b""),
    *(
        b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        b"a b",
        b"a\tb",
        b"\xff",
        b"a\x00b",
        b"a\rb",
        b"a\nb",
    ),
)
LINES = (
    *(
        b"GET / HTTP/1.1",
        b"POST /p HTTP/1.1",
        b"PUT /p?a=b&c HTTP/1.1",
        b"GET /a/../b HTTP/1.1",
        b"GET /%41?%2f HTTP/1.1",
    ),
    *(b"GET /a#b HTTP/1.1", b"GET http://api.example.com/ HTTP/1.1", b"OPTIONS * HTTP/1.1", b"HEAD / HTTP/1.1"),
    *(
        b"GET /\xff HTTP/1.1",
        b"get / HTTP/1.1",
        b"GET / HTTP/1.0",
        b"GET /a HTTP/1.2",
        b"GET /a  HTTP/1.1",
        b"TRACE / HTTP/1.1",
    ),
)


BEHIND = (b"", b"", b"hello", b"hel", b"helloGET /next HTTP/1.1\r\nHost: b\r\n\r\n")
DAMAGED = messages((*REQUESTS, *SHAPES.values()), LINES, NAMES, VALUES, (b"Host", b"api.example.com"), BEHIND)


@THOROUGH
@given(data=DAMAGED)
def test_a_head_that_is_read_by_its_lines_means_what_the_parser_says(bench: Bench, data: bytes) -> None:
    assert outcome(bench, [data]) == outcome(bench, parsed(data))


@THOROUGH
@given(data=DAMAGED)
def test_what_a_trusted_proxy_says_means_the_same_by_either_way(trusting_bench: Bench, data: bytes) -> None:
    assert outcome(trusting_bench, [data]) == outcome(trusting_bench, parsed(data))


def test_a_body_goes_on_as_it_comes_and_ends_where_its_length_says(bench: Bench) -> None:
    body = bytes(range(256)) * 512
    head = b"POST / HTTP/1.1\r\nHost: api.example.com\r\nContent-Length: %d\r\n\r\n" % len(body)
    following = b"GET /next HTTP/1.1\r\nHost: api.example.com\r\n\r\n"
    data = head + body + following
    for cut in (len(head), len(head) + 1, len(head) + len(body) - 1, len(head) + len(body), len(data)):
        _, messages, goes_on = bench.play([data[:cut], data[cut:]] if cut < len(data) else [data], [OK])
        assert goes_on
        assert [message.partition(b"\r\n\r\n")[2] for message in messages] == [body, b""]


def test_lines_that_no_request_repeats_are_remembered_within_bounds() -> None:
    reader = HeadReader()
    for number in range(2 * REMEMBERED_MAX):
        assert read(with_fields(b"X-Trace: %d\r\nX-%d: a\r\n" % (number, number)), reader) is not None
        assert len(reader.lines.known) <= REMEMBERED_MAX
    traces = sum(line.startswith(b"X-Trace:") for line in reader.lines.known)
    assert traces <= REMEMBERED_OF_NAME_MAX


@pytest.mark.parametrize("name", [b"Authorization", b"cookie", b"X-Api-Key", b"X-Site-Token"])
def test_no_line_with_a_token_is_remembered(name: bytes) -> None:
    reader = HeadReader([b"x-site-token"])
    for number in count(1):
        assert read(with_fields(b"%b: secret-%d\r\n" % (name, number)), reader) is not None
        if number == 3:
            break
    assert not [line for line in reader.lines.known if b"secret" in line]


def test_a_remembered_line_means_what_it_meant_when_it_was_new() -> None:
    reader, lines = HeadReader(), b"".join(CLIENTS.values())
    first, second = (read(with_fields(lines), reader) for _ in range(2))
    assert first is not None
    assert second is not None
    assert said(first) == said(second)


def said(head: RequestHead) -> dict[str, Any]:
    """All that it says."""
    values = {name: getattr(head, name) for name in dir(head) if not name.startswith("_")}
    return {name: value for name, value in values.items() if not callable(value)}
