"""Proxies in front of the gateway, as docs/http2.md and deploy/proxies/ set them up: each is run with what is written
there, but for addresses and files."""

import asyncio
import os
import re
import shutil
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from devstack.child import spawn, stopping
from devstack.ports import free_port
from tests.authority import Authority
from tests.gateway.rig import Organization, StartGateway, Upstream

ROOT = Path(__file__).parents[2]
PROGRAMS = f"{ROOT}/.venv/deploy/bin:{os.environ.get('PATH', '')}:/usr/sbin"
NAME = "api.example.com"
START_SECONDS = 60


@dataclass(frozen=True)
class Place:
    """Where one test has what the files name."""

    directory: Path
    port: int
    gateway_port: int
    certificate: Path

    @property
    def socket(self) -> str:
        return f"{self.directory}/gateway.sock"

    def write(self, name: str, text: str, changes: Mapping[str, str]) -> Path:
        """Each of the changes is one of a thing that is written there."""
        for written, here in {**changes, f"{NAME}.key": f"{NAME}.pem"}.items():
            assert written in text or written == f"{NAME}.key", written
            text = text.replace(written, here)
        text = re.sub(rf"/etc/\w+/{NAME}\.pem", str(self.certificate), text)
        file = self.directory / name
        file.write_text(text)
        return file


def documented(language: str) -> str:
    blocks: list[str] = re.findall(rf"```{language}\n(.*?)```", (ROOT / "docs/http2.md").read_text(), re.DOTALL)
    assert len(blocks) == 1
    return blocks[0]


def nginx(place: Place) -> list[str]:
    text = documented("nginx")
    changes = {"/run/quotagate/gateway.sock": place.socket, "listen 443": f"listen 127.0.0.1:{place.port}"}
    own = "user root; " if os.geteuid() == 0 else ""  # who may open the socket
    main = f"{own}pid {place.directory}/pid; error_log stderr; daemon off; worker_processes 1; events {{}}\n"
    bodies = (
        f"access_log off; client_body_temp_path {place.directory}/bodies; proxy_temp_path {place.directory}/proxied;\n"
    )
    file = place.write("nginx.conf", f"{main}http {{ {bodies}{text} }}\n", changes)
    return ["nginx", "-c", str(file)]


def caddy(place: Place) -> list[str]:
    own = f"{NAME}:{place.port} {{\n\tbind 127.0.0.1\n\ttls {place.certificate} {place.certificate}"
    changes = {f"{NAME} {{": own, "/run/quotagate/gateway.sock": place.socket}
    file = place.write("Caddyfile", f"{{\n\tadmin off\n\tauto_https off\n}}\n{documented('caddy')}", changes)
    return ["caddy", "run", "--adapter", "caddyfile", "--config", str(file)]


def traefik(place: Place) -> list[str]:
    changes = {"10.0.0.11:8080": f"127.0.0.1:{place.gateway_port}"}
    dynamic = place.write("quotagate.yaml", (ROOT / "deploy/proxies/traefik-quotagate.yaml").read_text(), changes)
    changes = {'":443"': f"127.0.0.1:{place.port}", "/etc/traefik/quotagate.yaml": str(dynamic)}
    file = place.write("traefik.yaml", (ROOT / "deploy/proxies/traefik.yaml").read_text(), changes)
    return ["traefik", f"--configfile={file}"]


def envoy(place: Place) -> list[str]:
    changes = {
        "0.0.0.0, port_value: 443": f"127.0.0.1, port_value: {place.port}",
        "/run/quotagate/gateway.sock": place.socket,
    }
    file = place.write("envoy.yaml", (ROOT / "deploy/proxies/envoy.yaml").read_text(), changes)
    return ["envoy", "-c", str(file), "--disable-hot-restart", "--concurrency", "1", "--log-level", "warning"]


PROXIES: dict[str, Callable[[Place], list[str]]] = {"nginx": nginx, "caddy": caddy, "traefik": traefik, "envoy": envoy}


@dataclass(frozen=True)
class Front:
    place: Place
    ca_file: Path

    async def curl(self, *words: str, path: str = "/v1") -> str:
        argv = ["curl", "--silent", "--show-error", "--max-time", "30", "--path-as-is", "--cacert", str(self.ca_file)]
        where = ["--connect-to", f"{NAME}:443:127.0.0.1:{self.place.port}"]
        process = await asyncio.create_subprocess_exec(
            *argv, *where, *words, f"https://{NAME}{path}",
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        output, _ = await process.communicate()
        return output.decode().replace("\r", "")


@pytest.fixture(params=list(PROXIES))
async def front(
    request: pytest.FixtureRequest, start: StartGateway, tmp_path: Path, authority: Authority
) -> AsyncIterator[Front]:
    kind: str = request.param
    program = shutil.which(kind, path=PROGRAMS)
    if program is None or shutil.which("curl") is None:
        pytest.skip(f"needs curl and {kind}: make deploy-tools")
    routes = [{"path": "/", "upstream": "api"}, {"path": "/pkg", "upstream": "api", "encoded_slash": "keep"}]
    if kind == "traefik":
        gateway = await start(routes=routes, forwarded={"trusted": ["127.0.0.1/32"]})
    else:
        listen = {"socket": f"{tmp_path}/gateway.sock"}
        gateway = await start(routes=routes, listen=listen, forwarded={"trusted": ["unix"]})
    place = Place(tmp_path, free_port(), gateway.port, authority.issue(NAME))
    front = Front(place, authority.ca_file)
    argv = [program, *PROXIES[kind](place)[1:]]
    homes = {"HOME": str(tmp_path), "XDG_DATA_HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path)}
    with stopping(spawn(kind, argv, log=tmp_path / f"{kind}.log", env=homes)) as child:
        async with asyncio.timeout(START_SECONDS):
            while "401" not in await front.curl("--head"):  # from the gateway: there is no token
                assert child.exit_code is None, child.log.read_text()
                await asyncio.sleep(0.05)
        yield front


async def test_http_2_is_charged_with_the_clients_address_and_nothing_that_a_client_says_of_itself(
    front: Front, acme: Organization, upstream: Upstream
) -> None:
    lies = ("-H", "X-Forwarded-For: 203.0.113.9", "-H", "Forwarded: for=203.0.113.9", "-H", "X-Forwarded-Host: evil")
    token = ("-H", f"Authorization: Bearer {acme.token}")
    answer = await front.curl("--http2", "--include", *token, *lies)
    assert answer.startswith("HTTP/2 200")
    assert 'ratelimit: "api_calls";r=99;' in answer
    head = upstream.requests[-1].decode().lower()
    assert "203.0.113.9" not in head
    assert "evil" not in head
    # Of who comes from this machine Envoy tells an outer address of it.
    assert re.search(r"\r\nx-forwarded-for: [0-9.]+(, 127\.0\.0\.1)?\r\n", head)
    assert "\r\nx-forwarded-proto: https\r\n" in head
    assert f"\r\nx-forwarded-host: {NAME}" in head
    assert f"\r\nhost: {NAME}" in head
    # A path arrives as it was written, and a body whole.
    await front.curl("--http2", *token, "--data-binary", "x" * 100_000, path="/pkg/@scope%2Fname")
    assert upstream.requests[-1].startswith(b"POST /pkg/@scope%2Fname HTTP/1.1\r\n")
    old = await front.curl("--http1.1", "--include", *token)
    assert old.startswith("HTTP/1.1 200")
    assert 'ratelimit: "api_calls";r=97;' in old.lower()
