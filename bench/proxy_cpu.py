"""What one admitted request costs the gateway process, beside a plain nginx `proxy_pass`, in one run.

    python -m bench.proxy_cpu [--rounds 5] [--seconds 4] [--connections 64]

Needs nginx and wrk (Debian: `apt-get install nginx wrk`). An nginx answers as the upstream of both; the proxy under
test has a core of its own where there are two, the rest shares the other. CPU is user and system time of the proxy
process from /proc. Both are measured in turn, and the median of the rounds' ratios is the figure.
"""

import argparse
import asyncio
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import jwt
from redis.asyncio import Redis

from devstack import valkey
from devstack.ports import free_port
from quota.ledger import Ledger
from quota.model import Entitlement, MeterLimit, Status
from quota.periods import CALENDAR_ANCHOR, monthly_periods

SECRET = "a secret for benchmarks, forty characters"
PROXY_CORE, REST_CORE = (0, 1) if (os.cpu_count() or 1) > 1 else (0, 0)
BODY = '{"ok":true,"padding":"' + "x" * 64 + '"}'

NGINX = """
worker_processes 1; daemon off; pid {directory}/{name}.pid; error_log {directory}/{name}.err;
events {{ worker_connections 8192; }}
http {{
  access_log off; keepalive_requests 1000000000;
  client_body_temp_path {directory}/{name}-b; proxy_temp_path {directory}/{name}-p;
  fastcgi_temp_path {directory}/{name}-f; uwsgi_temp_path {directory}/{name}-u; scgi_temp_path {directory}/{name}-s;
  {http}
}}
"""
UPSTREAM = """
  server {{ listen 127.0.0.1:{port} backlog=4096;
    location / {{ default_type application/json; return 200 '{body}'; }} }}
"""
PROXY = """
  upstream api {{ server 127.0.0.1:{upstream}; keepalive 128; keepalive_requests 1000000000; }}
  server {{ listen 127.0.0.1:{port} backlog=4096;
    location / {{ proxy_pass http://api; proxy_http_version 1.1; proxy_set_header Connection ""; }} }}
"""
GATEWAY = """
redis: {{url: "{redis}"}}
access_log: {{enabled: false}}
auth: {{algorithms: [HS256], secret: "{secret}", issuer: bench}}
upstreams: {{api: {{url: "http://127.0.0.1:{upstream}"}}}}
routes:
  - {{path: /, upstream: api}}
  - {{path: /v1/chat, upstream: api, meters: {{api_calls: 1, tokens: 10}}}}
  - {{path: /healthz, upstream: api, exempt: true}}
"""


@contextmanager
def process(*command: str, core: int) -> Iterator[int]:
    child = subprocess.Popen(
        ["taskset", "-c", str(core), *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield child.pid
    finally:
        child.terminate()
        child.wait(20)


@contextmanager
def nginx(directory: Path, name: str, http: str, core: int) -> Iterator[int]:
    """Yields the pid of the one worker."""
    path = directory / f"{name}.conf"
    path.write_text(NGINX.format(directory=directory, name=name, http=http))
    with process("nginx", "-c", str(path), "-e", str(directory / f"{name}.err"), core=core) as master:
        yield worker_of(master)


def worker_of(master: int) -> int:
    """The pid of a supervisor's one worker."""
    children = Path(f"/proc/{master}/task/{master}/children")
    # The last one: Python's multiprocessing starts a helper of its own before the worker.
    while not (workers := children.read_text().split()):
        time.sleep(0.02)
    return int(workers[-1])


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def load(port: int, token: str, seconds: int, connections: int) -> tuple[int, str]:
    """Requests answered, and wrk's latency lines in short. Ends the benchmark when an answer is not 200."""
    command = ["taskset", "-c", str(REST_CORE), "wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency"]
    command += ["-H", f"Authorization: Bearer {token}", f"http://127.0.0.1:{port}/v1/things?limit=10"]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    if "Non-2xx" in out or "Socket errors" in out:
        raise SystemExit(f"not every answer was 200:\n{out}")
    lines = [line.split() for line in out.splitlines() if line.strip()]
    answered = next(int(words[0]) for words in lines if "requests" in words)
    latency = {words[0]: words[1] for words in lines if words[0] in ("50%", "99%")}
    return answered, f"p50 {latency['50%']:>8} p99 {latency['99%']:>8}"


async def publish(redis_url: str) -> None:
    async with Redis.from_url(redis_url) as redis:
        ledger = Ledger(redis)
        await ledger.check_layout()
        periods = monthly_periods(CALENDAR_ANCHOR, time.time())
        meters = (MeterLimit("api_calls", 10**12),)
        await ledger.publish(Entitlement("bench", 1, Status.ACTIVE, meters=meters, periods=periods))


def main(rounds: int, seconds: int, connections: int) -> None:
    if missing := [tool for tool in ("nginx", "wrk", "taskset") if shutil.which(tool) is None]:
        raise SystemExit(f"missing: {', '.join(missing)} (Debian: apt-get install nginx wrk util-linux)")
    token = jwt.encode({"org_id": "bench", "iss": "bench", "exp": int(time.time()) + 86_400}, SECRET, "HS256")
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="quotagate-bench-")))
        directory.chmod(0o755)
        os.sched_setaffinity(0, {REST_CORE})  # Valkey inherits it
        redis_url = stack.enter_context(valkey.running(directory / "valkey"))
        asyncio.run(publish(redis_url))
        upstream_port, nginx_port, gateway_port = free_port(), free_port(), free_port()
        stack.enter_context(nginx(directory, "upstream", UPSTREAM.format(port=upstream_port, body=BODY), REST_CORE))
        plain = stack.enter_context(
            nginx(directory, "proxy", PROXY.format(port=nginx_port, upstream=upstream_port), PROXY_CORE)
        )
        config = directory / "gateway.yaml"
        config.write_text(GATEWAY.format(redis=redis_url, secret=SECRET, upstream=upstream_port))
        command = (sys.executable, "-m", "quotagate", "gateway", "--config", str(config), "--port", str(gateway_port))
        supervisor = stack.enter_context(process(*command, core=PROXY_CORE))
        time.sleep(3)
        gateway = worker_of(supervisor)
        proxies = {"nginx proxy_pass": (nginx_port, plain), "quotagate": (gateway_port, gateway)}
        for port, _ in proxies.values():
            load(port, token, 1, connections)
        ratios = []
        for _ in range(rounds):
            cost = {}
            for name, (port, pid) in proxies.items():
                before = cpu_seconds(pid)
                answered, latency = load(port, token, seconds, connections)
                cost[name] = (cpu_seconds(pid) - before) / answered * 1e6
                print(
                    f"{name:18} {cost[name]:6.1f} us CPU a request  {answered / seconds:7.0f}/s  {latency}", flush=True
                )
            ratios.append(cost["quotagate"] / cost["nginx proxy_pass"])
        print(f"ratio, median of {rounds}: {statistics.median(ratios):.2f}  ({', '.join(f'{r:.2f}' for r in ratios)})")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--connections", type=int, default=64)
    options = parser.parse_args()
    main(options.rounds, options.seconds, options.connections)
