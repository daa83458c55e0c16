"""What carried a token does not go on; all else of the query and of the cookies goes on as it was."""

import json
import re
from pathlib import Path
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.routing.token_sources import Sources, split_query
from gateway.settings.rewriting import RouteTokenSources
from tests.gateway.proxies import TRUSTED
from tests.gateway.request_heads import ask, fields, line
from tests.gateway.rig import Organization, StartGateway, Until, Upstream
from tests.gateway.token_ways import ALL, LINES, NOT_AUTHORIZATION, carrying, on


@pytest.mark.parametrize(
    ("query", "sent"),
    [
        ("?access_token={}", ""),
        ("?a=1&access_token={}", "?a=1"),
        ("?b=%7e&access_token={}&&a=+;x&a", "?b=%7e&&a=+;x&a"),
        ("?access_token={}&", ""),
        ("?Access_Token=1&access_token={}", "?Access_Token=1"),
        ("?xaccess_token=1&access_token={}&access_tokens=2", "?xaccess_token=1&access_tokens=2"),
    ],
)
async def test_the_other_parameters_keep_their_order_and_spelling(
    start: StartGateway, acme: Organization, upstream: Upstream, query: str, sent: str
) -> None:
    gateway = await start(**on({"query": "access_token"}))
    assert (await gateway.ask(ask("/a" + query.format(acme.token)))).status == 200
    assert line(upstream.requests[-1]) == f"GET /a{sent} HTTP/1.1"


@pytest.mark.parametrize("query", ["?a=1;access_token={}", "?access_token={}&access_token={}", "?access_token={};a=1"])
async def test_a_parameter_with_two_readings_is_no_token_and_does_not_go_on(
    start: StartGateway, acme: Organization, upstream: Upstream, query: str
) -> None:
    tokens = {"query": "access_token"}
    free = {"path": "/free", "upstream": "api", "exempt": True, "tokens": tokens}
    gateway = await start(routes=[{"path": "/", "upstream": "api", "tokens": tokens}, free])
    assert (await gateway.ask(ask("/" + query.format(acme.token, acme.token)))).status == 401
    assert (await gateway.ask(ask("/free" + query.format(acme.token, acme.token)))).status == 200
    assert acme.token.encode() not in b"".join(upstream.requests)


async def test_the_other_cookies_keep_their_order_and_spelling(
    start: StartGateway, acme: Organization, upstream: Upstream
) -> None:
    gateway = await start(**on({"cookie": "session"}))
    for came, sent in (
        ('a="x; y";session={};  B = 2;c', 'a="x; y";  B = 2;c'),
        ("session={}; a=1", "a=1"),
        ("sessions=1; session={}; Session=2", "sessions=1; Session=2"),
        ("session={}", None),
    ):
        assert (await gateway.ask(ask("/", f"cookie: {came.format(acme.token)}\r\n".encode()))).status == 200
        assert fields(upstream.requests[-1]).get("cookie") == sent


async def test_no_other_spelling_of_the_field_and_no_trailer_brings_the_token_upstream(
    start: StartGateway, acme: Organization, upstream: Upstream
) -> None:
    gateway = await start(**on({"header": "X-Access-Token"}))
    lines = LINES["header"].format(acme.token) + f"X_Access_Token: {acme.token}\r\nTransfer-Encoding: chunked\r\n"
    trailer = f"0\r\nX-Access-Token: {acme.token}\r\nX-Sum: 1\r\n\r\n"
    assert (await gateway.ask(ask("/", lines.encode(), "POST") + trailer.encode())).status == 200
    assert acme.token.encode() not in upstream.requests[-1]
    assert upstream.requests[-1].endswith(b"0\r\nX-Sum: 1\r\n\r\n")


async def test_a_shadowed_request_goes_on_without_what_it_carried(start: StartGateway, upstream: Upstream) -> None:
    gateway = await start(**on(ALL, shadow=True))
    for way in NOT_AUTHORIZATION:
        assert (await gateway.ask(carrying(way, "not.a.token"))).status == 200
        assert b"not.a.token" not in upstream.requests[-1]


async def test_no_refusal_has_the_token_of_a_query_logged(
    start: StartGateway, acme: Organization, tmp_path: Path, until: Until
) -> None:
    file = tmp_path / "access.log"
    routes = [
        {"path": "/q", "upstream": "api", "tokens": {"query": "access_token"}},
        {"path": "/other", "upstream": "api"},
    ]
    gateway = await start(routes=routes, access_log={"path": str(file), "query": True}, **TRUSTED)
    query = f"?a=1&access_token={acme.token}&b=2"
    asked = ["/q", "/none", "/other", "/q/%zz", "/-/ready", "/-/none", "/-/authorize/none", "/-/authorize/nginx"]
    for path in asked:
        await gateway.ask(ask(path + query))
    await gateway.ask(ask("/q" + query + "\x01"), "GET")
    await gateway.ask(ask("/-/authorize/envoy/none" + query))
    await until(lambda: file.exists() and file.read_bytes().count(b"\n") == len(asked) + 2)
    assert acme.token not in file.read_text()
    paths = [json.loads(row)["path"] for row in file.read_text().splitlines()]
    assert paths[:3] == ["/q?a=1&b=2", "/none?a=1&b=2", "/other?a=1&b=2"]


async def test_a_request_line_with_a_token_is_not_kept_in_memory(start: StartGateway, acme: Organization) -> None:
    gateway = await start(**on({"query": "t"}))
    short = ask("/?t=short.signed.token")
    for _ in range(2):
        assert (await gateway.ask(short)).status == 401
        assert (await gateway.ask(ask("/?a=1", acme.auth))).status == 200
    destinations = gateway.worker.destinations
    assert [line for line, _ in destinations.known] == [b"GET /?a=1 HTTP/1.1"]
    assert [line for line, _ in destinations._met] == [b"GET /?a=1 HTTP/1.1"]


def test_a_query_is_split_and_left_as_it_was() -> None:
    assert split_query(b"a=1&t=x&b", b"t") == ((b"x",), b"a=1&b")
    assert split_query(b"a=1", b"t") == ((), b"a=1")
    assert split_query(b"", b"t") == ((), b"")
    assert split_query(b"t", b"t") == ((b"",), None)


PARTS = st.sampled_from(["t", "%74", "T", "tt", "=", "==", "&", ";", "+", "%3D", "x", "", "t=secret", "a=1"])


@given(st.lists(PARTS, max_size=14).map(lambda parts: "".join(parts).encode()))
def test_whatever_the_query_nothing_is_left_that_anyone_reads_as_the_token(query: bytes) -> None:
    values, rest = split_query(query, b"t")
    left = [] if rest is None else re.split(rb"[&;]", rest)
    assert all(unquote_to_bytes(part.partition(b"=")[0].replace(b"+", b" ")) != b"t" for part in left)
    pairs = query.split(b"&")
    kept = [] if rest is None else rest.split(b"&")
    assert rest is None or len(kept) + len(values) == len(pairs)
    left_over = iter(pairs)
    assert all(pair in left_over for pair in kept), "in their order, as they were spelt"


CRUMBS = st.lists(st.sampled_from(["s=secret", ' s = "secret"', "a=1", " ss=2", "", "s", "S=3", "a=s"]), max_size=6)


@given(CRUMBS)
def test_whatever_the_cookies_no_token_is_left_and_all_others_are(crumbs: list[str]) -> None:
    sources = Sources(RouteTokenSources(cookie="s"))
    lines = [f"Cookie: {';'.join(crumbs)}\r\n".encode(), b"X: s=secret\r\n"]
    sent = b"".join(sources.without(lines)).decode()
    others = [crumb.strip() for crumb in crumbs if crumb.partition("=")[0].strip() != "s"]
    assert sent.count("\r\n") == sent.count("\n") == 1 + ("Cookie: " in sent)
    left = [crumb.strip() for crumb in sent.partition("Cookie: ")[2].partition("\r\n")[0].split(";")]
    assert [crumb for crumb in left if crumb] == [crumb for crumb in others if crumb]
