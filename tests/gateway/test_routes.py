"""Which rule a request falls under."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from gateway.routing.routes import (
    MethodNotAllowed,
    Route,
    RouteTable,
    compile_routes,
    is_preflight,
)
from gateway.settings.redis import Redis
from gateway.settings.root import GatewaySettings
from gateway.settings.route import RouteSettings
from gateway.settings.upstreams import Upstream
from identity.settings import Auth


def table(*routes: RouteSettings) -> RouteTable:
    return compile_routes(
        GatewaySettings(
            redis=Redis(url=SecretStr("redis://127.0.0.1")),
            auth=Auth(algorithms=("HS256",), secret=SecretStr("x" * 32), issuer="i"),
            upstreams={"sample": Upstream(url="http://127.0.0.1:9000")},
            routes=routes,
        )
    )


def rule(path: str, name: str, host: str | None = None, methods: tuple[str, ...] | None = None) -> RouteSettings:
    return RouteSettings(name=name, host=host, methods=methods, path=path, upstream="sample")


def name(match: Route | MethodNotAllowed | None) -> str | None:
    assert not isinstance(match, MethodNotAllowed)
    return match.name if match else None


def test_the_longest_prefix_wins_whatever_the_order_of_the_file() -> None:
    routes = table(rule("/", "root"), rule("/v1/things", "things"), rule("/v1", "v1"))
    for path, expected in [
        (b"/", "root"),
        (b"/v2", "root"),
        (b"/v1", "v1"),
        (b"/v1/other", "v1"),
        (b"/v1/things", "things"),
        (b"/v1/things/", "things"),
        (b"/v1/things/4/2", "things"),
    ]:
        assert name(routes.match(b"GET", b"h", path)) == expected


def test_a_prefix_ends_at_a_segment() -> None:
    routes = table(rule("/v1/", "v1"))
    assert name(routes.match(b"GET", b"h", b"/v1")) == "v1"
    assert name(routes.match(b"GET", b"h", b"/v1/x")) == "v1"
    assert routes.match(b"GET", b"h", b"/v10") is None
    assert routes.match(b"GET", b"h", b"/V1") is None


def test_a_rule_with_the_host_comes_before_longer_rules_without() -> None:
    routes = table(rule("/", "mine", host="api.example.com"), rule("/v1/things", "anyones"))
    assert name(routes.match(b"GET", b"api.example.com", b"/v1/things")) == "mine"
    assert name(routes.match(b"GET", b"other.example.com", b"/v1/things")) == "anyones"


@pytest.mark.parametrize("host", [b"API.Example.COM", b"api.example.com:8080"])
def test_a_host_is_compared_without_case_and_port(host: bytes) -> None:
    assert name(table(rule("/", "mine", host="Api.example.com")).match(b"GET", host, b"/x")) == "mine"


def test_an_address_in_brackets_is_a_host() -> None:
    assert name(table(rule("/", "mine", host="[::1]")).match(b"GET", b"[::1]:8080", b"/x")) == "mine"


def test_a_host_whose_rules_do_not_hold_the_path_leaves_it_to_rules_without_host() -> None:
    routes = table(rule("/v1", "mine", host="h"), rule("/", "root"))
    assert name(routes.match(b"GET", b"h", b"/v2")) == "root"


def test_a_path_under_other_methods_only_is_405_with_all_of_them() -> None:
    routes = table(
        rule("/v1", "read", methods=("GET",)),
        rule("/v1/things", "write", methods=("POST",)),
        rule("/v1", "remove", host="h", methods=("DELETE",)),
    )
    assert routes.match(b"PUT", b"h", b"/v1/things/4") == MethodNotAllowed(b"DELETE, GET, HEAD, POST")
    assert routes.match(b"PUT", b"other", b"/v1/other") == MethodNotAllowed(b"GET, HEAD")
    assert routes.match(b"PUT", b"h", b"/v2") is None


def test_a_longer_rule_for_other_methods_leaves_the_request_to_a_shorter_one() -> None:
    routes = table(rule("/v1/things", "write", methods=("POST",)), rule("/v1", "v1"))
    assert name(routes.match(b"GET", b"h", b"/v1/things")) == "v1"
    assert name(routes.match(b"POST", b"h", b"/v1/things")) == "write"


def test_get_includes_head_and_nothing_else() -> None:
    routes = table(rule("/", "read", methods=("GET",)))
    assert name(routes.match(b"HEAD", b"h", b"/")) == "read"
    assert isinstance(routes.match(b"get", b"h", b"/"), MethodNotAllowed)


def test_parameters_never_move_a_path_to_another_route() -> None:
    routes = table(rule("/", "cheap"), rule("/admin", "dear"))
    assert routes.match(b"GET", b"h", b"/admin;x=1/users") is None
    assert name(routes.match(b"GET", b"h", b"/admin/users;x=1")) == "dear"
    assert name(routes.match(b"GET", b"h", b"/maps;x=1/tile")) == "cheap"


def test_an_exempt_route_charges_nothing() -> None:
    match = table(RouteSettings(path="/uuid", upstream="sample", exempt=True)).match(b"GET", b"h", b"/uuid")
    assert isinstance(match, Route)
    assert (match.exempt, match.costs) == (True, {})


def test_a_route_charges_its_meters() -> None:
    match = table(RouteSettings(path="/", upstream="sample", meters={"api_calls": 1, "tokens": 50})).match(
        b"GET", b"h", b"/"
    )
    assert isinstance(match, Route)
    assert match.costs == {"api_calls": 1, "tokens": 50}


def test_a_route_without_a_name_is_called_by_what_it_matches() -> None:
    routes = table(RouteSettings(path="/v1", upstream="sample", host="h", methods=("GET", "POST")))
    assert name(routes.match(b"GET", b"h", b"/v1")) == "GET,POST h/v1"


def test_the_asterisk_is_under_no_route() -> None:
    assert table(rule("/", "root")).match(b"OPTIONS", b"h", b"*") is None


SEGMENTS = st.lists(st.sampled_from([b"v1", b"v10", b"things", b"a"]), max_size=6)


@given(SEGMENTS, st.sampled_from([b"", b"/"]))
def test_the_match_is_the_longest_of_all_prefixes_that_hold_the_path(segments: list[bytes], end: bytes) -> None:
    prefixes = ["/v1", "/v1/things", "/v10", "/a/a/a"]
    path = b"".join(b"/" + segment for segment in segments) + (end if segments else b"/")
    expected = [p for p in prefixes if (path.rstrip(b"/") + b"/").startswith(p.encode() + b"/")]
    match = table(*(RouteSettings(path=prefix, upstream="sample") for prefix in prefixes)).match(b"GET", b"h", path)
    assert name(match) == (max(expected, key=len) if expected else None)


@pytest.mark.parametrize(
    ("method", "origin", "requested", "expected"),
    [
        (b"OPTIONS", b"https://app", b"POST", True),
        (b"OPTIONS", None, b"POST", False),
        (b"OPTIONS", b"https://app", None, False),
        (b"POST", b"https://app", b"POST", False),
    ],
)
def test_only_a_preflight_is_a_preflight(
    method: bytes, origin: bytes | None, requested: bytes | None, expected: bool
) -> None:
    assert is_preflight(method, origin, requested) is expected
