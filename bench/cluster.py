"""One gateway on a Redis Cluster beside one on a single server: CPU of a request, and what slots cost that move.

    python -m bench.cluster [--rounds 7] [--seconds 4] [--connections 64] [--migrate [--moves 6] [--rate 300]]

The Cluster has three primaries with a replica each. Both gateways have one worker and the same varied requests of 1,000
organizations, which lie in all shards and so at all primaries. They take turns in every round (bench/rounds.py); the
ratio of their CPU is taken within a round. The gateway under load has a core of its own where there are two; wrk,
upstream and all Valkeys share the other, on which nothing is written to disk. Seven Valkeys leave less of that core to
the load than one does, so requests a second are not compared. Beside the CPU stands how many requests
were taken in one script call: a call has the takes of one shard on a Cluster, and all takes of a turn otherwise.

With `--migrate` slots move under load, too (bench/faults/moving.py); `--rounds 0` leaves out the rest. It exits with 1
where a goal is missed.

Needs nginx and wrk; for slots that move, neither.
"""

import argparse
import asyncio
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any

import redis

from bench import report
from bench.faults import moving
from bench.faults.moving import Moved
from bench.harness import TOOLS, load, require
from bench.peers import check_charged
from bench.report import Bars, Goal, goals_table, table
from bench.rounds import Case, Rounds, Sample, ratio, rows
from bench.site import Site
from bench.traffic import ORGS, varied

SERVER, CLUSTER = "one server", "Cluster"
VARIED = "varied"
CPU_RATIO = 1.10
WARM_SECONDS = 2
TITLE = "A gateway on a Redis Cluster beside one on a single server"


@dataclass
class CountedRounds(Rounds):
    """It also counts the script calls of each run."""

    urls: Mapping[str, str] = field(default_factory=dict)
    """Of the Redis of each gateway."""
    script_calls: dict[str, list[int]] = field(default_factory=dict)

    def measure(self, case: Case, name: str) -> Sample:
        before = script_calls(self.urls[name])
        sample = super().measure(case, name)
        self.script_calls.setdefault(name, []).append(script_calls(self.urls[name]) - before)
        return sample

    def requests_a_call(self, name: str) -> float:
        """The median of the rounds."""
        counts = zip(self.samples[VARIED][name], self.script_calls[name], strict=True)
        return median(sample.requests / calls for sample, calls in counts)


def script_calls(url: str) -> int:
    """So many have all servers had that the URL names."""
    calls = 0
    for address in url.partition("://")[2].split(","):
        with redis.Redis.from_url(f"redis://{address}") as client:
            stats: Any = client.info("commandstats")
            calls += stats.get("cmdstat_evalsha", {"calls": 0})["calls"]
    return calls


def measured(given: argparse.Namespace) -> tuple[CountedRounds, str]:
    case = Case(VARIED, VARIED, (SERVER, CLUSTER), given.seconds, given.connections)
    with Site() as site:
        urls = {SERVER: site.redis(), CLUSTER: site.cluster()}
        upstream, file = site.upstream(), site.directory / "requests"
        varied(ORGS).write(file)
        proxies = {
            name: site.gateway(upstream.port, f"gateway-{number}", redis_url=url)
            for number, (name, url) in enumerate(urls.items())
        }
        of = CountedRounds(proxies, {VARIED: file}, urls=urls)
        for proxy in proxies.values():
            load(proxy.port, file, WARM_SECONDS, given.connections)
        of.run([case], given.rounds)
        for name, url in urls.items():
            admitted = sum(sample.requests for sample in of.samples[VARIED][name])
            asyncio.run(check_charged(url, admitted, ORGS))
        return of, proxies[CLUSTER].runs


def goals(cpu_of_server: Sequence[float], cpu_of_cluster: Sequence[float]) -> list[Goal]:
    """Of CPU a request, by round."""
    return [ratio("CPU of a request, Cluster / one server", CPU_RATIO, cpu_of_cluster, cpu_of_server)]


def bars(of: CountedRounds) -> list[Bars]:
    together = {name: of.requests_a_call(name) for name in (SERVER, CLUSTER)}
    return [of.bars(VARIED, "cpu_us", "CPU of a request, us"), Bars("requests in a script call", together)]


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.cluster", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=int, default=4, help="of load at each gateway, each round")
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--migrate", action="store_true", help="slots move under load, too")
    parser.add_argument("--moves", type=int, default=6, help="there and back; by default each primary gives twice")
    parser.add_argument("--rate", type=float, default=300.0, help="calls a second while slots move")
    given = parser.parse_args()
    if given.rounds < 0 or not (given.rounds or given.migrate):
        parser.error("--rounds 0 leaves something to measure with --migrate alone")
    if min(given.seconds, given.connections, given.moves, given.rate) <= 0:
        parser.error("--seconds, --connections, --moves and --rate are above 0")
    return given


def shown(
    of: CountedRounds | None, runs: str, moved: Moved | None
) -> tuple[list[str], list[Bars], list[Goal], Mapping[str, Any]]:
    """Tables, bars, goals and raw figures."""
    tables, charted, judged, raw = list[str](), list[Bars](), list[Goal](), dict[str, Any]()
    if of is not None:
        charted = bars(of)
        head = [f"medians of {len(of.script_calls[CLUSTER])}", SERVER, CLUSTER]
        tables += [table(head, rows(charted, (SERVER, CLUSTER))), f"The gateways run {runs}."]
        judged += goals(*(of.figures(VARIED, name, "cpu_us") for name in (SERVER, CLUSTER)))
        raw["samples"] = {name: list(map(asdict, samples)) for name, samples in of.samples[VARIED].items()}
        raw["script_calls"] = of.script_calls
    if moved is not None:
        tables += moving.tables(moved)
        charted.append(moving.bars(moved))
        judged += moving.goals(moved)
        raw["moved"] = moved.raw()
    return tables, charted, judged, raw


def main() -> int:
    given = parsed()
    if given.rounds:
        require(TOOLS)
    machine = report.machine()
    print(report.described(machine), flush=True)
    of, runs = measured(given) if given.rounds else (None, "")
    moved = moving.measured(given.moves, given.rate) if given.migrate else None
    tables, charted, judged, raw = shown(of, runs, moved)
    print("\n" + "\n\n".join((*tables, goals_table(judged))))
    folder = report.write("cluster", TITLE, tables, charted, judged, {"options": vars(given), **raw}, machine)
    print(f"Written to {folder.relative_to(report.ROOT)}/cluster.json, .md and .svg")
    return 0 if all(goal.met for goal in judged) else 1


if __name__ == "__main__":
    sys.exit(main())
