"""Where an answer ends is decided by its status, the request's method and two fields: RFC 9112 section 6.3."""

import pytest

from gateway.http.framing import Framing
from gateway.upstream.connection.framing import (
    LONG_BODY_BYTES,
    BadFraming,
    passed_framing,
    read_before_answered,
    read_framing,
    tells_of_a_body,
)

BODILESS = [(200, b"HEAD"), (404, b"HEAD"), (204, b"GET"), (304, b"GET"), (100, b"POST"), (103, b"GET")]


@pytest.mark.parametrize(
    ("length", "codings", "framing"),
    [
        (b"0", None, Framing.SIZED),
        (b"11", None, Framing.SIZED),
        (None, b"chunked", Framing.CHUNKED),
        (None, b"Chunked", Framing.CHUNKED),
        (None, None, Framing.UNTIL_CLOSE),
    ],
)
@pytest.mark.parametrize("status", [200, 201, 206, 301, 404, 500, 599])
@pytest.mark.parametrize("method", [b"GET", b"POST", b"OPTIONS", b"DELETE"])
def test_fields_say_where_a_body_ends(
    status: int, method: bytes, length: bytes | None, codings: bytes | None, framing: Framing
) -> None:
    assert read_framing(status, method, length, codings) is framing


@pytest.mark.parametrize(("status", "method"), BODILESS)
@pytest.mark.parametrize(("length", "codings"), [(None, None), (b"11", None), (None, b"chunked")])
def test_some_answers_have_no_body_whatever_their_fields_tell(
    status: int, method: bytes, length: bytes | None, codings: bytes | None
) -> None:
    assert read_framing(status, method, length, codings) is Framing.NONE


@pytest.mark.parametrize(("status", "method"), [(200, b"GET"), *BODILESS])
@pytest.mark.parametrize(
    ("length", "codings"),
    [
        (None, b"gzip"),
        (None, b"gzip, chunked"),
        (None, b"chunked, chunked"),
        (None, b""),
        (b"11", b"gzip"),
        (b"11", b"chunked"),
        (b"0", b"chunked"),
    ],
)
def test_an_answer_whose_end_could_be_read_in_two_ways_is_refused(
    status: int, method: bytes, length: bytes | None, codings: bytes
) -> None:
    with pytest.raises(BadFraming):
        read_framing(status, method, length, codings)


def test_a_client_gets_chunks_only_if_it_knows_them() -> None:
    framings = [framing for framing in Framing if framing is not Framing.UNKNOWN]
    assert {framing: passed_framing(framing, True) for framing in framings} == {
        Framing.NONE: Framing.NONE,
        Framing.SIZED: Framing.SIZED,
        Framing.CHUNKED: Framing.CHUNKED,
        Framing.UNTIL_CLOSE: Framing.CHUNKED,
    }
    assert {framing: passed_framing(framing, False) for framing in framings} == {
        Framing.NONE: Framing.NONE,
        Framing.SIZED: Framing.SIZED,
        Framing.CHUNKED: Framing.UNTIL_CLOSE,
        Framing.UNTIL_CLOSE: Framing.UNTIL_CLOSE,
    }


@pytest.mark.parametrize(
    ("length", "codings", "tells"),
    [(None, None, False), (b"0", None, False), (b"000", None, False), (b"41", None, True), (None, b"chunked", True)],
)
def test_an_answer_without_a_body_may_tell_of_one_that_must_not_follow(
    length: bytes | None, codings: bytes | None, tells: bool
) -> None:
    assert tells_of_a_body(length, codings) is tells


def test_only_a_refused_long_upload_may_be_unread() -> None:
    assert read_before_answered(200, LONG_BODY_BYTES + 1)
    assert read_before_answered(413, LONG_BODY_BYTES)
    assert not read_before_answered(413, LONG_BODY_BYTES + 1)
    assert not read_before_answered(307, LONG_BODY_BYTES + 1)
