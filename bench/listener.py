"""What TLS costs between clients and the gateway, beside nginx with TLS, and HTTP/2 by an nginx in front.

    python -m bench.listener [--rounds 3] [--seconds 3] [--connections 64]

Three comparisons, in which the contestants take turns:

- varied requests of `bench.peers` on kept connections, by wrk: nginx with TLS, the gateway with TLS and without;
- handshakes: each request on a new connection with TLS 1.3 (ECDSA on P-256, no resumption), CPU of one;
- one head that is repeated, by h2load: the gateway with TLS by HTTP/1.1, and nginx with HTTP/2 in front of a gateway at
  a Unix socket. CPU is that of both processes then.

Needs nginx, wrk, openssl and h2load (Debian's nghttp2-client). The last line is what an HTTP/2 of our own would add,
were it made of the package `h2`: its work for one request in Python, without sockets; left out where it is missing.
"""

import argparse
import re
import socket
import ssl
import statistics
import subprocess
import time
from dataclasses import asdict
from pathlib import Path

from bench import report
from bench.harness import REST_CORE, TOOLS, cpu_seconds, load, require
from bench.report import Bars
from bench.rounds import Case, Rounds, ratio
from bench.site import Proxy, Site
from bench.traffic import ORG, ORGS, REPEATED, token, varied
from devstack.ports import LOOPBACK

PLAIN, GATEWAY, OPEN, FRONT = "nginx, TLS", "Quotagate, TLS", "Quotagate, no TLS", "nginx with HTTP/2 + Quotagate"
VARIED, NEW, REPEATED_HEADS = "varied", "new connections", "repeated heads, by h2load"
HANDSHAKES, STREAMS = 300, 8


def handshakes(proxy: Proxy) -> float:
    """CPU of the proxy, in microseconds, for a connection and its one request."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    head = f"GET {REPEATED} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {token(ORG)}\r\n\r\n"
    before = cpu_seconds(proxy.worker)
    for _ in range(HANDSHAKES):
        with context.wrap_socket(socket.create_connection((LOOPBACK, proxy.port))) as client:
            client.sendall(head.encode())
            if not (came := client.recv(4096)).startswith(b"HTTP/1.1 200 "):
                raise SystemExit(f"a request on a new connection has not the expected answer: {came!r}")
    return (cpu_seconds(proxy.worker) - before) / HANDSHAKES * 1e6


def by_h2load(proxy: Proxy, behind: Proxy | None, seconds: int, connections: int) -> float:
    """CPU of a request, in microseconds, of the proxy and of what is behind it."""
    pids = [proxy.worker, *([behind.worker] if behind is not None else [])]
    kind = ["-m", str(STREAMS)] if behind is not None else ["--h1"]
    command = ["taskset", "-c", str(REST_CORE), "h2load", "-t1", "-D", str(seconds), "-c", str(connections), *kind]
    command += ["-H", f"Authorization: Bearer {token(ORG)}", f"https://{LOOPBACK}:{proxy.port}{REPEATED}"]
    before = sum(map(cpu_seconds, pids))
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    used = sum(map(cpu_seconds, pids)) - before
    codes = re.search(r"status codes: (\d+) 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx", out)
    if codes is None or not int(codes[1]) or any(int(code) for code in codes.groups()[1:]):
        raise SystemExit(f"not every answer is 200:\n{out}")
    return used / int(codes[1]) * 1e6


def of_h2(requests: int = 2000) -> float | None:
    """Microseconds of the package h2 for one request and its answer, as a server has it."""
    try:
        from h2.config import H2Configuration
        from h2.connection import H2Connection
    except ImportError:
        return None
    server = H2Connection(H2Configuration(client_side=False, header_encoding=None))
    client = H2Connection(H2Configuration(client_side=True))
    client.initiate_connection()
    server.initiate_connection()
    server.receive_data(client.data_to_send())
    client.receive_data(server.data_to_send())
    answer = [(b":status", b"200"), (b"content-type", b"application/json"), (b"content-length", b"89")]
    spent = 0.0
    for number in range(requests):
        stream = client.get_next_available_stream_id()
        head = [(":method", "GET"), (":path", f"/v1/{number:08x}"), (":scheme", "https"), (":authority", "a.example")]
        head += [("authorization", f"Bearer {token(ORG)}"), ("traceparent", f"00-{number:032x}-{number:016x}-01")]
        head += [("user-agent", "python-requests/2.32.3"), ("accept", "*/*"), ("accept-encoding", "gzip, deflate")]
        client.send_headers(stream, head, end_stream=True)
        sent = client.data_to_send()
        begun = time.process_time()
        server.receive_data(sent)
        server.send_headers(stream, answer)
        server.send_data(stream, b"x" * 89, end_stream=True)
        answered = server.data_to_send()
        spent += time.process_time() - begun
        client.receive_data(answered)
        client.acknowledge_received_data(89, stream)
        sent = client.data_to_send()
        if sent:
            server.receive_data(sent)
    return spent / requests * 1e6


def main(rounds: int, seconds: int, connections: int) -> None:
    require({**TOOLS, "h2load": "nghttp2-client", "openssl": "openssl"})
    machine = report.machine()
    print(report.described(machine), flush=True)
    new: dict[str, list[float]] = {PLAIN: [], GATEWAY: []}
    framed: dict[str, list[float]] = {GATEWAY: [], FRONT: []}
    with Site() as site:
        site.redis()
        upstream, certificate, path = site.upstream(), site.certificate(), site.directory / "gateway.sock"
        tls = {"tls": {"certificates": [{"cert_file": str(certificate)}]}}
        proxies = {
            PLAIN: site.plain_secured(upstream.port, certificate),
            GATEWAY: site.gateway(upstream.port, "secured-gateway", listen=tls),
            OPEN: site.gateway(upstream.port),
        }
        behind = site.gateway(upstream.port, "behind", listen={"socket": str(path), "socket_mode": "666"})
        front = site.front(path, certificate)
        file: Path = site.directory / "requests"
        varied(ORGS).write(file)
        of = Rounds(proxies, {VARIED: file})
        for proxy in proxies.values():
            load(proxy.port, file, 1, connections, scheme=proxy.scheme)
        for _ in range(rounds):
            of.run([Case(VARIED, VARIED, tuple(proxies), seconds, connections)], 1)
            for name, each in new.items():
                each.append(handshakes(proxies[name]))
            framed[GATEWAY].append(by_h2load(proxies[GATEWAY], None, seconds, connections))
            framed[FRONT].append(by_h2load(front, behind, seconds, connections))
    bars = [
        of.bars(VARIED, "cpu_us", "CPU of a request, us"),
        of.bars(VARIED, "requests_per_second", "requests a second"),
        Bars(f"{NEW}: CPU of one with its request, us", {name: statistics.median(new[name]) for name in new}),
        Bars(f"{REPEATED_HEADS}: CPU of a request, us", {name: statistics.median(framed[name]) for name in framed}),
    ]
    ratios = [
        of.beside(f"varied, CPU of a request / {PLAIN}", 0, VARIED, "cpu_us", (GATEWAY, PLAIN)),
        of.beside(f"varied, CPU of a request / {OPEN}", 0, VARIED, "cpu_us", (GATEWAY, OPEN)),
        ratio(f"a new connection and its request, CPU / {PLAIN}", 0, new[GATEWAY], new[PLAIN]),
    ]
    own = of_h2()
    said = [f"{each.about}: {each.measured:.2f}" for each in ratios]
    said.append("The package h2 is missing." if own is None else f"HTTP/2 by the package h2: {own:.0f} us a request.")
    said.append(f"{GATEWAY} runs {proxies[GATEWAY].runs}.")
    names = (PLAIN, GATEWAY, OPEN, FRONT)
    lines = [[bar.title, *(report.number(bar.values[n]) if n in bar.values else "" for n in names)] for bar in bars]
    table = report.table([f"medians of {rounds}", *names], lines)
    print("\n".join(("", table, "", *said)))
    raw = {"samples": {n: [asdict(s) for s in of.samples[VARIED][n]] for n in proxies}, "new": new, "framed": framed}
    title = "Clients with TLS and HTTP/2: Quotagate beside nginx"
    folder = report.write("listener", title, [table, *said], bars, [], raw, machine)
    print(f"\nWritten to {folder.relative_to(report.ROOT)}/listener.json, .md and .svg")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--connections", type=int, default=64)
    options = parser.parse_args()
    main(options.rounds, options.seconds, options.connections)
