"""`%2F` and `//`: the form that is matched is sent, and no second reading falls under another route."""

from pathlib import Path
from typing import Any

import pytest

from tests.gateway.proxies import KINDS, TRUSTED, question
from tests.gateway.request_heads import ask, line, on
from tests.gateway.rig import Organization, StartGateway, Until, Upstream

KEEP = {"encoded_slash": "keep"}
PLAIN = {"merge_slashes": False}


@pytest.mark.parametrize(
    ("asked", "sent"),
    [
        ("/api/v4/projects/group%2Fsub%2Fproject/repository/files/lib%2fclass.rb?ref=a%2Fb", None),  # GitLab
        ("/@scope%2fname", "/@scope%2Fname"),  # npm
        ("/@scope%2Fname/-/name-1.0.tgz", None),
        ("/a/%2F", None),
        ("/a%2F%2Fb", None),
        ("/x/../a%2fb/./c//d", "/a%2Fb/c/d"),
        ("/a%2F..b", None),
        ("/a%252Fb", None),
    ],
)
async def test_an_encoded_slash_is_sent_as_a_character_where_the_route_keeps_it(
    start: StartGateway, acme: Organization, upstream: Upstream, asked: str, sent: str | None
) -> None:
    gateway = await start(**on(**KEEP))
    client = await gateway.connect()
    for _ in range(2):  # parsed, and recognized
        assert (await client.ask(ask(asked, acme.auth))).status == 200
        expected = sent or asked.replace("%2fclass", "%2Fclass")
        assert line(upstream.requests[-1]) == f"GET {expected} HTTP/1.1"


@pytest.mark.parametrize("asked", ["/a%2fb", "/a%2Fb", "/%2f", "/a%2F?x"])
async def test_an_encoded_slash_is_400_where_no_route_keeps_it(
    start: StartGateway, acme: Organization, upstream: Upstream, asked: str
) -> None:
    gateway = await start(
        routes=[
            {"path": "/", "upstream": "api"},
            {"path": "/kept", "upstream": "api", **KEEP},
            {"path": "/post", "upstream": "api", "methods": ["POST"], **KEEP},
        ]
    )
    for target in (asked, f"/post{asked}", f"/.{asked}"):
        assert (await gateway.ask(ask(target, acme.auth))).status == 400
    assert (await gateway.ask(ask("/kept/a%2fb", acme.auth))).status == 200
    assert len(upstream.requests) == 1
    assert await acme.used() == 1


@pytest.mark.parametrize(
    "asked",
    [
        "/free%2Fx",  # `/free/x` to who decodes
        "/free/..%2Fdear",
        "/free/%2e%2e%2fdear",
        "/free/x%2F..%2F..%2Fdear",
        "/free/x%2f..",
        "/free/.%2F",
        "/free/..;%2Fdear",
        "/dear%2F",
        "/dear%2fx",
        "/dear%2F..%2Ffree",
        "/dear;x%2Fy",
        "/x%2F..;/y",
        "/-%5Cx",
        "/a%2f%00",
        "/a%2f%5cb",
    ],
)
async def test_a_path_that_falls_under_another_route_when_decoded_is_400(
    start: StartGateway, acme: Organization, upstream: Upstream, asked: str
) -> None:
    gateway = await start(
        routes=[
            {"path": "/", "upstream": "api", **KEEP},
            {"path": "/free", "upstream": "api", "exempt": True, **KEEP},
            {"path": "/dear", "upstream": "api", "meters": {"api_calls": 9}, **KEEP},
        ]
    )
    assert (await gateway.ask(ask(asked, acme.auth))).status == 400
    assert upstream.requests == []
    assert await acme.used() == 0


async def test_prefixes_go_and_come_around_an_encoded_slash(
    start: StartGateway, acme: Organization, upstream: Upstream
) -> None:
    gateway = await start(**on("/npm", strip_prefix="/npm", add_prefix="/registry", **KEEP))
    assert (await gateway.ask(ask("/npm/@a%2fb", acme.auth))).status == 200
    assert line(upstream.requests[-1]) == "GET /registry/@a%2Fb HTTP/1.1"
    assert (await gateway.ask(ask("/npm%2Fx", acme.auth))).status == 400


@pytest.mark.parametrize(
    ("route", "asked", "sent"),
    [
        ({}, "/a//b///c//", "/a/b/c/"),
        (PLAIN, "/a//b///c//", "/a//b///c//"),
        (PLAIN, "/fetch/https://example.com//x?y=//", "/fetch/https://example.com//x?y=//"),
        (PLAIN, "/a//%62%7c", "/a//b%7C"),
        ({**PLAIN, **KEEP}, "/a//b%2f%2fc", "/a//b%2F%2Fc"),
        ({**PLAIN, "add_prefix": "/base"}, "/a//b", "/base/a//b"),
        ({**PLAIN, "add_prefix": "/base"}, "//b", "/base//b"),
        ({**PLAIN, "path": "/a", "strip_prefix": "/a"}, "/a/b//c", "/b//c"),
    ],
)
async def test_empty_segments_go_on_as_the_route_says(
    start: StartGateway, acme: Organization, upstream: Upstream, route: dict[str, Any], asked: str, sent: str
) -> None:
    gateway = await start(routes=[{"path": "/", "upstream": "api", **route}])
    client = await gateway.connect()
    for _ in range(2):
        assert (await client.ask(ask(asked, acme.auth))).status == 200
        assert line(upstream.requests[-1]) == f"GET {sent} HTTP/1.1"


@pytest.mark.parametrize(
    ("route", "asked"),
    [
        ({}, "//evil.example/x"),  # some read a host
        ({}, "//"),
        ({"path": "/a", "strip_prefix": "/a"}, "/a//evil.example"),
        ({}, "/a//../b"),  # `/a/b` or `/b`
        ({}, "/a//./b"),
        ({"path": "/dear"}, "//dear/x"),
        ({"path": "/a/dear"}, "/a//dear/x"),
    ],
)
async def test_empty_segments_with_a_second_reading_are_400_where_they_are_kept(
    start: StartGateway, acme: Organization, upstream: Upstream, route: dict[str, Any], asked: str
) -> None:
    routes = [{"path": "/", "upstream": "api", "exempt": True, **PLAIN}] if "path" in route else []
    gateway = await start(routes=[*routes, {"path": "/", "upstream": "api", **PLAIN, **route}])
    assert (await gateway.ask(ask(asked, acme.auth))).status == 400
    assert upstream.requests == []


async def test_the_access_log_has_the_path_that_was_matched(
    start: StartGateway, acme: Organization, tmp_path: Path, until: Until
) -> None:
    import json

    file = tmp_path / "access.log"
    routes = [{"path": "/a", "upstream": "api", "strip_prefix": "/a", **KEEP, **PLAIN}]
    gateway = await start(routes=routes, access_log={"path": str(file)})
    assert (await gateway.ask(ask("/a/b%2fc//d?e", acme.auth))).status == 200
    await until(lambda: file.exists() and file.read_bytes())
    assert json.loads(file.read_bytes())["path"] == "/a/b%2Fc//d"


async def test_a_proxy_that_forwards_itself_is_told_the_form_that_was_matched(
    start: StartGateway, acme: Organization
) -> None:
    routes = [
        {"path": "/a", "upstream": "api", "strip_prefix": "/a", **KEEP, **PLAIN},
        {"path": "/", "upstream": "api"},
    ]
    gateway = await start(routes=routes, **TRUSTED)
    for kind in KINDS:
        answer = await gateway.ask(question(kind, "/a/b%2fc//d?e", acme.auth))
        assert (answer.status, answer["x-quota-target"]) == (200, "/b%2Fc//d?e")
        refused = await gateway.ask(question(kind, "/b%2fc", acme.auth))
        assert refused["x-quota-status"] == "400" if kind == "nginx" else refused.status == 400
