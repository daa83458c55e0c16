"""What of a message goes on, and what the gateway keeps to itself."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.http import headers
from gateway.http.headers import (
    AUTHORIZATION,
    CONNECTION,
    CONTENT_LENGTH,
    DROP,
    EXPECT,
    FORWARD,
    FORWARDED,
    HOP_BY_HOP,
    HOST,
    INVALID,
    ORIGIN,
    REQUEST_ID,
    TE,
    TRANSFER_ENCODING,
    UPGRADE,
    classify_request,
    classify_response,
    connection_tokens,
    correlation_id,
    nominated,
    without,
)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        (b"Accept", FORWARD),
        (b"cookie", FORWARD),
        (b"Trailer", FORWARD),
        (b"X_Custom_Name", FORWARD),
        (b"X-Quotation", FORWARD),
        (b"Host", HOST),
        (b"AUTHORIZATION", AUTHORIZATION),
        (b"Content-Length", CONTENT_LENGTH),
        (b"Transfer-Encoding", TRANSFER_ENCODING),
        (b"Connection", CONNECTION),
        (b"Upgrade", UPGRADE),
        (b"Expect", EXPECT),
        (b"Origin", ORIGIN),
        (b"X-Request-Id", REQUEST_ID),
        (b"Keep-Alive", DROP),
        (b"TE", TE),
        (b"Proxy-Authorization", DROP),
        (b"HTTP2-Settings", DROP),
        (b"Forwarded", FORWARDED),
        (b"X-Forwarded-For", FORWARDED),
        (b"x-real-ip", FORWARDED),
    ],
)
def test_a_field_of_a_request_has_its_kind_in_any_case(name: bytes, kind: int) -> None:
    assert {classify_request(spelling) for spelling in (name, name.lower(), name.upper(), name)} == {kind}


@pytest.mark.parametrize(
    "name", [b"X-Quota-Org", b"x-quota-plan", b"X-QUOTA-ANYTHING", b"X_Quota_Org", b"x-quota_org", b"X_QUOTA-ORG"]
)
def test_a_client_never_sets_its_own_identity(name: bytes) -> None:
    assert classify_request(name) == DROP


@pytest.mark.parametrize(
    "name",
    [
        b"Content_Length",
        b"transfer_encoding",
        b"X_Forwarded_For",
        b"X-Forwarded_Proto",
        b"X_Real_IP",
        b"Keep_Alive",
        b"X_Request_Id",
    ],
)
def test_underscore_spellings_of_protected_names_never_go_upstream(name: bytes) -> None:
    assert classify_request(name) == DROP


@pytest.mark.parametrize("name", [b"", b"a b", b"a:", b"a\r\n", b"\xe9", b"a\x00", b"(a)", b"Host "])
def test_a_name_that_is_no_token_is_invalid(name: bytes) -> None:
    assert classify_request(name) == classify_response(name) == INVALID


def test_no_hop_by_hop_field_goes_on_in_either_direction() -> None:
    for name in HOP_BY_HOP:
        assert classify_request(name) != FORWARD
        assert classify_response(name) != FORWARD


@pytest.mark.parametrize(
    "name", [b"Server", b"Age", b"Set-Cookie", b"Content-Type", b"Vary", b"WWW-Authenticate", b"X_Y"]
)
def test_an_answer_keeps_its_own_fields(name: bytes) -> None:
    assert classify_response(name) == FORWARD


def test_a_sweep_of_names_is_not_remembered_without_bound() -> None:
    for number in range(5000):
        classify_request(b"x-sweep-%d" % number)
    classify_request(b"x" * 60_000)
    kinds = classify_request.__self__  # type: ignore[attr-defined]  # a bound method of a dict
    assert len(kinds) <= headers._REMEMBERED_MAX
    assert max(map(len, kinds)) <= headers._REMEMBERED_BYTES_MAX
    assert classify_request(b"host") == HOST


def test_connection_options_are_told_apart() -> None:
    assert connection_tokens(b"Keep-Alive,\tX-Foo , ,close") == (b"keep-alive", b"x-foo", b"close")
    assert connection_tokens(b"") == ()


def test_a_nominated_field_does_not_go_on() -> None:
    fields = [b"X-Foo: 1\r\n", b"X-Bar: 2\r\n", b"x-foo: 3\r\n"]
    assert without(fields, connection_tokens(b"close, x-FOO")) == [b"X-Bar: 2\r\n"]


@pytest.mark.parametrize(
    "name",
    [
        b"Authorization",
        b"Content-Length",
        b"Content-Type",
        b"Cookie",
        b"Host",
        b"Idempotency-Key",
        b"Transfer-Encoding",
        b"Via",
        b"X-Forwarded-For",
        b"X-Quota-Org",
    ],
)
def test_nominating_a_protected_field_changes_nothing(name: bytes) -> None:
    fields = [name + b": 1\r\n"]
    assert without(fields, connection_tokens(name + b", close")) == fields


@given(st.lists(st.sampled_from([b"close", b"x-a", b"x-b", b"host", b"upgrade", b"x-quota-org"])))
def test_only_unprotected_names_can_be_nominated(options: list[bytes]) -> None:
    assert nominated(tuple(options)) == {option for option in options if option in {b"x-a", b"x-b"}}


@pytest.mark.parametrize("value", [b"", b"a b", b"a" * 129, b"a\x1b[31m", b'a"', b"a\xff"])
def test_a_request_id_that_is_unfit_for_a_log_is_not_continued(value: bytes) -> None:
    assert correlation_id(value) is None


def test_a_usual_request_id_is_continued() -> None:
    assert correlation_id(b"0a1b2c3d-0a1b-0a1b-0a1b-0a1b2c3d4e5f") == b"0a1b2c3d-0a1b-0a1b-0a1b-0a1b2c3d4e5f"


def test_each_kind_of_field_has_a_number_of_its_own() -> None:
    kinds = [
        value for name, value in vars(headers).items() if name.isupper() and isinstance(value, int) and name[0] != "_"
    ]
    assert len(kinds) > 15
    assert len(set(kinds)) == len(kinds)
