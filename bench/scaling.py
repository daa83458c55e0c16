"""What a second worker on a second core adds.

    python -m bench.scaling [--rounds 15]

bench/peers.py measures it, too, in fewer rounds.

One worker, with wrk, upstream and Valkey beside it, all on one core; then two workers with the same beside them, all on
two cores. Each worker has as many connections: with those of one worker, shared by two, both would wait for clients.
The load's share is what wrk, upstream and Valkey use, and whatever else runs on the machine; it is subtracted: left is
what the workers used, and what nobody did. Requests are divided by the core seconds that were left; two cores do twice
as much as one of theirs.

    scaling = 2 * (requests / (CPU of both workers + idle time of two cores))
                / (requests / (CPU of the worker + idle time of its core))

So a worker that waits while the other is busy counts against them, and so does a request that costs more CPU at two
workers; 2.0 is perfect. On a machine whose cores share more than memory (two threads of one core) it cannot be reached.
"""

import argparse
import os
import statistics
import sys
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from bench import report
from bench.harness import PROXY_CORE, REST_CORE, cpu_seconds, idle_seconds, load
from bench.report import Bars, Goal
from bench.rounds import ratio
from bench.site import Proxy, Site
from bench.traffic import ORGS, varied

ONE, BOTH = (PROXY_CORE,), (PROXY_CORE, REST_CORE)
WARM_SECONDS = 1
POSSIBLE = PROXY_CORE != REST_CORE


@dataclass(frozen=True, slots=True)
class Speed:
    """Of one run."""

    requests: int
    cpu_seconds: float
    """Of the workers."""
    idle_seconds: float
    """Of the cores."""

    @property
    def requests_per_core_second(self) -> float:
        return self.requests / (self.cpu_seconds + self.idle_seconds)


@dataclass(frozen=True, slots=True)
class Scaling:
    one: Speed
    two: Speed


def measure(
    one: Proxy, two: Proxy, load_pids: Sequence[int], requests: Path, rounds: int, seconds: int, connections: int
) -> list[Scaling]:
    """`load_pids`: upstream and Valkey. `connections`: for each worker."""
    load(two.port, requests, WARM_SECONDS, 2 * connections, cores=BOTH)
    measured = []
    for _ in range(rounds):
        speeds = [
            speed(proxy, load_pids, requests, seconds, len(cores) * connections, cores)
            for proxy, cores in ((one, ONE), (two, BOTH))
        ]
        measured.append(Scaling(*speeds))
        one_core, two_cores = (each.requests_per_core_second for each in speeds)
        print(
            f"one worker {one_core:6.0f} requests a core second, two workers {two_cores:6.0f}:"
            f" {2 * two_cores / one_core:.2f}",
            flush=True,
        )
    return measured


def speed(
    proxy: Proxy, load_pids: Sequence[int], requests: Path, seconds: int, connections: int, cores: Collection[int]
) -> Speed:
    with confined(load_pids, cores):
        cpu, idle = used(proxy), idle_seconds(cores)
        done = load(proxy.port, requests, seconds, connections, cores=cores)
        return Speed(done.requests, used(proxy) - cpu, idle_seconds(cores) - idle)


def used(proxy: Proxy) -> float:
    return sum(map(cpu_seconds, proxy.workers))


@contextmanager
def confined(pids: Sequence[int], cores: Collection[int]) -> Iterator[None]:
    """All threads of these processes run on these cores, and afterwards where they were."""
    tasks = [int(task.name) for pid in pids for task in Path(f"/proc/{pid}/task").iterdir()]
    before = {task: os.sched_getaffinity(task) for task in tasks}
    for task in tasks:
        os.sched_setaffinity(task, cores)
    try:
        yield
    finally:
        for task, was in before.items():
            os.sched_setaffinity(task, was)


def goal(measured: Sequence[Scaling]) -> Goal:
    two = [2 * each.two.requests_per_core_second for each in measured]
    one = [each.one.requests_per_core_second for each in measured]
    return ratio("varied: two workers on two cores / one, the load's share subtracted", 1.8, two, one, at_least=True)


def main(rounds: int, seconds: int, connections: int) -> None:
    if not POSSIBLE:
        raise SystemExit("a second worker needs a second core")
    machine = report.machine(sys.executable)
    print(report.described(machine), flush=True)
    with Site(sys.executable) as site:
        site.redis()
        upstream, requests = site.upstream(), site.directory / "requests"
        varied(ORGS).write(requests)
        one, two = site.gateway(upstream.port), site.gateway(upstream.port, "two-workers", 2, BOTH)
        load(one.port, requests, WARM_SECONDS, connections)
        measured = measure(one, two, (upstream.worker, site.redis_pid()), requests, rounds, seconds, connections)
    judged = [goal(measured)]
    print("\n" + report.goals_table(judged))
    one_core, two_cores = (
        statistics.median(each.requests_per_core_second for each in speeds)
        for speeds in zip(*((each.one, each.two) for each in measured), strict=True)
    )
    bars = [Bars("requests a core second", {"one worker": one_core, "two workers": two_cores})]
    raw = {
        "options": {"rounds": rounds, "seconds": seconds, "connections": connections},
        "rounds": [asdict(each) for each in measured],
    }
    title = "Two workers on two cores beside one"
    folder = report.write("scaling", title, [f"Gateways run {one.runs}."], bars, judged, raw, machine)
    print(f"\nWritten to {folder.relative_to(report.ROOT)}/scaling.json, .md and .svg")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=int, default=3, help="of load in each case, each round")
    parser.add_argument("--connections", type=int, default=64, help="for each worker")
    options = parser.parse_args()
    main(options.rounds, options.seconds, options.connections)
