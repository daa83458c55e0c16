"""Gateways tell the control plane which routes they have, and what it supposes of them is what they decide."""

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from redis.asyncio import Redis

from common.request_target import TargetRefused
from control.decisions.admittance import Place, Principal, Supposed, look
from control.decisions.gateway_routes import read_told
from control.decisions.matching import Unreadable, Unrouted, find
from gateway.http.deadlines import DeadlineSweep
from gateway.http.head import RequestHead
from gateway.observe.told_routes import AGAIN_SECONDS, RoutesTeller, routes_of
from gateway.routing.destinations import Destination, Destinations
from gateway.routing.routes import compile_routes
from gateway.settings.root import GatewaySettings
from gateway.settings.upstreams import Upstream as UpstreamSettings
from gateway.upstream.balancer import Upstream
from quota import keys
from quota.model import MeterLimit
from quota.routes import Price, Route, Routes, TellsCost, Tunnel, TunnelUnit, decode, digest_of, encode, value_of
from tests.gateway.access.tokens import bearer
from tests.gateway.rig import PATIENCE_SECONDS, MakeOrganization, StartGateway, request
from tests.gateway.rig.keys import Keyring

SECRET = "a-secret-that-an-upstream-is-shown"
ROUTES: list[dict[str, Any]] = [
    {"path": "/", "upstream": "api", "request_headers": {"set": {"X-Api-Secret": SECRET}}},
    {"path": "/v1", "methods": ["GET", "DELETE"], "upstream": "api", "name": "read"},
    {
        "path": "/chat",
        "upstream": "api",
        "name": "chat",
        "meters": {"api_calls": 1, "tokens": {"header": "X-Tokens", "default": 5, "min": 2, "max": 50}},
    },
    {"path": "/admin", "upstream": "api", "name": "admin", "require": {"scopes": ["a"], "roles": ["owner"]}},
    {"path": "/keys", "upstream": "api", "name": "keys", "require": {"roles": ["owner"], "keys": True}},
    {"path": "/free", "upstream": "api", "name": "free", "exempt": True},
    {"path": "/only", "methods": ["PUT"], "host": "other.example", "upstream": "api", "name": "only"},
    {
        "path": "/ws",
        "upstream": "api",
        "name": "ws",
        "upgrades": ["websocket"],
        "tunnel": {"charge": {"messages": 2}, "per": "message"},
    },
    {"path": "/kept", "upstream": "api", "name": "kept", "encoded_slash": "keep", "merge_slashes": False},
]


@pytest.fixture(autouse=True)
def quick(intervals: dict[str, Any]) -> None:
    intervals["routes_seconds"] = 0.05


async def told(redis: Redis) -> Routes:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            if found := await read_told(redis, time.time()):
                return found[0].routes
            await asyncio.sleep(0.01)


async def test_a_gateway_tells_its_routes_and_tells_them_again_when_redis_has_forgotten(
    start: StartGateway, redis_url: str
) -> None:
    async with Redis.from_url(redis_url) as redis:
        await redis.delete(keys.ROUTES)
        await start(
            routes=ROUTES, shadow={"organizations": ["acme"]}, auth={"keys": {"environments": ["live", "test"]}}
        )
        first = await told(redis)
        assert [route.name for route in first.routes] == [route.get("name", "/") for route in ROUTES]
        assert first.routes[7].tunnel == Tunnel(TunnelUnit.MESSAGE, {"messages": 2})
        assert first.routes[2].prices == {
            "api_calls": Price(1),
            "tokens": Price(5, TellsCost.HEADER, "X-Tokens", 2, 50),
        }
        assert (first.environments, first.shadow_organizations) == (("live", "test"), ("acme",))
        assert SECRET not in str(await redis.hgetall(keys.ROUTES))
        await redis.delete(keys.ROUTES)
        assert await told(redis) == first


def test_a_gateway_that_takes_no_new_connections_tells_nothing_more() -> None:
    timers = list[Any]()
    replies = list[Any]()

    class Timer:
        def __init__(self, seconds: float) -> None:
            self.seconds, self.cancelled = seconds, False
            timers.append(self)

        def cancel(self) -> None:
            self.cancelled = True

    class Loop:
        def call_later(self, seconds: float, call: Any) -> Timer:
            return Timer(seconds)

    class Link:
        def call(self, data: bytes, callback: Any) -> None:
            replies.append(callback)

    loop: Any = Loop()
    teller = RoutesTeller(loop, Link(), compiled(Route("a", None, None, "/", {})), 60)
    teller.start()
    replies[0](1)
    replies[0](ConnectionError("Redis is away"))
    assert [timer.seconds for timer in timers] == [60, AGAIN_SECONDS]
    teller.close()
    assert timers[-1].cancelled
    replies[0](1)
    assert len(timers) == 2


# What is supposed is what is decided

REQUESTS: list[tuple[str, str, dict[str, int]]] = [
    ("GET", "/", {}),
    ("POST", "/v1/x", {}),
    ("HEAD", "/v1", {}),
    ("GET", "/chat", {}),
    ("POST", "/chat/more", {"tokens": 7}),
    ("GET", "/chat", {"tokens": 51}),
    ("GET", "/admin", {}),
    ("GET", "/keys/1", {}),
    ("PATCH", "/free", {}),
    ("PUT", "/only", {}),
    ("GET", "/chat%2Fmore", {}),
    ("GET", "/./%61dmin", {}),
    ("GET", "/kept/a%2fb//c", {}),
    ("GET", "/v1;x/y", {}),
]


async def test_what_is_supposed_of_a_request_is_what_a_gateway_decides(
    start: StartGateway, organization: MakeOrganization, redis_url: str
) -> None:
    acme = await organization("acme", None, meters=(MeterLimit("api_calls", 9000), MeterLimit("tokens", 90_000)))
    keyring = Keyring()
    made = [
        await keyring.make(acme),
        await keyring.make(acme, scopes=("route:chat", "route:keys")),
        await keyring.make(acme, scopes=("method:GET", "meter:api_calls")),
        await keyring.make(acme, networks=("192.0.2.0/24",)),
        await keyring.make(acme, networks=("127.0.0.0/8",), scopes=("route:/",)),
        await keyring.make(acme, environment="test"),
        await keyring.make(acme, expires_s=1000),
    ]
    revoked = await keyring.make(acme)
    await revoked.revoke()
    askers: list[tuple[bytes, Principal, tuple[str, ...], tuple[str, ...]]] = [
        (key.auth, Principal(key.record), (), ()) for key in (*made, revoked)
    ]
    askers += [
        (bearer(), Principal(), (), ()),
        (bearer(scope="a", roles=["owner"]), Principal(), ("a",), ("owner",)),
        (bearer(scope="a", roles=["other"]), Principal(), ("a",), ("other",)),
    ]
    async with Redis.from_url(redis_url) as redis:
        await redis.delete(keys.ROUTES)
        gateway = await start(routes=ROUTES, auth={"roles_claim": "roles"})
        routes = await told(redis)
    client = await gateway.connect()
    verdicts = set()
    for auth, principal, scopes, roles in askers:
        for method, path, units in REQUESTS:
            lines = b"".join(b"X-Tokens: %d\r\n" % value for value in units.values())
            answer = await client.ask(request(auth, method.encode(), path=path, lines=lines), method)
            route = find(routes, method, "h", path).route
            if isinstance(route, Unreadable):  # such a request is the last of its connection
                client = await gateway.connect()
            charges = None if not isinstance(route, Route) or not units else {**route.charges, **units}
            key = None if principal.record is None else principal.record.id
            supposed = Supposed(
                "acme", charges, key, method=method, path=path, address="127.0.0.1", scopes=scopes, roles=roles
            )
            looked = look(supposed, Place(route, routes.environments), principal, time.time())
            refused = looked.refused[0].verdict if looked.refused else "admitted"
            verdicts.add(refused)
            if method == "HEAD":
                assert (answer.status == 200) == (refused == "admitted"), (principal, method, path)
            elif answer.status == 200:
                assert refused == "admitted", (principal, method, path)
            else:
                said = answer.problem.get("reason") or answer.problem["type"].rpartition(":")[2].replace("-", "_")
                assert refused.removeprefix("token_") == said, (principal, method, path)
    expected = {"admitted", "no_route", "bad_request", "token_key_scope", "token_key_address", "token_key_environment"}
    expected |= {"token_key_expired", "token_key_revoked", "token_insufficient_scope", "token_insufficient_role"}
    assert verdicts == expected


SEGMENTS = st.lists(st.sampled_from(["a", "b", "c"]), max_size=3)
PATHS = SEGMENTS.map(lambda segments: "/" + "/".join(segments))
JOINTS = st.sampled_from(["/", "/", "/", "//", "%2F", "%2f", "/./", "/x/../", "/..", "/-/"])
NAMES = st.sampled_from(["a", "b", "c", "a;x", "b;x", "%61", "a%3B", "c%20", "%zz", "#", "é", ""])
SPELT = st.one_of(
    PATHS,
    st.lists(st.tuples(JOINTS, NAMES), max_size=4).map(
        lambda parts: "/" + "".join(map("".join, parts)).removeprefix("/")
    ),
)
METHODS = st.sampled_from(["GET", "HEAD", "POST", "PUT"])
HOSTS = st.sampled_from([None, "one.example", "two.example"])


@st.composite
def route_lists(draw: st.DrawFn) -> list[Route]:
    places = draw(
        st.lists(
            st.tuples(HOSTS, PATHS, st.one_of(st.none(), st.sampled_from([("GET",), ("POST", "PUT"), ("HEAD",)]))),
            min_size=1,
            max_size=8,
            unique=True,
        )
    )
    return [
        Route(
            f"r{at}",
            host,
            methods,
            path,
            {},
            encoded_slash=draw(st.booleans()),
            merge_slashes=draw(st.booleans()),
            bared=path if path != "/" and draw(st.booleans()) else "",
        )
        for at, (host, path, methods) in enumerate(places)
    ]


def compiled(*routes: Route) -> GatewaySettings:
    return GatewaySettings.model_validate(
        {
            "redis": {"url": "redis://127.0.0.1"},
            "auth": {"algorithms": ["HS256"], "secret": "x" * 32, "issuer": "i"},
            "upstreams": {"api": {"url": "http://127.0.0.1:9000"}},
            "routes": [
                {
                    "name": r.name,
                    "host": r.host,
                    "methods": r.methods,
                    "path": r.path,
                    "upstream": "api",
                    "encoded_slash": "keep" if r.encoded_slash else "reject",
                    "merge_slashes": r.merge_slashes,
                    "strip_prefix": r.bared or None,
                }
                for r in routes
            ],
        }
    )


@pytest.fixture(scope="module")
def upstreams() -> Iterator[dict[str, Upstream]]:
    loop = asyncio.new_event_loop()
    settings = UpstreamSettings(url="http://127.0.0.1:9")
    yield {"api": Upstream(loop, DeadlineSweep(loop), "api", settings)}
    loop.close()


def found_by_gateway(
    settings: GatewaySettings, upstreams: dict[str, Upstream], method: str, host: str, path: str
) -> tuple[str, str]:
    head = RequestHead()
    head.hosts.append(host.encode())
    try:
        found = Destinations(compile_routes(settings), upstreams).find(method.encode(), path.encode(), head)
    except TargetRefused as e:
        return "refused", e.reason
    if isinstance(found, Destination):
        return found.route.name, found.path.decode()
    return "unrouted", (found.allow or b"").decode()


ROOT_AND_A = [Route("root", None, None, "/", {}), Route("a", None, None, "/a", {}, encoded_slash=True)]


@example(ROOT_AND_A, "GET", "h", "/a;x/b")
@example(ROOT_AND_A, "GET", "h", "/a%2Fb")
@example(ROOT_AND_A, "GET", "h", "/a/b%2Fc;d")
@given(route_lists(), METHODS, st.sampled_from(["one.example:80", "TWO.example", "three.example", "a b"]), SPELT)
def test_the_route_that_is_told_for_a_request_is_the_one_that_a_gateway_finds(
    upstreams: dict[str, Upstream], routes: list[Route], method: str, host: str, path: str
) -> None:
    settings = compiled(*routes)
    route, spelt = find(routes_of(settings), method, host, path)
    match route:
        case Unreadable(reason):
            found = "refused", reason
        case Unrouted(allow):
            found = "unrouted", ", ".join(allow)
        case _:
            assert route is not None
            found = route.name, spelt or ""
    assert found == found_by_gateway(settings, upstreams, method, host, path)


@given(route_lists())
def test_routes_are_read_as_they_were_told(routes: list[Route]) -> None:
    written = Routes(
        (*routes, Route("t", None, None, "/t", {}, tunnel=Tunnel(TunnelUnit.MEBIBYTE, {"m": 3}), bared=None))
    )
    assert decode(b"d", value_of(encode(written), 1, 2)).routes == written


def test_routes_of_an_older_gateway_are_read_and_an_older_control_plane_reads_plain_ones() -> None:
    plain = Route("a", None, ("GET",), "/", {"m": Price(1)})
    text = b'[1,[],[],[["a",null,["GET"],"/",{"m":1},false,false,[],[],true]]]'
    assert encode(Routes((plain,))) == text
    assert decode(b"d", value_of(text, 1, 2)).routes == Routes((plain,))
    assert encode(Routes((plain._replace(upgrades=("websocket",)),))).startswith(b"[2,")


def test_the_same_routes_have_the_same_digest_and_others_another() -> None:
    one, same, other = (
        encode(routes_of(compiled(*routes)))
        for routes in (
            [Route("a", None, None, "/", {})],
            [Route("a", None, None, "/", {})],
            [Route("b", None, None, "/", {})],
        )
    )
    assert digest_of(one) == digest_of(same) != digest_of(other)
