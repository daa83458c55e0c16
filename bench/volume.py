"""Large bodies and many idle connections: what they take of the gateway's memory, and how fast bodies go through.

    python -m bench.volume [--gigabytes 10] [--gibibytes 1] [--rounds 5] [--connections 10000]

1. One body of 10 GB in each direction while the side that receives it is slow: growth of resident memory.
2. A body of 1 GiB in each direction, at full speed, beside plain nginx: with buffers of 64 KiB and nothing on disk,
   which is faster than as it is by default.
3. 10,000 kept-alive connections that have had one answer each and are idle: resident memory for each.

Needs nginx. The ends of the bodies are threads of this process, on the core that the proxy does not have. Takes about
three minutes.
"""

import argparse
import json
import resource
import socket
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from urllib.parse import parse_qs, urlsplit

from bench import report
from bench.configs import BODY
from bench.harness import TOOLS, answer, cpu_seconds, require, resident_bytes
from bench.report import Bars, Goal
from bench.site import Proxy, Site
from bench.traffic import ORG, REPEATED, token
from devstack.ports import LOOPBACK

GB, MIB, GIB = 10**9, 2**20, 2**30
CHUNK = bytes(MIB)
SLOW_BYTES_PER_SECOND = 200_000_000
STALL_SECONDS = 2.0  # once, when a tenth is through: all that can pile up does
TIMEOUT_SECONDS = 60
SAMPLE_SECONDS = 0.02
AT_ONCE = 50  # requests under way while the idle connections are made
SETTLE_SECONDS = 0.5
FILES_BESIDE_CONNECTIONS = 300
DOWN, UP = "download", "upload"
STREAMING = """
      proxy_request_buffering off; proxy_max_temp_file_size 0;
      proxy_buffer_size 64k; proxy_buffers 8 64k; client_body_buffer_size 64k;
"""


class Pace:
    """Lets a receiver go no faster than a rate; None is full speed."""

    def __init__(self, total: int, bytes_per_second: float | None) -> None:
        self._rate = bytes_per_second
        self._stall_at = total // 10
        self._began = time.monotonic()

    def after(self, received: int) -> None:
        if self._rate is None:
            return
        if received >= self._stall_at:
            self._stall_at = 2**63
            self._began += STALL_SECONDS
            time.sleep(STALL_SECONDS)
        ahead = received / self._rate - (time.monotonic() - self._began)
        if ahead > 0:
            time.sleep(ahead)


class Upstream(BaseHTTPRequestHandler):
    """GET with `bytes` sends a body of so many; PUT takes one, no faster than `rate`; else a short answer."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # head and body of an answer are two writes

    def do_GET(self) -> None:
        size = self._query_number("bytes")
        if size is None:
            self._answer(BODY.encode())
            return
        self.send_response(200)
        self.send_header("Content-Length", str(size))
        self.end_headers()
        send(self.connection, size)

    def do_PUT(self) -> None:
        size = int(self.headers["Content-Length"])
        pace, buffer, received = Pace(size, self._query_number("rate")), memoryview(bytearray(MIB)), 0
        while received < size and (n := self.rfile.readinto1(buffer[: min(MIB, size - received)])):
            received += n
            pace.after(received)
        self._answer(json.dumps({"received": received}).encode())

    def log_message(self, *_: object) -> None:
        pass

    def _query_number(self, name: str) -> int | None:
        values = parse_qs(urlsplit(self.path).query).get(name)
        return int(values[0]) if values else None

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class UpstreamServer(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 1024


@contextmanager
def upstream() -> Iterator[int]:
    """The port of the bodies' other end."""
    with UpstreamServer((LOOPBACK, 0), Upstream) as server:
        thread = Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()


def send(to: socket.socket, size: int) -> None:
    chunks, last_bytes = divmod(size, len(CHUNK))
    for _ in range(chunks):
        to.sendall(CHUNK)
    to.sendall(CHUNK[:last_bytes])


def transfer(port: int, direction: str, size: int, bytes_per_second: int | None = None) -> float:
    """Seconds that one body takes. Ends the benchmark when it does not arrive whole."""
    connection = HTTPConnection(LOOPBACK, port, timeout=TIMEOUT_SECONDS)
    authorization = {"Authorization": f"Bearer {token(ORG)}"}
    began = time.monotonic()
    try:
        if direction == DOWN:
            connection.request("GET", f"/body?bytes={size}", headers=authorization)
            response = connection.getresponse()
            pace, buffer, received = Pace(size, bytes_per_second), memoryview(bytearray(MIB)), 0
            while n := response.readinto(buffer):
                received += n
                pace.after(received)
        else:
            rate = f"?rate={bytes_per_second}" if bytes_per_second else ""
            connection.putrequest("PUT", f"/body{rate}")
            for name, value in {**authorization, "Content-Length": str(size)}.items():
                connection.putheader(name, value)
            connection.endheaders()
            send(connection.sock, size)
            response = connection.getresponse()
            received = json.loads(response.read())["received"]
        if response.status != 200 or received != size:
            raise SystemExit(f"{direction}: status {response.status}, {received:,} of {size:,} bytes arrived")
    finally:
        connection.close()
    return time.monotonic() - began


@contextmanager
def watched(pid: int) -> Iterator[list[int]]:
    """Yields a list whose one item is the most resident bytes that were seen so far."""
    peak, over = [resident_bytes(pid)], Event()

    def watch() -> None:
        while not over.wait(SAMPLE_SECONDS):
            peak[0] = max(peak[0], resident_bytes(pid))

    thread = Thread(target=watch)
    thread.start()
    try:
        yield peak
    finally:
        over.set()
        thread.join()


def growth_mib(proxy: Proxy, direction: str, size: int) -> float:
    before = resident_bytes(proxy.worker)
    with watched(proxy.worker) as peak:
        seconds = transfer(proxy.port, direction, size, SLOW_BYTES_PER_SECOND)
    grown = (peak[0] - before) / MIB
    result = f"{seconds:.0f} s, memory grew by {grown:.1f} MiB"
    print(f"{direction} of {size / GB:g} GB with a slow receiver: {result}", flush=True)
    return grown


@dataclass(frozen=True, slots=True)
class Speed:
    mib_per_second: float
    cpu_seconds_per_gib: float


def speed(name: str, proxy: Proxy, direction: str, size: int) -> Speed:
    before = cpu_seconds(proxy.worker)
    seconds = transfer(proxy.port, direction, size)
    measured = Speed(size / MIB / seconds, (cpu_seconds(proxy.worker) - before) * GIB / size)
    figures = f"{measured.mib_per_second:6.0f} MiB/s, {measured.cpu_seconds_per_gib:.2f} s CPU a GiB"
    print(f"{direction:9} {name:10} {figures}", flush=True)
    return measured


def connect(port: int, head: bytes, count: int) -> list[socket.socket]:
    """Kept-alive connections that have had one answer each."""
    connections: list[socket.socket] = []
    while len(connections) < count:
        batch = [
            socket.create_connection((LOOPBACK, port), timeout=TIMEOUT_SECONDS)
            for _ in range(min(AT_ONCE, count - len(connections)))
        ]
        ask(batch, head)
        connections += batch
    return connections


def ask(connections: list[socket.socket], head: bytes) -> None:
    """One request on each of these connections, all at once."""
    for connection in connections:
        connection.sendall(head)
    for connection in connections:
        answer = b""
        while not answer.endswith(BODY.encode()):
            data = connection.recv(4096)
            if not data:
                raise SystemExit(f"A connection ended after {answer!r}")
            answer += data
        if not answer.startswith(b"HTTP/1.1 200"):
            raise SystemExit(f"the answer is not the expected one: {answer!r}")


def idle_kib(proxy: Proxy, count: int) -> float:
    """Resident memory of the worker for each idle connection."""
    lines = (
        f"GET {REPEATED} HTTP/1.1",
        f"Host: {LOOPBACK}:{proxy.port}",
        f"Authorization: Bearer {token(ORG)}",
        "",
        "",
    )
    head = "\r\n".join(lines).encode()
    # The connections to the upstream are there before, and counted to nobody.
    for connection in connect(proxy.port, head, AT_ONCE):
        connection.close()
    time.sleep(SETTLE_SECONDS)
    before = resident_bytes(proxy.worker)
    connections = connect(proxy.port, head, count)
    try:
        time.sleep(SETTLE_SECONDS)
        each = (resident_bytes(proxy.worker) - before) / count / 1024
        ask(connections[:: max(1, count // AT_ONCE)], head)  # proves that they are open
    finally:
        for connection in connections:
            connection.close()
    print(f"{count:,} idle connections: {each:.1f} KiB each", flush=True)
    return each


def affordable(connections: int) -> int:
    """As many connections as this process may hold, of those that are asked for."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = connections if hard == resource.RLIM_INFINITY else min(connections, hard - FILES_BESIDE_CONNECTIONS)
    if allowed < connections:
        print(f"{allowed:,} connections instead of {connections:,}: the limit of open files is {hard:,} (ulimit -Hn)")
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed + FILES_BESIDE_CONNECTIONS, hard))  # children inherit it
    return allowed


def main(gigabytes: float, gibibytes: float, rounds: int, connections: int, python: str) -> None:
    require({tool: package for tool, package in TOOLS.items() if tool != "wrk"})
    machine = report.machine(python)
    connections = affordable(connections)
    speeds: dict[str, dict[str, list[Speed]]] = {direction: {} for direction in (DOWN, UP)}
    with Site(python) as site, upstream() as port:
        site.redis()
        gateway = site.gateway(port)
        proxies = {"nginx": site.plain(port, STREAMING), "Quotagate": gateway}
        for _ in range(10):
            answer(gateway.port, REPEATED, ORG)
        # Bodies first: memory that idle connections left behind would hide what bodies take.
        growth = {direction: growth_mib(gateway, direction, int(gigabytes * GB)) for direction in (DOWN, UP)}
        idle = idle_kib(gateway, connections)
        for _ in range(rounds):
            for direction in (DOWN, UP):
                for name, proxy in proxies.items():
                    measured = speed(name, proxy, direction, int(gibibytes * GIB))
                    speeds[direction].setdefault(name, []).append(measured)

    size = f"{gigabytes:g} GB"
    goals = [Goal(f"memory grows, {size} {way}, slow receiver", growth[way], 32, "MiB") for way in growth]
    for way, of in speeds.items():
        ratios = [
            own.mib_per_second / peer.mib_per_second for own, peer in zip(of["Quotagate"], of["nginx"], strict=True)
        ]
        about = f"throughput of a {gibibytes:g} GiB {way} / nginx"
        goals.append(Goal(about, statistics.median(ratios), 0.5, at_least=True, spread=(min(ratios), max(ratios))))
    goals.append(Goal(f"memory of one of {connections:,} idle connections", idle, 12, "KiB"))

    titles = {"mib_per_second": "MiB a second", "cpu_seconds_per_gib": "CPU seconds a GiB"}
    bars = [
        Bars(f"{way}, {title}", {name: statistics.median(getattr(s, field) for s in of[name]) for name in of})
        for way, of in speeds.items()
        for field, title in titles.items()
    ]
    names = list(proxies)
    rows = [[group.title, *(report.number(group.values[name]) for name in names)] for group in bars]
    bodies = report.table([f"{gibibytes:g} GiB body, medians of {rounds}", *names], rows)
    print(f"\n{bodies}\n\n{report.goals_table(goals)}")
    raw = {
        "options": {"gigabytes": gigabytes, "gibibytes": gibibytes, "rounds": rounds, "connections": connections},
        "rounds": {way: {name: [asdict(s) for s in of[name]] for name in names} for way, of in speeds.items()},
    }
    folder = report.write("volume", "Large bodies: Quotagate beside nginx", [bodies], bars, goals, raw, machine)
    print(f"\nWritten to {folder.relative_to(report.ROOT)}/volume.json, .md and .svg")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=10, help="of the body with a slow receiver")
    parser.add_argument("--gibibytes", type=float, default=1, help="of the body at full speed")
    parser.add_argument("--rounds", type=int, default=5, help="of bodies at full speed")
    parser.add_argument("--connections", type=int, default=10_000)
    parser.add_argument("--python", default=sys.executable, help="that runs the gateway; of the same version")
    options = parser.parse_args()
    main(options.gigabytes, options.gibibytes, options.rounds, options.connections, options.python)
