"""HTTP/2 by a proxy in front, with the configurations that docs/http2.md tells its readers to use."""

import asyncio
import os
import re
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from devstack.child import spawn, stopping
from devstack.ports import free_port
from tests.authority import Authority
from tests.gateway.request_heads import fields
from tests.gateway.rig import Organization, StartGateway, Upstream
from tests.gateway.test_forward_auth_nginx import MAIN as NGINX_MAIN

DOCUMENT = Path(__file__).parents[2] / "docs" / "http2.md"
PATHS = f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin"
CURL, NGINX, CADDY = (shutil.which(name, path=PATHS) for name in ("curl", "nginx", "caddy"))
NAME = "api.example.com"


def documented(kind: str, *changes: tuple[str, str]) -> str:
    """A configuration of the document, with this test's addresses and files."""
    [text] = re.findall(rf"```{kind}\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    for written, replacement in changes:
        assert text.count(written) == 1, written
        text = text.replace(written, replacement)
    return str(text)


def nginx(directory: Path, socket: Path, certificate: Path, port: int) -> list[str]:
    text = documented(
        "nginx",
        ("/run/quotagate/gateway.sock", str(socket)),
        ("listen 443 ssl", f"listen 127.0.0.1:{port} ssl"),
        ("/etc/nginx/api.example.com.pem", str(certificate)),
        ("/etc/nginx/api.example.com.key", str(certificate)),
    )
    file = directory / "nginx.conf"
    file.write_text(NGINX_MAIN.format(directory=directory, documented=text))
    return [str(NGINX), "-c", str(file), "-e", "stderr"]


def caddy(directory: Path, socket: Path, certificate: Path, port: int) -> list[str]:
    text = documented(
        "caddy",
        ("/run/quotagate/gateway.sock", str(socket)),
        ("api.example.com {", f"https://{NAME}:{port} {{\n\tbind 127.0.0.1\n\ttls {certificate} {certificate}"),
    )
    file = directory / "Caddyfile"
    file.write_text("{\n\tadmin off\n\tauto_https off\n}\n" + text)
    return [str(CADDY), "run", "--adapter", "caddyfile", "--config", str(file)]


Ask = Callable[..., Awaitable[tuple[str, bytes]]]


@pytest.fixture(
    params=[
        pytest.param(nginx, marks=pytest.mark.skipif(not (NGINX and CURL), reason="nginx or curl is not installed")),
        pytest.param(caddy, marks=pytest.mark.skipif(not (CADDY and CURL), reason="caddy or curl is not installed")),
    ]
)
async def ask(
    request: pytest.FixtureRequest, start: StartGateway, authority: Authority, tmp_path: Path
) -> AsyncIterator[Ask]:
    """Asks the proxy by HTTP/2: the version and status of the answer, and its body."""
    socket, port = tmp_path / "gateway.sock", free_port()
    await start(listen={"socket": str(socket)}, forwarded={"trusted": ["unix"]})
    argv = request.param(tmp_path, socket, authority.issue(NAME), port)
    homes = {"HOME": str(tmp_path), "XDG_DATA_HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path)}

    async def curl(path: str, *options: str) -> tuple[str, bytes]:
        at = ["--resolve", f"{NAME}:{port}:127.0.0.1", "--cacert", str(authority.ca_file), "--http2", "--path-as-is"]
        told = ["-s", "-w", "%{stderr}%{http_version} %{http_code}", "--max-time", "30"]
        url = f"https://{NAME}:{port}{path}"
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            str(CURL), *at, *told, *options, url, stdin=asyncio.subprocess.DEVNULL, stdout=pipe, stderr=pipe
        )
        body, line = await process.communicate()
        return line.decode(), body

    with stopping(spawn("proxy", argv, log=tmp_path / "proxy.log", env=homes)) as child:
        async with asyncio.timeout(60):
            while (await curl("/-/live"))[0].endswith(" 000"):
                assert child.exit_code is None, child.log.read_text()
                await asyncio.sleep(0.02)
        yield curl


async def test_requests_by_http_2_are_charged_and_upstreams_are_told_of_the_client(
    ask: Ask, acme: Organization, upstream: Upstream, tmp_path: Path
) -> None:
    body = tmp_path / "sent"
    body.write_bytes(b"x" * 300_000)
    auth = acme.auth.decode().strip()
    spoofed = ["-H", "X-Forwarded-For: 203.0.113.9", "-H", "Forwarded: for=203.0.113.9", "-H", "X-Forwarded-Host: evil"]
    assert await ask("/a/%2e%2e/b?c", "-H", auth, *spoofed) == ("2 200", b"ok")
    told = fields(upstream.requests[-1].replace(b"Via: 2.0 Caddy\r\n", b""))  # beside the gateway's own
    assert told["x-forwarded-for"] == "127.0.0.1"
    assert told["x-forwarded-proto"] == "https"
    assert told["x-forwarded-host"].startswith(NAME)
    assert "203.0.113.9" not in upstream.requests[-1].decode()
    assert upstream.requests[-1].startswith(b"GET /b?c HTTP/1.1\r\n")
    assert (await ask("/", "-H", auth, "--data-binary", f"@{body}"))[0] == "2 200"
    assert upstream.requests[-1].endswith(b"x" * 300_000)
    assert (await ask("/"))[0] == "2 401"
    assert await acme.used() == 2
