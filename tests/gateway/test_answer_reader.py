"""An answer that is whole in one read is read by its lines. It means what the parser says: same bytes, same reuse."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.upstream.connection.answer_reader import AnswerReader
from tests.gateway.bench import Bench
from tests.gateway.damaged import THOROUGH, messages, parsed
from tests.gateway.test_fuzz import ANSWERS
from tests.gateway.test_head_reader import without_ids

UPSTREAMS = {
    "nginx": b'Server: nginx\r\nDate: Sun, 29 Nov 2026 12:00:00 GMT\r\nConnection: keep-alive\r\nETag: "a"\r\n',
    "Node": b'X-Powered-By: Express\r\nETag: W/"2-x"\r\nConnection: keep-alive\r\nKeep-Alive: timeout=5\r\n',
    "uvicorn": b"date: Sun, 29 Nov 2026 12:00:00 GMT\r\nserver: uvicorn\r\ncontent-type: application/json\r\n",
    "one that pages of other origins read": b"Access-Control-Allow-Origin: *\r\nVary: Origin\r\n",
    "one that names its requests": b"X-Request-Id: 17\r\nSet-Cookie: a=b\r\n",
}
"""Fields of upstreams whose answers are read by their lines."""
LEFT_TO_THE_PARSER = {
    "HTTP/1.0": b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "an interim answer": b"HTTP/1.1 100 Continue\r\n\r\n",
    "no body by its status": b"HTTP/1.1 204 No Content\r\n\r\n",
    "not modified": b"HTTP/1.1 304 Not Modified\r\nContent-Length: 0\r\n\r\n",
    "an unknown status": b"HTTP/1.1 600 Odd\r\nContent-Length: 2\r\n\r\nok",
    "no reason": b"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok",
    "a control in the reason": b"HTTP/1.1 200 O\x01K\r\nContent-Length: 2\r\n\r\nok",
    "no length": b"HTTP/1.1 200 OK\r\n\r\nok",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok",
    "a signed length": b"HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok",
    "more than its length": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok!",
    "less than its length": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no",
    "chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "an end": b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
    "an end by an old name": b"HTTP/1.1 200 OK\r\nProxy-Connection: close\r\nContent-Length: 2\r\n\r\nok",
    "its own rates": b"HTTP/1.1 200 OK\r\nRateLimit: a;r=1\r\nContent-Length: 2\r\n\r\nok",
    "an offer": b"HTTP/1.1 200 OK\r\nUpgrade: h2\r\nContent-Length: 2\r\n\r\nok",
    "a folded line": b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 2\r\n\r\nok",
    "a bare LF": b"HTTP/1.1 200 OK\r\nX: a\nY: b\r\nContent-Length: 2\r\n\r\nok",
    "no blank": b"HTTP/1.1 200 OK\r\nContent-Length:2\r\n\r\nok",
}


@pytest.mark.parametrize("lines", UPSTREAMS.values(), ids=UPSTREAMS)
def test_the_answers_of_usual_upstreams_are_read_by_their_lines(lines: bytes) -> None:
    head = AnswerReader(30, 0.5).read(b"HTTP/1.1 200 OK\r\n%bContent-Length: 2\r\n\r\nok" % lines)
    assert head is not None
    assert (head.status, head.reason, head.whole_bytes - len(head.raw)) == (200, b"OK", 2)


@pytest.mark.parametrize("data", LEFT_TO_THE_PARSER.values(), ids=LEFT_TO_THE_PARSER)
def test_what_changes_how_an_answer_is_read_is_left_to_the_parser(data: bytes) -> None:
    assert AnswerReader(30, 0.5).read(data) is None


NAMES = (
    *(
        b"Content-Length",
        b"Transfer-Encoding",
        b"Connection",
        b"Proxy-Connection",
        b"Keep-Alive",
        b"Upgrade",
        b"Trailer",
    ),
    *(
        b"Date",
        b"Access-Control-Allow-Origin",
        b"Access-Control-Expose-Headers",
        b"RateLimit",
        b"X-Request-Id",
        b"X-Odd",
    ),
    *(b"Content-Type", b"Set-Cookie", b"Proxy-Authenticate", b"X!#$%&'*+-.^_`|~1"),
)
VALUES = (
    *(
        b"0",
        b"2",
        b"02",
        b"+2",
        b"2, 2",
        b"chunked",
        b"keep-alive",
        b"close",
        b"keep-alive, X-Odd",
        b"timeout=5, max=100",
    ),
    *(
        b"max=0",
        b"timeout=1",
        b"h2c",
        b"*",
        b"https://app.example.com",
        b"",
        b"a b",
        b"a\tb",
        b"\xff",
        b"a\x00b",
        b"a\rb",
    ),
    *(b"a\nb", b"Sun, 29 Nov 2026 12:00:00 GMT"),
)
STATUS_LINES = (
    *(
        b"HTTP/1.1 200 OK",
        b"HTTP/1.1 200 OK",
        b"HTTP/1.1 201 Created",
        b"HTTP/1.1 404 Not Found",
        b"HTTP/1.1 500 J\xfcrgen",
    ),
    *(b"HTTP/1.1 204 No Content", b"HTTP/1.1 304 Not Modified", b"HTTP/1.0 200 OK", b"HTTP/1.1 200", b"HTTP/1.1 200 "),
    *(
        b"HTTP/1.1  200 OK",
        b"HTTP/1.1 200  OK",
        b"HTTP/1.1 999 Odd",
        b"HTTP/1.1 099 Odd",
        b"HTTP/2.0 200 OK",
        b"HTTP/1.1 20x OK",
    ),
)


BEHIND = (b"ok", b"ok", b"ok", b"", b"o", b"okHTTP/1.1 200 OK\r\n\r\n")
DAMAGED = messages(ANSWERS, STATUS_LINES, NAMES, VALUES, (b"Content-Length", b"2"), BEHIND)


def outcome(bench: Bench, method: bytes, reads: list[bytes]) -> tuple[bytes, bool, list[tuple[bool, float]]]:
    """What the client got, whether its connection goes on, and for how long the upstream's may be used again."""
    target = bench.upstream.targets[0]
    target.known_answers.clear()
    target._used_again_from = 0.0  # what was said too much before is forgotten
    written, _, goes_on = bench.play([b"%b / HTTP/1.1\r\nHost: api.example.com\r\n\r\n" % method], reads)
    return (
        without_ids(written),
        goes_on,
        [(transport.closed, each.idle_seconds) for each, transport in bench.connections],
    )


@THOROUGH
@given(data=DAMAGED, method=st.sampled_from([b"GET", b"GET", b"HEAD", b"POST"]))
def test_an_answer_that_is_read_by_its_lines_means_what_the_parser_says(
    bench: Bench, data: bytes, method: bytes
) -> None:
    assert outcome(bench, method, [data]) == outcome(bench, method, parsed(data))
