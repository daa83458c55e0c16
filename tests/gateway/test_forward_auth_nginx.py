"""Forward-auth as a real nginx does it, with the configuration that docs/forward-auth.md tells its readers to use."""

import asyncio
import json
import re
import shutil
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from devstack.ports import free_port
from quota.model import Status

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

Ask = Callable[..., Awaitable[Any]]


def documented(gateway_port: int, api_port: int, port: int) -> str:
    """The configuration of the document, with this test's addresses."""
    blocks = re.findall(r"```nginx\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    assert len(blocks) == 1
    text: str = blocks[0]
    for told, here in (
        ("server 127.0.0.1:8080;", f"server 127.0.0.1:{gateway_port};"),
        ("server 127.0.0.1:9000;", f"server 127.0.0.1:{api_port};"),
        ("listen 80;", f"listen 127.0.0.1:{port};"),
    ):
        assert text.count(told) == 1
        text = text.replace(told, here)
    return text


def started(*argv: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(argv, stderr=subprocess.DEVNULL)


@pytest.fixture
async def gateway(start: Any) -> Any:
    return await start(
        routes=[{"path": "/", "upstream": "api"}, {"path": "/free", "upstream": "api", "exempt": True}],
        forward_auth={"trusted": ["127.0.0.1"]},
        cors={"allowed_origins": ["https://app.example.com"]},
        upgrade_url="https://example.com/upgrade",
    )


@pytest.fixture
async def ask(gateway: Any, upstream: Any, tmp_path: Path, connect: Any) -> AsyncIterator[Ask]:
    """Asks nginx, which asks the gateway and forwards to the upstream."""
    assert NGINX is not None
    port = free_port()
    file = tmp_path / "nginx.conf"
    file.write_text(MAIN.format(directory=tmp_path, documented=documented(gateway.port, upstream.port, port)))
    errors = tmp_path / "error.log"
    process = started(NGINX, "-c", str(file), "-e", str(errors))

    async def request(path: str, fields: bytes = b"", method: str = "GET") -> Any:
        client = await connect(port)
        return await client.ask(f"{method} {path} HTTP/1.1\r\nHost: api.example.com\r\n".encode() + fields + b"\r\n")

    try:
        async with asyncio.timeout(10):
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
    ask: Ask, acme: Any, upstream: Any
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
    ask: Ask, upstream: Any
) -> None:
    answer = await ask("/free", b"X-Quota-Org: forged\r\n")
    assert (answer.status, answer["ratelimit"]) == (200, None)
    assert b"X-Quota-Org" not in upstream.requests[0]


async def test_nginx_answers_refusals_with_their_own_status_fields_and_problem_document(
    ask: Ask, organization: Any, upstream: Any
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
    assert len(upstream.requests) == 1


async def test_of_three_times_the_limit_at_once_nginx_lets_exactly_the_limit_reach_the_upstream(
    ask: Ask, organization: Any, upstream: Any
) -> None:
    limit = 20
    acme = await organization("acme", limit)
    answers = await asyncio.gather(*(ask(f"/{number}", acme.auth) for number in range(3 * limit)))
    assert sorted(answer.status for answer in answers) == [200] * limit + [429] * (2 * limit)
    assert len(upstream.requests) == limit
    assert all(int(answer["retry-after"]) > 0 for answer in answers if answer.status == 429)


async def test_nginx_answers_503_and_forwards_nothing_without_a_decision(
    ask: Ask, gateway: Any, acme: Any, upstream: Any
) -> None:
    await gateway.worker.link.close()
    answer = await ask("/", acme.auth)
    assert (answer.status, json.loads(answer.body)["status"]) == (503, 503)
    assert answer["retry-after"] == "1"
    assert not upstream.requests
