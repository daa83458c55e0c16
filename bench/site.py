"""Proxies side by side on loopback, with their upstream and one Valkey.

The proxy under test has a core of its own where there are two; clients, upstream and Valkey share the other. All
proxies write a line for each request into a file, ten times a second, and talk to the same upstream.
"""

import asyncio
import json
import os
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import redis

from bench.configs import ANSWERING, BALANCER, BODY, FRONT, GATEWAY, LUA, LUA_MODULES, NGINX, PLAIN, SIZES, TLS
from bench.harness import PROXY_CORE, REST_CORE, children, exit_on_sigterm, listens
from bench.traffic import ISSUER, ORG, ORGS, SECRET, SPENT_ORG, SPENT_ORGS, api_key, key_id
from common import redis_connections
from devstack import valkey, valkey_cluster
from devstack.child import Child, spawn, stopping
from devstack.ports import free_port
from devstack.sample_process import answers
from quota.access import AccessChanges, KeyRecord, digest16
from quota.ledger import Ledger
from quota.model import Entitlement, MeterLimit, Status
from quota.periods import CALENDAR_ANCHOR, monthly_periods
from quota.scripts import script

START_SECONDS = 20
METER = "api_calls"
HERE = Path(__file__).parent
AUTH: Mapping[str, Any] = {"algorithms": ["HS256"], "secret": SECRET, "issuer": ISSUER}
"""Of a gateway's settings, for the tokens of bench/traffic.py."""


@dataclass(frozen=True, slots=True)
class Proxy:
    port: int
    worker: int
    """The pid of the process that does the work; the first one's of several."""
    workers: tuple[int, ...]
    runs: str = ""
    """As what a gateway runs: compiled or not, in its own words."""
    scheme: str = "http"


async def publish(redis_url: str) -> None:
    async with redis_connections.client(redis_url) as redis:
        ledger = Ledger(redis)
        await ledger.check_layout()
        await redis.script_load(script("take").source)
        periods = monthly_periods(CALENDAR_ANCHOR, time.time())
        allowances = dict.fromkeys((ORG, *ORGS), 10**12) | dict.fromkeys((SPENT_ORG, *SPENT_ORGS), 1)
        for org, allowance in allowances.items():
            meters = (MeterLimit(METER, allowance),)
            access = AccessChanges(None, {digest16(api_key(org)): KeyRecord(key_id(org))})
            await ledger.publish(Entitlement(org, 1, Status.ACTIVE, meters=meters, periods=periods), access=access)


def started_line(log: Path) -> dict[str, Any]:
    """What a gateway's log says when it listens; empty until it does."""
    lines = (
        json.loads(line)
        for line in log.read_text().splitlines(keepends=True)
        if line.startswith("{") and line.endswith("}\n")
    )
    return next((line for line in lines if line.get("message") == "listening"), {})


class Site:
    """One run's processes, all of which end with it. Start what is needed, in any order."""

    def __init__(self, python: str = sys.executable) -> None:
        """`python` runs the gateway."""
        self._stack = ExitStack()
        self._python = python
        self.redis_url = ""

    def __enter__(self) -> Self:
        self.directory = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="quotagate-bench-")))
        self.directory.chmod(0o755)  # nginx's worker may be another user
        os.sched_setaffinity(0, {REST_CORE})  # Valkey inherits it
        exit_on_sigterm()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def redis(self) -> str:
        """The URL of a Valkey that knows both organizations."""
        self.redis_url = self._stack.enter_context(valkey.running(self.directory / "valkey"))
        asyncio.run(publish(self.redis_url))
        return self.redis_url

    def cluster(self) -> str:
        """The URL of a Cluster that knows the same, of three primaries with a replica each."""
        nodes = valkey_cluster.running(self.directory / "cluster", settings=valkey.NOTHING_WRITTEN, durable=False)
        url = valkey_cluster.url(self._stack.enter_context(nodes))
        asyncio.run(publish(url))
        return url

    def redis_pid(self) -> int:
        with redis.Redis.from_url(self.redis_url) as client:
            info: Any = client.info("server")
        return int(info["process_id"])

    def upstream(self) -> Proxy:
        """An nginx that answers every request at once."""
        port, files = free_port(), self.directory / "files"
        files.mkdir()
        for name, size in SIZES.items():
            (files / name).write_bytes(b"x" * size)
        return self._nginx(
            "upstream", port, ANSWERING.format(port=port, body=BODY, directory=self.directory), REST_CORE
        )

    def plain(self, upstream: int, directives: str = "") -> Proxy:
        port = free_port()
        http = PLAIN.format(port=port, upstream=upstream, log=self._log("plain"), directives=directives)
        return self._nginx("plain", port, http)

    def plain_secured(self, upstream: int, certificate: Path) -> Proxy:
        """The same with TLS."""
        port = free_port()
        http = PLAIN.format(port=port, upstream=upstream, log=self._log("secured"), directives="")
        http = http.replace(" backlog=", " ssl backlog=") + TLS.format(certificate=certificate)
        return replace(self._nginx("secured", port, http), scheme="https")

    def front(self, socket: Path, certificate: Path) -> Proxy:
        """An nginx that speaks HTTP/2 and leads to a gateway at a Unix socket, as docs/http2.md has it."""
        port = free_port()
        http = FRONT.format(port=port, socket=socket, log=self._log("front")) + TLS.format(certificate=certificate)
        return replace(self._nginx("front", port, http), scheme="https")

    def balancer(self, gateways: Sequence[int], name: str) -> Proxy:
        """An nginx that shares requests among the gateways at these ports."""
        port = free_port()
        servers = " ".join(f"server 127.0.0.1:{each};" for each in gateways)
        return self._nginx(name, port, BALANCER.format(port=port, servers=servers), REST_CORE)

    def certificate(self) -> Path:
        """Its key in the same file: ECDSA on P-256, which most sites have."""
        file = self.directory / "site.pem"
        make = "openssl req -x509 -nodes -newkey ec -pkeyopt ec_paramgen_curve:P-256 -days 30 -subj /CN=bench"
        command = [*make.split(), "-keyout", str(file), "-out", "-"]
        shown = subprocess.run(command, capture_output=True, check=True).stdout
        file.write_bytes(shown + file.read_bytes())
        return file

    def lua(self, upstream: int) -> Proxy:
        port, take = free_port(), self.directory / "take.lua"
        take.write_bytes(script("take").source)
        http = LUA.format(
            port=port,
            upstream=upstream,
            log=self._log("lua"),
            here=HERE,
            secret=SECRET,
            issuer=ISSUER,
            redis_port=self.redis_url.rsplit(":", 1)[1].split("/")[0],
            sha=script("take").sha,
            script=take,
        )
        return self._nginx("lua", port, http, modules=LUA_MODULES)

    def gateway(
        self,
        upstream: int,
        name: str = "gateway",
        workers: int = 1,
        cores: Collection[int] = (PROXY_CORE,),
        env: Mapping[str, str] | None = None,
        auth: Mapping[str, Any] = AUTH,
        listen: Mapping[str, Any] | None = None,
        redis_url: str = "",
    ) -> Proxy:
        """`auth` and `listen`: the blocks of those names of its settings. `redis_url`: of another Redis than `redis`
        has started."""
        listen = listen or {}
        port, config = free_port(), self.directory / f"{name}.yaml"
        text = GATEWAY.format(
            redis=redis_url or self.redis_url, auth=json.dumps(auth), upstream=upstream, log=self._log(name)
        )
        config.write_text(f"{text}listen: {json.dumps({'port': port, **listen})}\nforwarded: {{trusted: [unix]}}\n")
        argv = [self._python, "-m", "quotagate", "gateway", "--config", str(config)]
        argv += ["--workers", str(workers)]
        # Another interpreter of the same version runs with what is installed for this one.
        path = {"PYTHONPATH": os.pathsep.join((str(HERE.parent), sysconfig.get_path("purelib")))}
        child = self._start(name, argv, cores, path | dict(env or {}))
        child.wait_until(lambda: "runs" in started_line(child.log), START_SECONDS)
        if not listen:
            child.wait_until(lambda: answers(port, "/-/ready"), START_SECONDS)
        # The last ones: Python's multiprocessing starts a helper of its own before the workers.
        pids = children(child.process.pid)[-workers:]
        scheme = "https" if "tls" in listen else "http"
        return Proxy(port, pids[0], tuple(pids), started_line(child.log)["runs"], scheme)

    def _nginx(self, name: str, port: int, http: str, core: int = PROXY_CORE, modules: str = "") -> Proxy:
        config = self.directory / f"{name}.conf"
        config.write_text(NGINX.format(directory=self.directory, name=name, http=http, modules=modules))
        child = self._start(name, ("nginx", "-c", str(config), "-e", "stderr"), (core,))
        # The master listens before it has its worker.
        child.wait_until(lambda: listens(port) and bool(children(child.process.pid)), START_SECONDS)
        pids = children(child.process.pid)
        return Proxy(port, pids[0], tuple(pids))

    def _start(
        self, name: str, argv: Sequence[str], cores: Collection[int], env: Mapping[str, str] | None = None
    ) -> Child:
        child = spawn(
            name, ["taskset", "-c", ",".join(map(str, cores)), *argv], log=self.directory / f"{name}.err", env=env
        )
        return self._stack.enter_context(stopping(child))

    def _log(self, name: str) -> Path:
        return self.directory / f"{name}.log"
