"""What benchmarks of whole processes share: proxies side by side on loopback, load from wrk, and what a process used.

The proxy under test has a core of its own where there are two; clients, upstream and Valkey share the other. All
proxies write a line for each request into a file, ten times a second, and talk to the same upstream.
"""

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Self

import jwt
from redis.asyncio import Redis

from devstack import valkey
from devstack.child import Child, spawn, stopping
from devstack.ports import LOOPBACK, free_port
from devstack.sample_process import answers
from quota.ledger import Ledger
from quota.model import Entitlement, MeterLimit, Status
from quota.periods import CALENDAR_ANCHOR, monthly_periods
from quota.scripts import script

SECRET = "a secret for benchmarks, forty characters"
ISSUER = "bench"
ORG, SPENT_ORG = "bench", "spent"  # one with more units than any run needs, one with a single one
METER = "api_calls"
TARGET = "/v1/things?limit=10"
PROXY_CORE, REST_CORE = (0, 1) if (os.cpu_count() or 1) > 1 else (0, 0)
START_SECONDS = 20
HERE = Path(__file__).parent

TOOLS = {"nginx": "nginx", "wrk": "wrk", "taskset": "util-linux"}
"""What must be on the PATH, and Debian's package that brings it."""
LUA_FILES = {
    "/usr/lib/nginx/modules/ngx_http_lua_module.so": "libnginx-mod-http-lua",
    "/usr/lib/nginx/modules/ndk_http_module.so": "libnginx-mod-http-ndk",
    "/usr/share/lua/5.1/nginx/redis.lua": "lua-nginx-redis",
    "/usr/share/lua/5.1/resty/lrucache.lua": "lua-resty-lrucache",
    "/usr/lib/*/lua/5.1/cjson.so": "lua-cjson",
}
"""What nginx + Lua + Redis needs: files as Debian has them, and their packages."""

NGINX = """
{modules}
worker_processes 1; worker_rlimit_nofile 20000; daemon off; pid {directory}/{name}.pid;
events {{ worker_connections 16384; }}
http {{
  keepalive_requests 1000000000; keepalive_timeout 600s; client_max_body_size 0;
  client_body_temp_path {directory}/{name}-b; proxy_temp_path {directory}/{name}-p;
  fastcgi_temp_path {directory}/{name}-f; uwsgi_temp_path {directory}/{name}-u; scgi_temp_path {directory}/{name}-s;
  {http}
}}
"""
ANSWERING = """
  access_log off;
  server {{ listen 127.0.0.1:{port} backlog=4096;
    location / {{ default_type application/json; return 200 '{body}'; }} }}
"""
BODY = '{"ok":true,"padding":"' + "x" * 64 + '"}'
PLAIN = """
  access_log {log} combined buffer=64k flush=100ms;
  upstream api {{ server 127.0.0.1:{upstream}; keepalive 128; keepalive_requests 1000000000; }}
  server {{ listen 127.0.0.1:{port} backlog=4096;
    location / {{
      proxy_pass http://api; proxy_http_version 1.1; proxy_set_header Connection "";
      {directives}
    }} }}
"""
LUA_MODULES = """
load_module modules/ndk_http_module.so;
load_module modules/ngx_http_lua_module.so;
"""
LUA = """
  log_format json escape=json '{{"time":"$time_iso8601","request_id":"$request_id","client":"$remote_addr",'
    '"org":"$quota_org","method":"$request_method","path":"$uri","status":$status,"bytes_in":$request_length,'
    '"bytes_out":$bytes_sent,"duration":$request_time,"upstream":"$upstream_header_time"}}';
  access_log {log} json buffer=64k flush=100ms;
  lua_package_path "{here}/peer/?.lua;;";
  init_by_lua_block {{
    require "resty.core"
    quota = require "quota"
    quota.setup {{
      secret = "{secret}", issuer = "{issuer}", redis_port = {redis_port}, sha = "{sha}", script_path = "{script}",
    }}
  }}
  upstream api {{ server 127.0.0.1:{upstream}; keepalive 128; keepalive_requests 1000000000; }}
  server {{ listen 127.0.0.1:{port} backlog=4096;
    location / {{
      set $quota_org "";
      access_by_lua_block {{ quota.check() }}
      add_header X-Request-Id $request_id always;
      proxy_pass http://api; proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header Host $http_host;
      proxy_set_header X-Forwarded-For $remote_addr;
      proxy_set_header X-Forwarded-Proto $scheme;
      proxy_set_header X-Forwarded-Host $http_host;
      proxy_set_header X-Quota-Org $quota_org;
      proxy_set_header X-Request-Id $request_id;
      proxy_set_header Via "1.1 peer";
    }} }}
"""
GATEWAY = """
redis: {{url: "{redis}", timeout_ms: 2000}}  # a machine that stalls ends no run
access_log: {{path: "{log}"}}
standby: false  # what is measured is the one child
auth: {{algorithms: [HS256], secret: "{secret}", issuer: {issuer}}}
upstreams: {{api: {{url: "http://127.0.0.1:{upstream}"}}}}
timeouts: {{idle_seconds: 600}}
routes:
  - {{path: /, upstream: api}}
  - {{path: /v1/chat, upstream: api, meters: {{api_calls: 1, tokens: 10}}}}
  - {{path: /healthz, upstream: api, exempt: true}}
"""


@dataclass(frozen=True, slots=True)
class Proxy:
    port: int
    worker: int
    """The pid of the process that does the work."""


@dataclass(frozen=True, slots=True)
class Load:
    """What wrk says of one run."""

    requests: int
    requests_per_second: float
    p50_us: int
    p99_us: int


def require(tools: Mapping[str, str] = TOOLS, files: Mapping[str, str] | None = None) -> None:
    """Ends the benchmark with the line that installs what is missing."""
    missing = [package for tool, package in tools.items() if shutil.which(tool) is None]
    missing += [package for path, package in (files or {}).items() if not any(Path("/").glob(path[1:]))]
    if missing:
        raise SystemExit(f"Not installed. Debian has it all: apt-get install {' '.join(missing)}")


def token(org: str) -> str:
    return jwt.encode({"org_id": org, "iss": ISSUER, "exp": int(time.time()) + 86_400}, SECRET, "HS256")


def listens(port: int) -> bool:
    try:
        socket.create_connection((LOOPBACK, port), timeout=1).close()
    except OSError:
        return False
    return True


def answer(port: int, path: str, org: str | None = None) -> tuple[int, dict[str, str], bytes]:
    """Status, fields in lower case and body of one GET."""
    connection = HTTPConnection(LOOPBACK, port, timeout=5)
    try:
        connection.request("GET", path, headers={"Authorization": f"Bearer {token(org)}"} if org else {})
        response = connection.getresponse()
        return response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()
    finally:
        connection.close()


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def worker_of(supervisor: int) -> int:
    """The pid of a supervisor's one worker."""
    # The last one: Python's multiprocessing starts a helper of its own before the worker.
    return children(supervisor)[-1]


def cpu_seconds(pid: int) -> float:
    """User and system time of all threads of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_bytes(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) * 1024


def load(port: int, org: str, seconds: float, connections: int, status: int = 200) -> Load:
    """GETs on kept-alive connections, all with the same head. Ends the benchmark when answers are not of this kind."""
    command = ["taskset", "-c", str(REST_CORE), "wrk", "-t1", f"-c{connections}", f"-d{seconds:g}s", "--timeout", "5s"]
    command += ["-s", str(HERE / "wrk.lua"), "-H", f"Authorization: Bearer {token(org)}"]
    out = subprocess.run(
        [*command, f"http://{LOOPBACK}:{port}{TARGET}"], capture_output=True, text=True, check=True
    ).stdout
    figures = json.loads(out.rsplit("result ", 1)[1])
    expected = figures["requests"] if status >= 400 else 0
    if figures["not_2xx"] != expected or figures["socket_errors"] or not figures["requests"]:
        raise SystemExit(f"Not every answer has the status {status}:\n{out}")
    return Load(
        figures["requests"], figures["requests"] / figures["duration_us"] * 1e6, figures["p50_us"], figures["p99_us"]
    )


async def publish(redis_url: str) -> None:
    async with Redis.from_url(redis_url) as redis:
        ledger = Ledger(redis)
        await ledger.check_layout()
        await redis.script_load(script("take").source)
        periods = monthly_periods(CALENDAR_ANCHOR, time.time())
        for org, allowance in ((ORG, 10**12), (SPENT_ORG, 1)):
            meters = (MeterLimit(METER, allowance),)
            await ledger.publish(Entitlement(org, 1, Status.ACTIVE, meters=meters, periods=periods))


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
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that the processes are ended
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def redis(self) -> str:
        """The URL of a Valkey that knows both organizations."""
        self.redis_url = self._stack.enter_context(valkey.running(self.directory / "valkey"))
        asyncio.run(publish(self.redis_url))
        return self.redis_url

    def upstream(self) -> int:
        """The port of an nginx that answers every request at once."""
        port = free_port()
        self._nginx("upstream", port, ANSWERING.format(port=port, body=BODY), REST_CORE)
        return port

    def plain(self, upstream: int, directives: str = "") -> Proxy:
        port = free_port()
        http = PLAIN.format(port=port, upstream=upstream, log=self._log("plain"), directives=directives)
        return self._nginx("plain", port, http)

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

    def gateway(self, upstream: int) -> Proxy:
        """One worker."""
        port, config = free_port(), self.directory / "gateway.yaml"
        text = GATEWAY.format(
            redis=self.redis_url, secret=SECRET, issuer=ISSUER, upstream=upstream, log=self._log("gateway")
        )
        config.write_text(text)
        argv = (self._python, "-m", "quotagate", "gateway", "--config", str(config), "--port", str(port))
        # Another interpreter of the same version runs with what is installed for this one.
        env = {"PYTHONPATH": os.pathsep.join((str(HERE.parent), sysconfig.get_path("purelib")))}
        child = self._start("gateway", argv, PROXY_CORE, env)
        child.wait_until(lambda: answers(port, "/-/ready"), START_SECONDS)
        return Proxy(port, worker_of(child.process.pid))

    def _nginx(self, name: str, port: int, http: str, core: int = PROXY_CORE, modules: str = "") -> Proxy:
        config = self.directory / f"{name}.conf"
        config.write_text(NGINX.format(directory=self.directory, name=name, http=http, modules=modules))
        child = self._start(name, ("nginx", "-c", str(config), "-e", "stderr"), core)
        # The master listens before it has its worker.
        child.wait_until(lambda: listens(port) and bool(children(child.process.pid)), START_SECONDS)
        return Proxy(port, worker_of(child.process.pid))

    def _start(self, name: str, argv: Sequence[str], core: int, env: Mapping[str, str] | None = None) -> Child:
        child = spawn(name, ["taskset", "-c", str(core), *argv], log=self.directory / f"{name}.err", env=env)
        return self._stack.enter_context(stopping(child))

    def _log(self, name: str) -> Path:
        return self.directory / f"{name}.log"
