"""Any bytes, cut anywhere, into both parsers' callers: no unhandled exception, and one reading of each message."""

from itertools import pairwise

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.gateway.bench import HOST, Bench, answer_in, forwarded_requests, requests_in, statuses
from tests.gateway.rig import OK

EXAMPLES = 200
BRIEF = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
UPGRADE = HOST + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c, TLS/1.2\r\nHTTP2-Settings: AA\r\n"

REQUESTS = (
    b"GET / HTTP/1.1\r\nHost: api.example.com\r\n\r\n",
    b"GET /again?x=%20 HTTP/1.1\r\nHost: api.example.com\r\nAccept: */*\r\nX-Empty:\r\n\r\n",
    b"HEAD / HTTP/1.1\r\nHost: api.example.com\r\nConnection: keep-alive, X-Hop\r\nX-Hop: 1\r\n\r\n",
    b"GET / HTTP/1.0\r\n\r\n",
    b"POST /p HTTP/1.1\r\nHost: api.example.com\r\nContent-Length: 5\r\n\r\nhello",
    b"POST /p HTTP/1.1\r\nHost: api.example.com\r\nContent-Length: 25\r\n\r\nGET /hidden HTTP/1.1\r\n\r\n\r",
    b"PUT /c HTTP/1.1\r\nHost: api.example.com\r\nTransfer-Encoding: chunked\r\n\r\n3;e=1\r\nabc\r\n0\r\nX: t\r\n\r\n",
    b"POST /e HTTP/1.1\r\nHost: api.example.com\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nhi",
    b"GET http://api.example.com/absolute HTTP/1.1\r\nHost: api.example.com\r\n\r\n",
    b"GET /u HTTP/1.1\r\n%b\r\n" % UPGRADE,
    b"POST /u HTTP/1.1\r\n%bContent-Length: 5\r\n\r\nhello" % UPGRADE,
    b"PUT /u HTTP/1.1\r\n%bTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX: t\r\n\r\n" % UPGRADE,
)
ANSWERS = (
    OK,
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;e\r\nhello\r\n6\r\n world\r\n0\r\nX-T: t\r\n\r\n",
    b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nX-A: a\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.1 204 No Content\r\n\r\n",
    b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nto the end",
    b"HTTP/1.0 404 Not Found\r\nContent-Length: 3\r\nConnection: keep-alive\r\n\r\nno\n",
)
FRAGMENTS = (
    *(b"\r\n", b"\n", b"\r", b"\0", b" ", b"\t", b":", b"\xff", b"0", b"100", b"//", b"%2e", b"GET ", b"CONNECT "),
    *(b"\r\n\r\n", b"0\r\n\r\n", b"5\r\n", b"HTTP/1.1", b"HTTP/1.0", b"GET / HTTP/1.1\r\n", OK, HOST),
    *(b"Transfer-Encoding: chunked\r\n", b"transfer-encoding:\tchunked\r\n", b"Transfer-Encoding: identity\r\n"),
    *(b"Content-Length: 5\r\n", b"Content-Length: 0\r\n", b"Connection: close\r\n", b"X-Quota-Org: evil\r\n"),
    b"Connection: upgrade\r\nUpgrade: h2c\r\n",
)


def streams(messages: tuple[bytes, ...]) -> st.SearchStrategy[list[bytes]]:
    """Reads: messages in a row, damaged here and there, cut here and there."""

    @st.composite
    def stream(draw: st.DrawFn) -> list[bytes]:
        parts = [bytearray(draw(st.sampled_from(messages))) for _ in range(draw(st.integers(1, 4)))]
        for _ in range(draw(st.integers(0, 2))):
            part = draw(st.sampled_from(parts))
            at = draw(st.integers(0, len(part)))
            replaced = draw(st.integers(0, 8))
            part[at : at + replaced] = draw(st.sampled_from(FRAGMENTS) | st.binary(max_size=6))
        whole = b"".join(parts)
        boundaries = [sum(map(len, parts[: n + 1])) for n in range(len(parts))]
        cuts = draw(st.lists(st.integers(0, len(whole)), max_size=4))
        if draw(st.booleans()):
            cuts += boundaries  # each message in a read of its own: those may be recognized by their bytes
        edges = sorted({0, *cuts, len(whole)})
        return [whole[a:b] for a, b in pairwise(edges)]

    return stream() | st.lists(st.binary(min_size=1, max_size=60), min_size=1, max_size=4)


@BRIEF
@given(reads=streams(REQUESTS))
def test_a_client_can_send_anything_and_each_request_is_read_once(bench: Bench, reads: list[bytes]) -> None:
    written, messages, _ = bench.play(reads, [OK])
    answered, forwarded = statuses(written), forwarded_requests(messages)
    assert 500 not in answered
    assert answered.count(200) == len(forwarded)
    expected, sane = requests_in(b"".join(reads))
    if sane:
        assert len(forwarded) <= len(expected)
        assert [body for *_, body in forwarded] == [body for *_, body in expected][: len(forwarded)]


@BRIEF
@given(reads=streams(REQUESTS))
def test_how_a_clients_bytes_are_cut_changes_nothing(bench: Bench, reads: list[bytes]) -> None:
    def read(reads: list[bytes]) -> tuple[list[tuple[bytes, bytes, bytes]], list[int]]:
        written, messages, _ = bench.play(reads, [OK])
        return forwarded_requests(messages), statuses(written)

    whole = b"".join(reads)
    forwarded, answered = read(reads)
    for other in ([whole], [whole[at : at + 1] for at in range(len(whole))]):
        forwarded_too, told_too = read(other)
        assert forwarded_too == forwarded
        # What is wrong behind an unfinished request ends the connection; behind a finished one it is told first.
        longer, shorter = sorted((answered, told_too), key=len, reverse=True)
        assert longer[: len(shorter)] == shorter
        assert all(status >= 400 for status in longer[len(shorter) :])


@BRIEF
@given(reads=streams(ANSWERS), method=st.sampled_from([b"GET", b"HEAD"]))
def test_an_upstream_can_say_anything_and_the_client_gets_one_answer_or_sees_that_it_is_cut(
    bench: Bench, reads: list[bytes], method: bytes
) -> None:
    request = b"%b / HTTP/1.1\r\nHost: a\r\n\r\n" % method
    whole = b"".join(reads)
    seen = []
    for answer in (reads, [whole], [whole[at : at + 1] for at in range(len(whole))]):
        written, messages, goes_on = bench.play([request], answer)
        assert len(messages) == 1
        status, body, complete = answer_in(written, method)
        assert complete or not goes_on
        assert 500 not in statuses(written)
        seen.append((status, b"" if status == 502 else body, complete))  # a problem's body has an id
    assert seen[1:] == seen[:-1], "however it is cut"


@BRIEF
@given(reads=streams(ANSWERS))
def test_what_one_upstream_answer_leaves_behind_changes_no_later_one(bench: Bench, reads: list[bytes]) -> None:
    """Answers are recognized by the bytes of their heads; a damaged one must teach the gateway nothing wrong."""
    request = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
    bench.play([request], reads)
    for answer in ANSWERS:
        bench.play([request], [answer])
        known, *_ = bench.play([request], [answer])
        bench.upstream.targets[0].known_answers.clear()
        fresh, *_ = bench.play([request], [answer])
        assert answer_in(known, b"GET") == answer_in(fresh, b"GET")
