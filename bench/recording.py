"""What telemetry costs a worker, exporting included: the share of its requests that is recorded, or its access log.

    python -m bench.recording [--ratio 0.01] [--rounds 120] [--repeated] [--follow] [--no-log]
    python -m bench.recording --lines

Two workers in one process are played the same requests as in bench/hotpath.py, one with telemetry and one without it.
They take turns, so what slows the machine for a second slows both; the figure is the median of all pairs' ratios of CPU
time. What the worker's threads do is counted: each turn ends when the collector, a process of its own, has all of it.
The waiting for that is not counted.

A turn has as many requests as a busy worker serves in a second, so that there is one export for so many requests, as in
production.

Each request of varied traffic has a trace, whose flag is not followed: the ratio decides. With `--follow` it is, as by
default, and the share of the requests that is to be recorded has the flag.
"""

import argparse
import socket
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from multiprocessing import get_context
from typing import Any

import uvloop

from bench.hotpath import BATCH, REPEATED_ORG, Playback, repeated, settings, settle_garbage
from bench.traffic import ORGS, token, varied
from compiled import finder
from devstack.ports import LOOPBACK

REQUESTS = 20_000  # of a turn
POLL_SECONDS = 0.01
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


@dataclass(frozen=True)
class Wanted:
    """What is compared with nothing."""

    ratio: float
    repeats: bool
    follows: bool
    logs: bool
    sends_lines: bool

    def __str__(self) -> str:
        return "sending the access log" if self.sends_lines else f"recording {self.ratio:.2%} of the requests"


def collect(listening: socket.socket) -> None:
    """Takes all that it is sent. Does not return."""
    while True:
        connection, _ = listening.accept()
        with connection, connection.makefile("rb") as sent:
            length = 0
            while line := sent.readline():
                name, _, value = line.lower().partition(b":")
                if name == b"content-length":
                    length = int(value)
                elif line == b"\r\n":
                    sent.read(length)
                    connection.sendall(ANSWER)


def flagged(requests: Iterator[bytes], ratio: float) -> Iterator[bytes]:
    """Varied requests, of which so many have the flag."""
    every = round(1 / ratio)
    for number, request in enumerate(requests):
        flag = request.lower().index(b"traceparent: ") + len(b"traceparent: 00--") + 32 + 16 + 1
        yield request if number % every == 0 else b"%b00%b" % (request[:flag], request[flag + 2 :])


def exports(played: Playback) -> list[Any]:
    """Once all of the worker's facts are handed over to them. They are the worker's own, so nobody's type."""
    spans: Any = played.worker.spans
    logs: Any = played.worker.sent_logs
    if spans is not None:
        spans.flush()
    return [export for export in (spans and spans._export, logs and logs._access) if export is not None]


def turn(played: Playback, requests: Iterator[bytes]) -> float:
    """Microseconds of a request. To make the requests is no work of the gateway's."""
    played.sent = iter(list(islice(requests, REQUESTS)))
    began = time.process_time()
    for _ in range(REQUESTS // BATCH):
        played.one_turn()
    sending = exports(played)
    here = time.thread_time()
    while any(export._done < export._queued for export in sending):
        time.sleep(POLL_SECONDS)
    waited = time.thread_time() - here
    return (time.process_time() - began - waited) / REQUESTS * 1e6


async def compare(wanted: Wanted, rounds: int) -> None:
    listening = socket.create_server((LOOPBACK, 0))
    collector = get_context("fork").Process(target=collect, args=(listening,), daemon=True)
    collector.start()
    url = f"http://{LOOPBACK}:{listening.getsockname()[1]}"

    def sent() -> Iterator[bytes]:
        if wanted.repeats:
            return repeated(token(REPEATED_ORG))
        requests = varied(ORGS).requests()
        return flagged(requests, wanted.ratio) if wanted.follows else requests

    telemetry = {"endpoint": url, "access_log": wanted.sends_lines, "follow_clients": wanted.follows}
    telemetry["ratio"] = 0.0 if wanted.sends_lines else wanted.ratio
    principals = 1 if wanted.repeats else len(ORGS)
    requests = sent(), sent()
    without = Playback(settings(logs=wanted.logs), requests[0], principals)
    having = Playback(settings(telemetry, logs=wanted.logs), requests[1], principals)
    sides = list(zip((without, having), requests, strict=True))
    settle_garbage()
    for played, of_it in sides:
        played.check()
        turn(played, of_it)
    pairs = []
    for at in range(rounds):
        costs = {played: turn(played, of_it) for played, of_it in (reversed(sides) if at % 2 else sides)}
        pairs.append((costs[without], costs[having]))
    collector.terminate()
    if not (sending := exports(having)) or any(export.dropped or not export._done for export in sending):
        raise SystemExit("The collector got nothing, or not all of it.")
    low, median, high = statistics.quantiles([(b / a - 1) * 100 for a, b in pairs], n=4)
    off, on = (statistics.median(side) for side in zip(*pairs, strict=True))
    print(
        f"{wanted}: {median:+.2f} % CPU (quartiles {low:+.2f} and {high:+.2f}, {rounds} pairs); "
        f"{off:.2f} us a request without, {on:.2f} us with; {finder.install()}"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ratio", type=float, default=0.01, help="the share that is recorded")
    parser.add_argument("--rounds", type=int, default=120)
    parser.add_argument("--repeated", action="store_true", help="all requests with one head, not varied traffic")
    parser.add_argument("--follow", action="store_true", help="clients' flags decide")
    parser.add_argument("--no-log", action="store_true", help="without an access log")
    parser.add_argument("--lines", action="store_true", help="its access log is sent, and nothing is recorded")
    given = parser.parse_args()
    if not 0 < given.ratio <= 1 or given.rounds < 2:
        parser.error("--ratio is above 0 and at most 1, and --rounds at least 2")
    uvloop.run(compare(Wanted(given.ratio, given.repeated, given.follow, not given.no_log, given.lines), given.rounds))
