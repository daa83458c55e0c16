"""Forward-auth as real Traefik and Envoy do it, with what docs/forward-auth.md tells their readers to use."""

import asyncio
import re
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from devstack.child import spawn, stopping
from devstack.ports import free_port
from tests.gateway.rig import Answer, Connect, MakeOrganization, Organization, StartGateway, Upstream

ROOT = Path(__file__).parents[2]
TOOLS = ROOT / ".venv/deploy/bin"  # make deploy-tools
Ask = Callable[..., Awaitable[Answer]]


def documented(heading: str) -> Any:
    section = (ROOT / "docs/forward-auth.md").read_text().partition(f"## {heading}\n")[2]
    block = re.search(r"```yaml\n(.*?)```", section, re.DOTALL)
    assert block is not None
    return yaml.safe_load(block[1])


def traefik(directory: Path, port: int, gateway_port: int, api_port: int) -> list[str]:
    dynamic = documented("Traefik")
    auth = dynamic["http"]["middlewares"]["quota"]["forwardAuth"]
    auth["address"] = auth["address"].replace("quotagate:8080", f"127.0.0.1:{gateway_port}")
    dynamic["http"]["routers"] = {"api": {"rule": "PathPrefix(`/`)", "service": "api", "middlewares": ["quota"]}}
    server = {"url": f"http://127.0.0.1:{api_port}"}
    dynamic["http"]["services"] = {"api": {"loadBalancer": {"servers": [server]}}}
    (directory / "dynamic.yaml").write_text(yaml.safe_dump(dynamic))
    static = {
        "entryPoints": {"http": {"address": f"127.0.0.1:{port}"}},
        "providers": {"file": {"filename": f"{directory}/dynamic.yaml"}},
    }
    (directory / "traefik.yaml").write_text(yaml.safe_dump(static))
    return [f"--configfile={directory}/traefik.yaml"]


def envoy(directory: Path, port: int, gateway_port: int, api_port: int) -> list[str]:
    of_proxies = yaml.safe_load((ROOT / "deploy/proxies/envoy.yaml").read_text())["static_resources"]
    listener = of_proxies["listeners"][0]
    listener["address"] = address(port)
    [chain] = listener["filter_chains"]
    del chain["transport_socket"]
    http = chain["filters"][0]["typed_config"]
    http["http_filters"] = [*documented("Envoy")["http_filters"], *http["http_filters"]]
    http["route_config"]["virtual_hosts"][0]["routes"][0]["route"]["cluster"] = "api"
    clusters = []
    for name, at in (("quotagate", gateway_port), ("api", api_port)):
        endpoints = [{"lb_endpoints": [{"endpoint": {"address": address(at)}}]}]
        load = {"cluster_name": name, "endpoints": endpoints}
        clusters.append({"name": name, "type": "STATIC", "connect_timeout": "2s", "load_assignment": load})
    file = directory / "envoy.yaml"
    file.write_text(yaml.safe_dump({"static_resources": {"listeners": [listener], "clusters": clusters}}))
    return ["-c", str(file), "--disable-hot-restart", "--concurrency", "1", "--log-level", "warning"]


def address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


PROXIES = {"traefik": traefik, "envoy": envoy}


@pytest.fixture(params=list(PROXIES))
def kind(request: pytest.FixtureRequest) -> str:
    kind: str = request.param
    if shutil.which(kind, path=str(TOOLS)) is None:
        pytest.skip(f"needs {kind}: make deploy-tools")
    return kind


@pytest.fixture
async def ask(
    kind: str, start: StartGateway, upstream: Upstream, tmp_path: Path, connect: Connect
) -> AsyncIterator[Ask]:
    gateway = await start(
        routes=[{"path": "/", "upstream": "api"}, {"path": "/free", "upstream": "api", "exempt": True}],
        forward_auth={"trusted": ["127.0.0.1"]},
    )
    port = free_port()
    argv = [str(TOOLS / kind), *PROXIES[kind](tmp_path, port, gateway.port, upstream.port)]

    async def request(path: str, fields: bytes = b"", body: bytes = b"") -> Answer:
        client = await connect(port)
        head = f"POST {path} HTTP/1.1\r\nHost: api.example.com\r\nContent-Length: {len(body)}\r\n"
        return await client.ask(head.encode() + fields + b"\r\n" + body)

    with stopping(spawn(kind, argv, log=tmp_path / f"{kind}.log")) as child:
        async with asyncio.timeout(60):
            while True:
                assert child.exit_code is None, child.log.read_text()
                try:
                    if (await request("/")).status == 401:
                        break
                except (OSError, asyncio.IncompleteReadError):
                    pass
                await asyncio.sleep(0.05)
        yield request


async def test_the_proxy_forwards_what_is_admitted_with_its_organization_and_passes_refusals_on(
    kind: str, ask: Ask, acme: Organization, organization: MakeOrganization, upstream: Upstream
) -> None:
    answer = await ask("/v1/x?q=1", acme.auth + b"X-Quota-Org: forged\r\n", b"x" * 100_000)
    assert (answer.status, answer.body) == (200, b"ok")
    [request] = upstream.requests
    assert request.startswith(b"POST /v1/x?q=1 HTTP/1.1\r\n")
    assert request.lower().count(b"\r\nx-quota-org: acme\r\n") == 1
    assert b"forged" not in request
    assert request.endswith(b"x" * 100_000)
    assert await acme.used() == 1
    if kind == "envoy":
        assert answer.remaining == 99
    free = await ask("/free", b"X-Quota-Org: forged\r\n")
    assert free.status == 200
    assert b"forged" not in upstream.requests[-1]
    empty = await organization("empty", 1)
    assert (await ask("/", empty.auth)).status == 200
    refused = await ask("/", empty.auth)
    assert (refused.status, refused.problem["status"]) == (429, 429)
    assert refused["retry-after"] is not None
    assert (await ask("/")).status == 401
    assert len(upstream.requests) == 3
