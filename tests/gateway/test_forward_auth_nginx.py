"""Forward-auth as a real nginx does it, with the configuration that docs/forward-auth.md tells its readers to use."""

import asyncio
import json
import re
import shutil
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from devstack.ports import free_port
from quota.model import Status
from tests.gateway.rig import Answer, Connect, Gateway, MakeOrganization, Organization, StartGateway, Upstream

NGINX = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
DOCUMENT = Path(__file__).parents[2] / "docs" / "forward-auth.md"
MAIN = """
daemon off; master_process off; worker_processes 1; pid {directory}/nginx.pid; error_log {directory}/error.log;
events {{ worker_connections 512; }}
http {{
    access_log off;
    client_body_temp_path {directory}/body; proxy_temp_path {directory}/proxy; fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi; scgi_temp_path {directory}/scgi;
{documented}
}}
"""

pytestmark = pytest.mark.skipif(NGINX is None, reason="nginx is not installed")

Ask = Callable[..., Awaitable[Answer]]


def documented(gateway_port: int, api_port: int, port: int) -> str:
    """The configuration of the document, with this test's addresses."""
    blocks = re.findall(r"```nginx\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    assert len(blocks) == 1
    text: str = blocks[0]
    for written, replacement in (
        ("server 127.0.0.1:8080;", f"server 127.0.0.1:{gateway_port};"),
        ("server 127.0.0.1:9000;", f"server 127.0.0.1:{api_port};"),
        ("listen 80;", f"listen 127.0.0.1:{port};"),
    ):
        assert text.count(written) == 1
        text = text.replace(written, replacement)
    return text


def with_tokens(text: str) -> str:
    """With the document's lines for tokens that do not come by Authorization."""
    [lines] = re.findall(r"```conf\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    before = "        proxy_set_header Host $http_host;\n"
    assert text.count(before) == 1
    return text.replace(before, before + lines)


def started(*argv: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(argv, stderr=subprocess.DEVNULL)


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
    """Asks nginx, which asks the gateway and forwards to the upstream."""
    async with asking(gateway, upstream, tmp_path, connect) as request:
        yield request


@asynccontextmanager
async def asking(
    gateway: Gateway, upstream: Upstream, tmp_path: Path, connect: Connect, more: Callable[[str], str] = str
) -> AsyncIterator[Ask]:
    assert NGINX is not None
    port = free_port()
    file = tmp_path / "nginx.conf"
    text = more(documented(gateway.port, upstream.port, port))
    file.write_text(MAIN.format(directory=tmp_path, documented=text))
    errors = tmp_path / "error.log"
    process = started(NGINX, "-c", str(file), "-e", str(errors))

    async def request(path: str, fields: bytes = b"", method: str = "GET") -> Answer:
        client = await connect(port)
        return await client.ask(f"{method} {path} HTTP/1.1\r\nHost: api.example.com\r\n".encode() + fields + b"\r\n")

    try:
        async with asyncio.timeout(60):
            while True:
                assert process.poll() is None, errors.read_text()
                try:
                    await (await connect(port)).close()
                    break
                except OSError:
                    await asyncio.sleep(0.01)
        yield request
    finally:
        process.terminate()
        process.wait(10)


async def test_nginx_forwards_what_is_admitted_and_copies_the_ratelimit_fields(
    ask: Ask, acme: Organization, upstream: Upstream
) -> None:
    answer = await ask("/a/../v1//x?q=1", acme.auth + b"X-Quota-Org: forged\r\n")
    assert (answer.status, answer.body, answer.remaining) == (200, b"ok", 99)
    assert "api_calls" in (answer["ratelimit-policy"] or "")
    [request] = upstream.requests
    assert request.startswith(b"GET /v1/x?q=1 HTTP/1")
    assert b"X-Quota-Org: acme\r\n" in request
    assert b"forged" not in request
    assert (answer["x-request-id"] or "").encode() in request
    assert await acme.used() == 1


async def test_nginx_forwards_an_exempt_route_without_token_and_without_an_organization(
    ask: Ask, upstream: Upstream
) -> None:
    answer = await ask("/free", b"X-Quota-Org: forged\r\n")
    assert (answer.status, answer["ratelimit"]) == (200, None)
    assert b"X-Quota-Org" not in upstream.requests[0]


async def test_nginx_answers_refusals_with_their_own_status_fields_and_problem_document(
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


async def test_of_three_times_the_limit_at_once_nginx_lets_exactly_the_limit_reach_the_upstream(
    ask: Ask, organization: MakeOrganization, upstream: Upstream
) -> None:
    limit = 20
    acme = await organization("acme", limit)
    answers = await asyncio.gather(*(ask(f"/{number}", acme.auth) for number in range(3 * limit)))
    assert sorted(answer.status for answer in answers) == [200] * limit + [429] * (2 * limit)
    assert len(upstream.requests) == limit
    assert all(int(answer["retry-after"] or 0) > 0 for answer in answers if answer.status == 429)


async def test_nginx_answers_503_and_forwards_nothing_without_a_decision(
    ask: Ask, gateway: Gateway, acme: Organization, upstream: Upstream
) -> None:
    await gateway.worker.link.close()
    answer = await ask("/", acme.auth)
    assert (answer.status, json.loads(answer.body)["status"]) == (503, 503)
    assert answer["retry-after"] == "1"
    assert not upstream.requests


async def test_nginx_forwards_no_token_that_came_by_a_cookie_a_field_or_the_query(
    start: StartGateway, acme: Organization, upstream: Upstream, tmp_path: Path, connect: Connect
) -> None:
    tokens = {"header": "X-Access-Token", "cookie": "session", "query": "access_token"}
    routes = [{"path": "/", "upstream": "api", "tokens": tokens}]
    gateway = await start(routes=routes, forward_auth={"trusted": ["127.0.0.1"]})
    async with asking(gateway, upstream, tmp_path, connect, with_tokens) as ask:
        for path, fields in (
            ("/v1?a=1", f"Cookie: a=1; session={acme.token}\r\n"),
            ("/v1?a=1", f"X-Access-Token: {acme.token}\r\nCookie: a=1\r\n"),
            (f"/v1?a=1&access_token={acme.token}", "Cookie: a=1\r\n"),
        ):
            assert (await ask(path, fields.encode())).status == 200
            assert acme.token.encode() not in upstream.requests[-1]
            assert upstream.requests[-1].startswith(b"GET /v1?a=1 HTTP/1")
            assert b"Cookie: a=1\r\n" in upstream.requests[-1]
    assert await acme.used() == 3
