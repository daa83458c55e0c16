"""Every spelling of a target has one canonical form or is refused, and the form that is matched is what is sent."""

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from common import request_target
from common.request_target import CANONICAL, Target, TargetRefused, canonical

HOST = b"api.example.com"


def sent(spelling: bytes, host: bytes | None = HOST, method: bytes = b"GET") -> bytes:
    return canonical(spelling, host, method).sent


@pytest.mark.parametrize(
    "spelling",
    [
        b"/",
        b"/v1/things/42",
        b"/v1/things/",
        b"/v1/things?limit=10&after=%2e%2E//../x;y",
        b"/?",
        b"/a;x=1/b;y",
        b"/.well-known/x",
        b"/a/..b/c../...",
        b"/caf%C3%A9/%20%25%3A",
        b"/!$&'()*+,;=:@-._~",
    ],
)
def test_a_canonical_target_is_sent_as_it_came(spelling: bytes) -> None:
    assert sent(spelling) == spelling
    assert CANONICAL.fullmatch(spelling)


@pytest.mark.parametrize(
    ("spelling", "form"),
    [
        (b"//", b"/"),
        (b"/a//b", b"/a/b"),
        (b"//a/./b/../c", b"/a/c"),
        (b"/a/.", b"/a/"),
        (b"/a/b/..", b"/a/"),
        (b"/a/..", b"/"),
        (b"/a/%2e%2e/b", b"/b"),
        (b"/a/.%2E/b", b"/b"),
        (b"/%61%7E%2d", b"/a~-"),
        (b"/caf%c3%a9", b"/caf%C3%A9"),
        (b"/a%3ab", b"/a%3Ab"),
        (b"/%252e%252e/a", b"/%252e%252e/a"),
        (b'/a|b"<c>[d]`{e}^', b"/a%7Cb%22%3Cc%3E%5Bd%5D%60%7Be%7D%5E"),
        (b"/a//b?x=//../%2e", b"/a/b?x=//../%2e"),
    ],
)
def test_other_spellings_are_brought_to_the_canonical_one(spelling: bytes, form: bytes) -> None:
    assert sent(spelling) == form


@pytest.mark.parametrize(
    "spelling",
    [
        b"/a%5cb",
        b"/..%2fa",
        b"/a/..%2F..%2fb",
        b"/a/x%2f..",
        b"/a/x%2F./b",
        b"/a/%2e%2e%2fb",
        b"/a/x%2f..;y",
        b"/a/x%2f.%3By",
        b"/a/..;%2fb",
        b"/a%00b",
        b"/a%0d%0ab",
        b"/a%1fb",
        b"/a%7Fb",
        b"/a\\b",
        b"/a\x00b",
        b"/a\tb",
        b"/a b",
        b"/a\x7fb",
        "/café".encode(),
        b"/a%",
        b"/a%2",
        b"/a%zz",
        b"/a#b",
        b"/a?b#c",
        b"/a?b c",
        b"/a?b\xff",
        b"/a?b\x00",
        b"/..",
        b"/a/../../b",
        b"/%2e%2e/a",
        b"/a/..;x/b",
        b"/a/.;/b",
        b"/a/%2e%2e;x/b",
        b"/a/..%3Bx/b",
        b"/a/..%3bx/b",
        b"",
        b"a",
        b"?x",
        b"api.example.com:443",
        b"ftp://api.example.com/",
        b"http:/a",
        b"http:///a",
        b"http://user@api.example.com/",
    ],
)
def test_a_target_with_more_than_one_reading_is_refused(spelling: bytes) -> None:
    with pytest.raises(TargetRefused) as refused:
        canonical(spelling, HOST)
    assert refused.value.reason.isascii()


def test_path_and_query_are_told_apart() -> None:
    assert canonical(b"/a/./b?c=%2f", b"API.example.com:80") == Target(
        b"/a/b", b"c=%2f", b"api.example.com:80", b"/a/b?c=%2f"
    )
    assert canonical(b"/a", HOST).query is None
    assert canonical(b"/a?", HOST).query == b""


@pytest.mark.parametrize(
    ("spelling", "host", "form", "authority"),
    [
        (b"http://api.example.com/a//b?c", HOST, b"/a/b?c", HOST),
        (b"http://api.example.com", HOST, b"/", HOST),
        (b"http://api.example.com?x", HOST, b"/?x", HOST),
        (b"HTTP://API.Example.com:80/a", HOST, b"/a", b"api.example.com:80"),
        (b"https://api.example.com:443/a", HOST, b"/a", b"api.example.com:443"),
        (b"http://[::1]:8080/a", b"[::1]:8080", b"/a", b"[::1]:8080"),
        (b"http://api.example.com/a", None, b"/a", HOST),
    ],
)
def test_the_absolute_form_names_the_host(spelling: bytes, host: bytes | None, form: bytes, authority: bytes) -> None:
    canonical_form = canonical(spelling, host)
    assert (canonical_form.sent, canonical_form.authority) == (form, authority)


@pytest.mark.parametrize("host", [b"other.example.com", b"api.example.com:8080", b"api.example.com.evil"])
def test_an_absolute_form_whose_host_differs_from_the_host_field_is_refused(host: bytes) -> None:
    with pytest.raises(TargetRefused):
        canonical(b"http://api.example.com/a", host)


def test_the_asterisk_is_for_options_only() -> None:
    assert sent(b"*", method=b"OPTIONS") == b"*"
    assert sent(b"http://api.example.com", method=b"OPTIONS") == b"*"
    with pytest.raises(TargetRefused):
        canonical(b"*", HOST, b"GET")


@pytest.mark.parametrize(
    "host", [b"", b"a b", b"a,b", b"a/b", b"user@a", b"a:b", b"a:123456", b"[::1", b"a\x00", b"\xc3\xa9"]
)
def test_a_host_that_is_no_host_is_refused(host: bytes) -> None:
    with pytest.raises(TargetRefused):
        canonical(b"/", host)


def test_http_1_0_without_a_host_has_no_authority() -> None:
    assert canonical(b"/", None).authority == b""


def test_an_empty_port_is_no_port() -> None:
    assert canonical(b"http://api.example.com:", HOST) == canonical(b"/", HOST)
    assert canonical(b"/", b"api.example.com:").authority == b"api.example.com"


PIECES = st.sampled_from(
    rb"/ // . .. %2e %2E %2f %5c %00 %41 %7e %c3%a9 % %4 ; %3b a Z ~ | ? # \ : @ http://api.example.com".split()
    + list(map(bytes, ([0x20], [0x00], [0xFF])))
)
TARGETS = st.one_of(
    st.lists(PIECES, max_size=12).map(lambda pieces: b"/" + b"".join(pieces)),
    st.lists(PIECES, max_size=12).map(b"".join),
    st.binary(max_size=40),
)
NOT_CANONICAL = re.compile(
    rb"//|/\.\.?(/|;|$)|%[0-9A-F]?[a-f]|%5C|%7F|%[01]|%(?:2[DE]|3\d|4[1-9A-F]|5[0-9AF]|6[1-9A-F]|7[0-9AE])"
)


@given(TARGETS)
@example(b"/..;/a")
@example(b"/%2e")
def test_what_is_sent_is_canonical_whatever_came(spelling: bytes) -> None:
    try:
        canonical_form = canonical(spelling, HOST)
    except TargetRefused:
        return
    assert CANONICAL.fullmatch(
        canonical_form.sent.replace(b"%2F", b"x") if canonical_form.encoded_slash else canonical_form.sent
    )
    assert canonical_form.sent == (
        canonical_form.path if canonical_form.query is None else canonical_form.path + b"?" + canonical_form.query
    )
    assert not NOT_CANONICAL.search(canonical_form.path)


@given(TARGETS)
@example(b"/a%2f..")
@example(b"/.%2e%2Fa")
def test_an_encoded_slash_is_a_character_and_whoever_decodes_it_meets_no_dot_segment(spelling: bytes) -> None:
    try:
        canonical_form = canonical(spelling, HOST)
    except TargetRefused:
        return
    assert canonical_form.encoded_slash == (b"%2F" in canonical_form.path)
    if canonical_form.encoded_slash:
        with pytest.raises(TargetRefused):
            request_target.canonical_path(canonical_form.path)  # where nothing says that it is kept
        decoded = canonical_form.path.replace(b"%2F", b"/")
        assert request_target.canonical_path(decoded) == re.sub(rb"//+", b"/", decoded)


@given(TARGETS)
def test_a_path_with_empty_segments_has_no_other_than_those_of_its_merged_form(spelling: bytes) -> None:
    try:
        canonical_form = canonical(spelling, HOST)
    except TargetRefused:
        return
    if canonical_form.unmerged:
        assert b"//" in canonical_form.unmerged
        assert re.sub(rb"//+", b"/", canonical_form.unmerged) == canonical_form.path


@given(TARGETS)
def test_the_canonical_form_is_its_own_canonical_form(spelling: bytes) -> None:
    try:
        canonical_form = canonical(spelling, HOST)
    except TargetRefused:
        return
    assert canonical(canonical_form.sent, HOST) == canonical_form


@given(st.lists(PIECES, max_size=12).map(lambda pieces: b"/" + b"".join(pieces)))
def test_the_fast_path_and_the_long_way_agree(spelling: bytes) -> None:
    if CANONICAL.fullmatch(spelling):
        path, mark, query = spelling.partition(b"?")
        assert request_target.canonical_path(path) + mark + query == spelling
