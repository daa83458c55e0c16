"""Several gateways behind one balancer, beside one behind the same.

    python -m bench.gateways [--gateways 4] [--rounds 5] [--seconds 5] [--connections 64]

nginx shares varied requests among the gateways, each of one worker; they have one Valkey. Each gateway has as many
connections: with fewer, its batches would be smaller. One gateway has one core, on which wrk, nginx, upstream and
Valkey run, too; several have two cores, with the same on them. What the load takes is subtracted as bench/scaling.py
says: requests are divided by the core seconds that the gateways used or nobody did. So a request that costs more CPU
at one of several gateways counts against them, and so does one that waits for the others.

Needs nginx and wrk, and two cores.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median

from bench import report, scaling
from bench.harness import TOOLS, load, require
from bench.report import Bars, Goal, goals_table, table
from bench.rounds import ratio, rows
from bench.scaling import BOTH, ONE, Scaling, Speed, speed
from bench.site import Proxy, Site
from bench.traffic import ORGS, varied

CPU_RATIO, LEFT_RATIO = 1.10, 0.9
TITLE = "Gateways behind one balancer"


def behind(site: Site, gateways: Sequence[Proxy], name: str) -> tuple[Proxy, int]:
    """The gateways as one, at the balancer's port; and the balancer's worker."""
    balancer = site.balancer([each.port for each in gateways], name)
    workers = tuple(worker for each in gateways for worker in each.workers)
    return Proxy(balancer.port, workers[0], workers, gateways[0].runs), balancer.worker


def measured(given: argparse.Namespace) -> tuple[list[Scaling], str]:
    with Site() as site:
        site.redis()
        upstream, file = site.upstream(), site.directory / "requests"
        varied(ORGS).write(file)
        alone, first = behind(site, [site.gateway(upstream.port, "gateway-of-one", cores=ONE)], "before-one")
        several, second = behind(
            site,
            [site.gateway(upstream.port, f"gateway-{n}", cores=BOTH) for n in range(1, given.gateways + 1)],
            "before-several",
        )
        pids = [*upstream.workers, site.redis_pid()]
        for proxy in (alone, several):
            load(proxy.port, file, scaling.WARM_SECONDS, given.connections, cores=BOTH)
        rounds = [one_round(alone, several, [*pids, first], [*pids, second], file, given) for _ in range(given.rounds)]
        return rounds, several.runs


def one_round(
    alone: Proxy,
    several: Proxy,
    of_alone: Sequence[int],
    of_several: Sequence[int],
    file: Path,
    given: argparse.Namespace,
) -> Scaling:
    one = speed(alone, of_alone, file, given.seconds, given.connections, ONE)
    many = speed(several, of_several, file, given.seconds, given.connections * given.gateways, BOTH)
    print(
        f"one gateway {cpu_us(one):.0f} us a request, {given.gateways} gateways {cpu_us(many):.0f} us",
        flush=True,
    )
    return Scaling(one, many)


def goals(rounds: Sequence[Scaling], gateways: int) -> list[Goal]:
    one, many = _apart(rounds)
    cpu_of_one, cpu_of_many = (list(map(cpu_us, speeds)) for speeds in (one, many))
    left_of_one, left_of_many = ([each.requests_per_core_second for each in speeds] for speeds in (one, many))
    about = f"requests a core second, {gateways} gateways / one"
    return [
        ratio(f"CPU of a request, {gateways} gateways / one", CPU_RATIO, cpu_of_many, cpu_of_one),
        ratio(about, LEFT_RATIO, left_of_many, left_of_one, at_least=True),
    ]


def cpu_us(speed: Speed) -> float:
    """Of a request."""
    return speed.cpu_seconds / speed.requests * 1e6


def _apart(rounds: Sequence[Scaling]) -> tuple[list[Speed], list[Speed]]:
    return [each.one for each in rounds], [each.two for each in rounds]


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.gateways", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--gateways", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--connections", type=int, default=64, help="for each gateway")
    return parser.parse_args()


def main() -> int:
    given = parsed()
    require(TOOLS)
    if not scaling.POSSIBLE:
        raise SystemExit("This takes two cores.")
    machine = report.machine()
    print(report.described(machine), flush=True)
    rounds, runs = measured(given)
    judged = goals(rounds, given.gateways)
    sides = dict(zip(("one gateway", f"{given.gateways} gateways"), _apart(rounds), strict=True))
    bars = [
        Bars("CPU of a request, us", {name: median(map(cpu_us, speeds)) for name, speeds in sides.items()}),
        Bars(
            "requests a core second that the load left",
            {name: median(each.requests_per_core_second for each in speeds) for name, speeds in sides.items()},
        ),
    ]
    shown = table(["medians", *sides], rows(bars, list(sides)))
    print("\n" + "\n\n".join((shown, goals_table(judged), f"The gateways run {runs}.")))
    raw = {"options": vars(given), "rounds": [asdict(each) for each in rounds], "runs": runs}
    folder = report.write("gateways", TITLE, [shown], bars, judged, raw, machine)
    print(f"Written to {folder.relative_to(report.ROOT)}/gateways.json, .md and .svg")
    return 0 if all(goal.met for goal in judged) else 1


if __name__ == "__main__":
    sys.exit(main())
