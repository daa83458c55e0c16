"""What is remembered of request lines: no more than is bounded, and nothing that another request could misuse."""

import asyncio
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from common.request_target import TargetRefused
from gateway.http.deadlines import DeadlineSweep
from gateway.http.head import RequestHead
from gateway.routing.destinations import REMEMBERED_BYTES_MAX, REMEMBERED_MAX, Destination, Destinations
from gateway.routing.routes import compile_routes
from gateway.settings.clients import Limits
from gateway.settings.rewriting import TokenSources
from gateway.settings.route import RouteSettings
from gateway.settings.upstreams import Upstream as UpstreamSettings
from gateway.upstream.balancer import Upstream


@pytest.fixture
def destinations() -> Iterator[Destinations]:
    rules = (
        RouteSettings(path="/", upstream="sample"),
        RouteSettings(path="/", upstream="sample", host="dear.example.com", meters={"api_calls": 9}),
        RouteSettings(path="/uploads", upstream="sample", methods=("POST",), meters={"api_calls": 5}),
    )
    settings: Any = SimpleNamespace(routes=rules, limits=Limits(), tokens=TokenSources())
    loop = asyncio.new_event_loop()
    upstream = Upstream(loop, DeadlineSweep(loop), "sample", UpstreamSettings(url="http://127.0.0.1:9"))
    yield Destinations(compile_routes(settings), {"sample": upstream})
    loop.close()


def head(host: bytes = b"api.example.com", **fields: Any) -> RequestHead:
    made = RequestHead()
    made.hosts.append(host)
    for name, value in fields.items():
        setattr(made, name, value)
    return made


def test_a_request_line_that_came_twice_is_one_look_up(destinations: Destinations) -> None:
    once = destinations.find(b"GET", b"/a?b", head())
    assert destinations.known == {}, "a line with an id in it comes once"
    twice = destinations.find(b"GET", b"/a?b", head())
    assert once == twice
    assert destinations.find(b"GET", b"/a?b", head()) is twice
    assert destinations.known == {(b"GET /a?b HTTP/1.1", b"api.example.com"): twice}


def test_a_remembered_line_does_not_bring_the_route_of_another_host_or_method(destinations: Destinations) -> None:
    def charges(method: bytes, host: bytes) -> dict[str, int]:
        route = destinations.find(method, b"/uploads", head(host)).route
        assert route is not None
        return route.charges

    for _ in range(3):
        assert charges(b"GET", b"api.example.com") == {"api_calls": 1}
        assert charges(b"POST", b"api.example.com") == {"api_calls": 5}
        assert charges(b"POST", b"dear.example.com") == {"api_calls": 9}


def test_a_preflight_is_never_remembered_and_never_answered_from_memory(destinations: Destinations) -> None:
    _, plain = (destinations.find(b"OPTIONS", b"/uploads", head()) for _ in range(2))
    preflight = head(origin=b"https://app.example.com", requested_method=b"POST")
    asked = destinations.find(b"OPTIONS", b"/uploads", preflight)
    assert isinstance(plain, Destination)
    assert isinstance(asked, Destination)
    assert (plain.preflight, asked.preflight) == (False, True)
    assert asked.route.charges == {"api_calls": 5}
    assert not preflight.repeatable
    assert destinations.find(b"OPTIONS", b"/uploads", head()) is plain


def test_a_head_with_two_hosts_is_never_recognized() -> None:
    two = head()
    two.hosts.append(b"dear.example.com")
    assert head().repeatable
    assert not two.repeatable


def test_a_sweep_of_targets_and_hosts_is_not_remembered_without_bound(destinations: Destinations) -> None:
    for number in range(2 * REMEMBERED_MAX):
        for _ in range(2):
            destinations.find(b"GET", b"/sweep/%d" % number, head(b"h%d" % number))
    for _ in range(2):
        destinations.find(b"GET", b"/" + b"a" * 60_000, head())
    assert len(destinations.known) <= REMEMBERED_MAX
    assert max(len(line) + len(host) for line, host in destinations.known) <= REMEMBERED_BYTES_MAX


def test_what_has_no_route_or_no_reading_is_not_remembered(destinations: Destinations) -> None:
    for _ in range(2):
        destinations.find(b"GET", b"/-/health", head())
        destinations.find(b"OPTIONS", b"*", head())
    with pytest.raises(TargetRefused):
        destinations.find(b"GET", b"/a%2fb", head())
    assert destinations.known == {}
