"""Forward-auth as a real Caddy does it, with the configuration that docs/forward-auth.md tells its readers to use."""

import asyncio
import os
import re
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from devstack.child import spawn, stopping
from devstack.ports import free_port
from quota.model import Status
from tests.gateway.rig import Answer, Connect, Gateway, MakeOrganization, Organization, StartGateway, Upstream

TOOLS = Path(__file__).parents[2] / ".venv/deploy/bin"  # make deploy-tools
CADDY = shutil.which("caddy", path=f"{TOOLS}:{os.environ.get('PATH', '')}:/usr/bin:/usr/local/bin")
DOCUMENT = Path(__file__).parents[2] / "docs" / "forward-auth.md"
MAIN = "{\n\tadmin off\n\tauto_https off\n}\n"

pytestmark = pytest.mark.skipif(CADDY is None, reason="caddy is not installed")

Ask = Callable[..., Awaitable[Answer]]


def documented(gateway_port: int, api_port: int, port: int) -> str:
    """The configuration of the document, with this test's addresses."""
    blocks = re.findall(r"```caddy\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    assert len(blocks) == 1
    text: str = blocks[0]
    for written, replacement in (
        ("quotagate:8080", f"127.0.0.1:{gateway_port}"),
        ("api:9000", f"127.0.0.1:{api_port}"),
        ("api.example.com {", f"http://:{port} {{\n\tbind 127.0.0.1"),
    ):
        assert text.count(written) == 1
        text = text.replace(written, replacement)
    return text


@pytest.fixture
async def gateway(start: StartGateway) -> Gateway:
    return await start(
        routes=[{"path": "/", "upstream": "api"}, {"path": "/free", "upstream": "api", "exempt": True}],
        forward_auth={"trusted": ["127.0.0.1"]},
        cors={"allowed_origins": ["https://app.example.com"], "allow_credentials": True},
        upgrade_url="https://example.com/upgrade",
    )


@pytest.fixture
async def ask(gateway: Gateway, upstream: Upstream, tmp_path: Path, connect: Connect) -> AsyncIterator[Ask]:
    """Asks Caddy, which asks the gateway and forwards to the upstream."""
    assert CADDY is not None
    port = free_port()
    file = tmp_path / "Caddyfile"
    file.write_text(MAIN + documented(gateway.port, upstream.port, port))
    argv = [CADDY, "run", "--adapter", "caddyfile", "--config", str(file)]
    homes = {"HOME": str(tmp_path), "XDG_DATA_HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path)}

    async def request(path: str, fields: bytes = b"", method: str = "GET", body: bytes = b"") -> Answer:
        client = await connect(port)
        head = f"{method} {path} HTTP/1.1\r\nHost: api.example.com\r\nContent-Length: {len(body)}\r\n"
        return await client.ask(head.encode() + fields + b"\r\n" + body)

    with stopping(spawn("caddy", argv, log=tmp_path / "caddy.log", env=homes)) as child:
        async with asyncio.timeout(60):
            while True:
                assert child.exit_code is None, child.log.read_text()
                try:
                    await (await connect(port)).close()
                    break
                except OSError:
                    await asyncio.sleep(0.01)
        yield request


async def test_caddy_forwards_what_is_admitted_with_its_organization_and_copies_the_ratelimit_fields(
    ask: Ask, acme: Organization, upstream: Upstream
) -> None:
    answer = await ask("/v1/x%2Cy%20z/?q=%2e%26&r", acme.auth + b"X-Quota-Org: forged\r\nX-Request-Id: r1\r\n")
    assert (answer.status, answer.body, answer.remaining) == (200, b"ok", 99)
    assert "api_calls" in (answer["ratelimit-policy"] or "")
    [request] = upstream.requests
    assert request.startswith(b"GET /v1/x%2Cy%20z/?q=%2e%26&r HTTP/1")
    assert request.count(b"\r\nX-Quota-Org: acme\r\n") == 1
    assert b"forged" not in request
    assert request.count(b"\r\nX-Request-Id: ") == 1
    assert await acme.used() == 1


@pytest.mark.parametrize("path", ["/v1/%2e%2e/free", "/v1/../free", "//free", "/fr%65e"])
async def test_caddy_forwards_no_path_that_is_spelled_in_another_way_than_it_was_charged(
    ask: Ask, upstream: Upstream, path: str
) -> None:
    assert (await ask(path)).status == 400
    assert not upstream.requests


async def test_caddy_keeps_the_body_for_the_api(ask: Ask, acme: Organization, upstream: Upstream) -> None:
    for number in range(3):
        assert (await ask("/", acme.auth, "POST", b"x" * 100_000)).status == 200
        assert upstream.requests[number].endswith(b"\r\n\r\n" + b"x" * 100_000)
    assert await acme.used() == 3


async def test_caddy_forwards_an_exempt_route_without_token_and_without_an_organization(
    ask: Ask, upstream: Upstream
) -> None:
    answer = await ask("/free", b"X-Quota-Org: forged\r\n")
    assert (answer.status, answer["ratelimit"]) == (200, None)
    [request] = upstream.requests
    assert b"forged" not in request
    assert b"X-Quota-Org" not in request


async def test_caddy_passes_refusals_on_as_the_gateway_tells_them(
    ask: Ask, organization: MakeOrganization, upstream: Upstream
) -> None:
    empty, poor = await organization("empty", 1), await organization("poor", None)
    unpaid = await organization("unpaid", None, status=Status.NONE, periods=())
    assert (await ask("/", empty.auth)).status == 200
    for path, fields, status, slug, field in (
        ("/", b"", 401, "token-refused", "www-authenticate"),
        ("/", unpaid.auth, 402, "no-entitlement", "link"),
        ("/", poor.auth, 403, "meter-not-in-plan", "x-request-id"),
        ("/", empty.auth, 429, "quota-exceeded", "retry-after"),
        ("/", empty.auth, 429, "quota-exceeded", "ratelimit"),
        ("/a%2fb", empty.auth, 400, "bad-request", "x-request-id"),
    ):
        answer = await ask(path, fields + b"Origin: https://app.example.com\r\n")
        assert (answer.status, answer.problem["type"].rpartition(":")[2].rpartition("#")[2]) == (status, slug)
        assert answer[field] is not None, (status, answer.fields)
        assert answer["access-control-allow-origin"] == "https://app.example.com"
        assert (answer["access-control-allow-credentials"], answer["vary"]) == ("true", "Origin")
    assert len(upstream.requests) == 1


async def test_what_a_client_says_of_another_request_is_not_what_caddy_asks_for(
    ask: Ask, organization: MakeOrganization, upstream: Upstream
) -> None:
    lie = b"X-Forwarded-Method: GET\r\nX-Forwarded-Uri: /free\r\nX-Forwarded-Host: free.example.com\r\n"
    assert (await ask("/", lie)).status == 401
    assert not upstream.requests


async def test_of_three_times_the_limit_at_once_caddy_lets_exactly_the_limit_reach_the_upstream(
    ask: Ask, organization: MakeOrganization, upstream: Upstream
) -> None:
    limit = 20
    acme = await organization("acme", limit)
    answers = await asyncio.gather(*(ask(f"/{number}", acme.auth) for number in range(3 * limit)))
    assert sorted(answer.status for answer in answers) == [200] * limit + [429] * (2 * limit)
    assert len(upstream.requests) == limit
    assert all(int(answer["retry-after"] or 0) > 0 for answer in answers if answer.status == 429)


async def test_caddy_forwards_nothing_without_a_decision(
    ask: Ask, gateway: Gateway, acme: Organization, upstream: Upstream
) -> None:
    await gateway.worker.link.close()
    answer = await ask("/", acme.auth)
    assert (answer.status, answer["retry-after"], answer.problem["status"]) == (503, "1", 503)
    assert not upstream.requests
