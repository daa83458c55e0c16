"""What benchmarks of whole processes share: tools that must be there, load from wrk, and what a process has used."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPResponse
from itertools import count
from pathlib import Path

from bench.traffic import REPEATED, Traffic, token
from devstack.ports import LOOPBACK

PROXY_CORE, REST_CORE = (0, 1) if (os.cpu_count() or 1) > 1 else (0, 0)
HERE = Path(__file__).parent
SENT = 1_000  # requests that bench/wrk.lua writes down when it is asked to

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

_first_numbers = count(0, 2**20)  # so that no run of wrk sends what one before has sent


@dataclass(frozen=True, slots=True)
class Load:
    """What wrk says of one run."""

    requests: int
    seconds: float
    p50_us: int
    p99_us: int

    @property
    def requests_per_second(self) -> float:
        return self.requests / self.seconds


def require(tools: Mapping[str, str] = TOOLS, files: Mapping[str, str] | None = None) -> None:
    """Ends the benchmark with the line that installs what is missing."""
    missing = [package for tool, package in tools.items() if shutil.which(tool) is None]
    missing += [package for path, package in (files or {}).items() if not any(Path("/").glob(path[1:]))]
    if missing:
        raise SystemExit(f"Not installed. Debian has it all: apt-get install {' '.join(missing)}")


def exit_on_sigterm() -> None:
    """From now on SIGTERM unwinds this process as an exception does, so that the processes that it started end, too."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))


def listens(port: int) -> bool:
    try:
        socket.create_connection((LOOPBACK, port), timeout=1).close()
    except OSError:
        return False
    return True


Answer = tuple[int, dict[str, str], bytes]
"""Status, fields in lower case and body."""


def answer(port: int, path: str, org: str | None = None) -> Answer:
    """Of one GET."""
    connection = HTTPConnection(LOOPBACK, port, timeout=5)
    try:
        connection.request("GET", path, headers={"Authorization": f"Bearer {token(org)}"} if org else {})
        return read_answer(connection.getresponse())
    finally:
        connection.close()


def exchange(port: int, requests: Iterable[bytes]) -> list[Answer]:
    """The answers to requests that are sent one after the other on one connection."""
    answers = []
    with socket.create_connection((LOOPBACK, port), timeout=5) as connection:
        for request in requests:
            connection.sendall(request)
            response = HTTPResponse(connection)
            response.begin()
            answers.append(read_answer(response))
    return answers


def read_answer(response: HTTPResponse) -> Answer:
    return response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def cpu_seconds(pid: int) -> float:
    """User and system time of all threads of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def idle_seconds(cores: Collection[int]) -> float:
    """Of these cores together, since the machine started."""
    lines = (line.split() for line in Path("/proc/stat").read_text().splitlines())
    names = {f"cpu{core}" for core in cores}
    return sum(int(line[4]) + int(line[5]) for line in lines if line[0] in names) / os.sysconf("SC_CLK_TCK")


def resident_bytes(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) * 1024


def load(
    port: int,
    requests: str | Path,
    seconds: int,
    connections: int,
    status: int = 200,
    cores: Collection[int] = (REST_CORE,),
    sent: Path | None = None,
    scheme: str = "http",
) -> Load:
    """Requests on kept-alive connections: varied ones from the file of `Traffic.write`, or all with the same head, for
    the organization of that name. Ends the benchmark when answers are not of this kind. `sent`: where wrk writes its
    first requests."""
    command = ["taskset", "-c", ",".join(map(str, cores)), "wrk", "-t1", f"-c{connections}", f"-d{seconds}s"]
    command += ["--timeout", "5s", "-s", str(HERE / "wrk.lua")]
    env = dict(os.environ)
    if isinstance(requests, Path):
        env |= {"BENCH_TRAFFIC": str(requests), "BENCH_FIRST": str(next(_first_numbers) if sent is None else 0)}
        env |= {"BENCH_SENT": str(sent)} if sent is not None else {}
    else:
        command += ["-H", f"Authorization: Bearer {token(requests)}"]
    out = subprocess.run(
        [*command, f"{scheme}://{LOOPBACK}:{port}{REPEATED}"], env=env, capture_output=True, text=True, check=True
    ).stdout
    figures = json.loads(out.rsplit("result ", 1)[1])
    expected = figures["requests"] if status >= 400 else 0
    if figures["not_2xx"] != expected or figures["socket_errors"] or not figures["requests"]:
        raise SystemExit(f"Not every answer has the status {status}:\n{out}")
    return Load(figures["requests"], figures["duration_us"] / 1e6, figures["p50_us"], figures["p99_us"])


def check_sent(port: int, traffic: Traffic, file: Path, sent: Path) -> None:
    """Ends the benchmark unless wrk sends what bench.hotpath plays back."""
    traffic.write(file)
    load(port, file, 1, 1, sent=sent)
    expected = b"".join(traffic.request(number) for number in range(SENT))
    if sent.read_bytes() != expected:
        raise SystemExit("wrk sends other requests than those of bench/traffic.py")
