"""Changes of a request or an answer that cannot be meant are errors of the settings, and are named."""

from typing import Any

import pytest

from tests.gateway.settings import refusal


def edit(kind: str, part: str, name: str) -> str:
    return refusal(
        routes=[{"path": "/", "upstream": "sample", kind: {part: [name] if part == "remove" else {name: "v"}}}]
    )


@pytest.mark.parametrize("part", ["set", "add", "remove"])
@pytest.mark.parametrize("kind", ["request_headers", "response_headers"])
@pytest.mark.parametrize(
    "name",
    [
        "Connection",
        "keep-alive",
        "TE",
        "Trailer",
        "Transfer-Encoding",
        "transfer_encoding",
        "Content-Length",
        "Upgrade",
        "Proxy-Authorization",
        "HTTP2-Settings",
        "X-Request-Id",
        "Sec-WebSocket-Key",
        "Content-Encoding",
        "A B",
        "",
    ],
)
def test_fields_of_one_connection_and_of_the_gateway_are_refused(kind: str, part: str, name: str) -> None:
    at = "[0]: " if part == "remove" else f".{name}: "
    assert edit(kind, part, name).startswith(f"routes[0].{kind}.{part}{at}")


@pytest.mark.parametrize("part", ["set", "add", "remove"])
@pytest.mark.parametrize(
    "name",
    [
        "X-Quota-Org",
        "x_quota_anything",
        "Host",
        "X-Forwarded-For",
        "X_Forwarded_For",
        "Forwarded",
        "Via",
        "Idempotency-Key",
    ],
)
def test_who_the_caller_is_cannot_be_told_otherwise(part: str, name: str) -> None:
    assert edit("request_headers", part, name).startswith(f"routes[0].request_headers.{part}")


@pytest.mark.parametrize("name", ["RateLimit", "RateLimit-Policy", "Date", "X-Quota-Org"])
def test_what_the_gateway_tells_clients_cannot_be_told_otherwise(name: str) -> None:
    assert edit("response_headers", "set", name).startswith("routes[0].response_headers.set")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"request_headers": {"set": {"Authorization": "x"}}},
            "request_headers.set.Authorization: is set by `credential`",
        ),
        (
            {"request_headers": {"set": {"X-A": "1"}, "remove": ["x_a"]}},
            "request_headers.remove[0]: is named under set, too",
        ),
        ({"request_headers": {"set": {"X-A": "1", "x-a": "1"}}}, "request_headers.set.x-a: is named under set, too"),
        (
            {"request_headers": {"set": {"X-A": "1\r\nX-Quota-Org: b"}}},
            "request_headers.set.X-A: must be visible ASCII",
        ),
        ({"request_headers": {"set": {"X-A": " 1"}}}, "request_headers.set.X-A: must be visible ASCII"),
        ({"response_headers": {"add": {"X-A": "é"}}}, "response_headers.add.X-A: must be visible ASCII"),
        ({"response_headers": {"sett": {}}}, "response_headers.sett: unknown field (did you mean set?)"),
        (
            {"meters": {"n": {"header": "X-Cost", "max": 9}}, "request_headers": {"remove": ["x_cost"]}},
            "request_headers.remove[0]: tells what the request costs (meters.n)",
        ),
        ({"strip_prefix": "/b"}, "strip_prefix: must be /a/b or whole segments of its start"),
        ({"strip_prefix": "/a/b/c"}, "strip_prefix: must be /a/b or whole segments of its start"),
        ({"strip_prefix": "/"}, "strip_prefix: must be an absolute path of at least one segment"),
        ({"strip_prefix": "a"}, "strip_prefix: must be an absolute path"),
        ({"add_prefix": "/x/../y"}, "add_prefix: must be an absolute path"),
        ({"add_prefix": "/x%2Fy"}, "add_prefix: the path holds an encoded slash"),
        ({"add_prefix": "/x y"}, "add_prefix: the path holds a blank"),
        ({"encoded_slash": "decode"}, "encoded_slash: should be 'reject' or 'keep'"),
    ],
)
def test_changes_that_cannot_be_meant_are_named(changes: dict[str, Any], message: str) -> None:
    assert refusal(routes=[{"path": "/a/b", "upstream": "sample", **changes}]).startswith(f"routes[0].{message}")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"host": "a b"}, "host: must be preserve, upstream, or a host"),
        ({"host": "a\r\nX: y"}, "host: must be preserve, upstream, or a host"),
        ({"host": "http://a"}, "host: must be preserve, upstream, or a host"),
        ({"credential": {"value": ""}}, "credential.value: must not be empty"),
        ({"credential": {}}, "credential.value: is missing"),
        ({"credential": {"header": "X-Quota-Org", "value": "x"}}, "credential.header: tells the upstream who"),
        (
            {"credential": {"header": "Proxy-Authorization", "value": "x"}},
            "credential.header: belongs to one connection",
        ),
    ],
)
def test_hosts_and_credentials_that_cannot_be_meant_are_named(changes: dict[str, Any], message: str) -> None:
    refused = refusal(upstreams={"sample": {"url": "http://127.0.0.1:9", **changes}})
    assert refused.startswith(f"upstreams.sample.{message}")
