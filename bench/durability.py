"""What each durability level costs: takes a second and their latency, through the gateway's link, without the gateway.

    python -m bench.durability [--rounds 5] [--seconds 2] [--clients 64] [--directory DIR]

A Valkey for each level, all there from the start; levels take turns in every round. `--directory` says on which disk
their data is: an fsync is most of what `aof` costs.
"""

import argparse
import asyncio
import statistics
import tempfile
import time
from collections import defaultdict
from contextlib import ExitStack
from pathlib import Path

import redis
import uvloop
from redis.asyncio import Redis as Client

from bench import report
from bench.report import Bars
from bench.takers import METER, Takers
from devstack import valkey
from devstack.child import stopping
from devstack.ports import LOOPBACK, free_port
from gateway.ledger.configured import link_of
from gateway.settings.redis import Redis
from quota.ledger import Ledger
from quota.model import Entitlement, MeterLimit, Status
from quota.periods import CALENDAR_ANCHOR, monthly_periods

ORGS = [f"bench-{n:02d}" for n in range(16)]
PATIENT = {"timeout_ms": 5000, "budget_ms": 5000, "durability_ms": 4000}  # a machine that stalls ends no run
WARM_UP_SECONDS = 0.2
START_SECONDS = 20.0
EVERYSEC, ALWAYS = {"appendfsync": "everysec"}, {"appendfsync": "always"}
LEVELS = {
    "memory": ("memory", EVERYSEC),
    "memory, fsync always": ("memory", ALWAYS),
    "aof": ("aof", ALWAYS),
    "replica": ("replica", EVERYSEC),
}
"""Name -> redis.durability, and Valkey's settings."""


def start(stack: ExitStack, directory: Path, settings: dict[str, str]) -> int:
    port = free_port()
    child = valkey.start(directory, port, log=directory / "valkey.log", settings=settings)
    stack.enter_context(stopping(child))
    valkey.wait_ready(child, port)
    return port


def follow(stack: ExitStack, directory: Path, master: int) -> None:
    """A replica of the master that has all it has."""
    port = start(stack, directory, {"replicaof": f"{LOOPBACK} {master}", **EVERYSEC})
    with redis.Redis(port=port) as client:
        deadline = time.monotonic() + START_SECONDS
        while client.info("replication")["master_link_status"] != "up":
            if time.monotonic() > deadline:
                raise SystemExit("the replica did not start")
            time.sleep(0.05)


async def publish(url: str) -> None:
    async with Client.from_url(url) as client:
        ledger = Ledger(client)
        await ledger.check_layout()
        meters, periods = (MeterLimit(METER, 10**12),), monthly_periods(CALENDAR_ANCHOR, time.time())
        for org in ORGS:
            await ledger.publish(Entitlement(org, 1, Status.ACTIVE, meters=meters, periods=periods))


async def load(url: str, level: str, clients: int, seconds: float) -> tuple[float, float, float]:
    """Takes a second; p50 and p99 in microseconds."""
    settings = Redis.model_validate({"url": url, "durability": level, **PATIENT})
    link = link_of(asyncio.get_running_loop(), settings)
    link.start()
    try:
        if not await link.wait_open(START_SECONDS):
            raise SystemExit(f"{level}: {link.down_reason}")
        for length in (WARM_UP_SECONDS, seconds):
            takers = Takers(link, ORGS, clients)
            began = time.perf_counter()
            takers.start()
            await asyncio.sleep(length)
            await takers.stop()
            took = time.perf_counter() - began
    finally:
        await link.close()
    if takers.lost:
        raise SystemExit(f"{level}: takes were lost: {dict(takers.lost)}")
    quantiles = statistics.quantiles(takers.seconds, n=100)
    return len(takers.seconds) / took, quantiles[49] * 1e6, quantiles[98] * 1e6


def main(rounds: int, seconds: float, clients: int, directory: Path | None) -> None:
    machine = report.machine()
    figures: defaultdict[str, defaultdict[int, list[tuple[float, float, float]]]]
    figures = defaultdict(lambda: defaultdict(list))
    with ExitStack() as stack:
        top = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="quotagate-bench-", dir=directory)))
        urls = {}
        for number, (name, (level, settings)) in enumerate(LEVELS.items()):
            port = start(stack, top / str(number), {**settings, "repl-diskless-sync-delay": "0"})
            urls[name] = valkey.url(port)
            uvloop.run(publish(urls[name]))
            if level == "replica":
                follow(stack, top / "replica", port)
        for _ in range(rounds):
            for name, (level, _) in LEVELS.items():
                for count in (clients, 1):
                    figures[name][count].append(uvloop.run(load(urls[name], level, count, seconds)))

    def median(name: str, count: int, which: int) -> float:
        return statistics.median(figure[which] for figure in figures[name][count])

    head = ["level", *(f"{what}, {n} clients" for n in (clients, 1) for what in ("takes/s", "p50 us", "p99 us"))]
    rows = [
        [name, *(report.number(median(name, n, which)) for n in (clients, 1) for which in range(3))] for name in LEVELS
    ]
    table = report.table(head, rows)
    print(f"\n{table}")
    bars = [
        Bars(f"takes a second, {clients} clients", {name: median(name, clients, 0) for name in LEVELS}),
        Bars(f"p50, {clients} clients, us", {name: median(name, clients, 1) for name in LEVELS}),
        Bars("p50, one client, us", {name: median(name, 1, 1) for name in LEVELS}),
    ]
    raw = {"options": {"rounds": rounds, "seconds": seconds, "clients": clients}, "rounds": figures}
    folder = report.write("durability", "What each durability level costs", [table], bars, [], raw, machine)
    print(f"\nWritten to {folder.relative_to(report.ROOT)}/durability.json, .md and .svg")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2, help="of each level, at both numbers of clients")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--directory", type=Path, default=None)
    options = parser.parse_args()
    main(options.rounds, options.seconds, options.clients, options.directory)
