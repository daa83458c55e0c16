"""Rolling restarts under load, in two ways: no client may notice.

    python -m bench.restarts [--rate 500] [--rounds 10] [--requests 100000] [--quick]

Two gateways serve clients that use both, as behind a balancer. First all workers are replaced by a reload (SIGHUP), ten
times; then each gateway ends (SIGTERM) and starts again, one after the other, ten times. Calls are due at even times,
whatever became of those before, on connections that are kept; beside them are clients that are silent for seconds, half
of them at a distance (bench/restarts/distant.py). No call is tried twice. Root runs the second gateway without
root's rights. It exits with 1 where a call failed, or what was admitted is not what was counted.
"""

import argparse
import asyncio
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import partial

import uvloop

from bench import report
from bench.busyness import idle_share, machine_times
from bench.report import Bars, Goal, goals_table, table
from bench.restarts.distant import Silences, SilentClients
from bench.restarts.rolling import Step, reload, replace, taken
from bench.soak.audit import Findings, counted, findings
from bench.soak.processes import Installation
from bench.soak.traffic import Books, Traffic

CLIENTS = SILENT_CLIENTS = 64
SILENT_SECONDS = {"reloaded": 20.0, "replaced": 4.0}
"""The longest silence. A reload leaves a connection as it is; a gateway that ends waits `drain.idle_seconds` for it."""
TITLE = "Calls in each round of restarts"
QUICK = {"rate": 200.0, "rounds": 2, "requests": 4_000}


@dataclass
class Way:
    """Of restarting, and what came of it."""

    name: str
    steps: list[Step] = field(default_factory=list)
    silences: Silences = field(default_factory=Silences)

    @property
    def rounds(self) -> int:
        return sum(step.seconds > 0 for step in self.steps)

    @property
    def calls(self) -> int:
        return sum(step.calls for step in self.steps)

    @property
    def failed(self) -> int:
        return sum(step.failed for step in self.steps)


async def restarted(at: Installation, traffic: Traffic, way: Way, given: argparse.Namespace) -> None:
    ports = [gateway.port for gateway in at.gateways]
    silent = SilentClients(ports, traffic.requests, traffic.note, SILENT_CLIENTS, SILENT_SECONDS[way.name])
    silent.start()
    restart = partial(reload if way.name == "reloaded" else replace, at.gateways)
    loop, seconds = asyncio.get_running_loop(), given.requests / given.rate / given.rounds
    for number in range(1, given.rounds + 1):
        until = loop.time() + seconds
        way.steps.append(await taken(f"gateways {way.name}, {number}", traffic.books, until, restart))
    before = traffic.books.statuses.total(), traffic.books.failed
    await silent.stop()
    rest = traffic.books.statuses.total() - before[0], traffic.books.failed - before[1]
    way.steps.append(Step(f"gateways {way.name}, the rest", 0.0, *rest))
    way.silences = silent.silences


async def run(at: Installation, given: argparse.Namespace) -> tuple[list[Way], Books, Findings]:
    traffic = Traffic([part.port for part in at.gateways], [part.port for part in at.controls], given.rate, CLIENTS)
    await traffic.prepare()
    traffic.start()
    ways = [Way(name) for name in SILENT_SECONDS]
    for way in ways:
        await restarted(at, traffic, way, given)
    await traffic.stop()
    return ways, traffic.books, findings(traffic.books, await counted(at, traffic.books))


def goals(ways: Sequence[Way], found: Findings, given: argparse.Namespace) -> list[Goal]:
    judged = []
    for way in ways:
        judged += [
            Goal(f"{way.name}: calls", way.calls, given.requests, at_least=True),
            Goal(f"{way.name}: calls that failed", way.failed, 0),
            Goal(f"{way.name}: silent connections closed without a word", way.silences.closed, 0),
        ]
    return judged + found.goals()


def tables(ways: Sequence[Way], books: Books, idle: float | None) -> list[str]:
    rows = [
        [
            f"all gateways {way.name}",
            str(way.rounds),
            f"{way.calls:,}",
            f"{way.failed:,}",
            f"{max(step.seconds for step in way.steps):.1f} s",
            f"{way.silences.kept:,}",
            f"{SILENT_SECONDS[way.name]:g} s",
        ]
        for way in ways
    ]
    head = ["what was done", "times", "calls", "failed", "longest round", "calls after a silence", "longest silence"]
    statuses = ", ".join(f"{status}: {count:,}" for status, count in books.statuses.most_common())
    idle_text = "" if idle is None else f" {idle:.0%} of the machine's time was idle."
    accounts = "root, with and without its rights" if os.geteuid() == 0 else "an ordinary user"
    return [
        table(head, rows),
        f"Answers by status: {statuses}. The gateways were run by {accounts}.{idle_text}",
    ]


def written(shown: Sequence[str], ways: Sequence[Way], judged: Sequence[Goal], given: argparse.Namespace) -> str:
    raw = {
        "options": {"rate": given.rate, "rounds": given.rounds, "requests": given.requests, "patient": given.patient},
        "ways": {way.name: {"silences": asdict(way.silences), "steps": [asdict(s) for s in way.steps]} for way in ways},
    }
    bars = [
        Bars(f"gateways {way.name}", {f"round {at}": float(step.calls) for at, step in enumerate(way.steps[:-1], 1)})
        for way in ways
    ]
    folder = report.write("restarts", TITLE, shown, bars, judged, raw, report.machine())
    return f"{folder.relative_to(report.ROOT)}/restarts.json, .md and .svg"


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.restarts", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rate", type=float, default=500.0, help="calls a second")
    parser.add_argument("--rounds", type=int, default=10, help="restarts of all gateways, in each way")
    parser.add_argument("--requests", type=int, default=100_000, help="at least, in each way")
    parser.add_argument(
        "--patient", action="store_true", help="Redis has a minute for a reply: where others use the machine, too"
    )
    parser.add_argument("--quick", action="store_true", help="two rounds of 2,000 calls, and no report")
    given = parser.parse_args()
    if min(given.rate, given.rounds, given.requests) <= 0:
        parser.error("--rate, --rounds and --requests are above 0")
    if given.quick:
        vars(given).update(QUICK)
    return given


def main() -> int:
    given, times = parsed(), machine_times()
    with (
        Installation(second_without_rights=True, patient=given.patient) as at,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        ways, books, found = runner.run(run(at, given))
    judged, shown = goals(ways, found, given), tables(ways, books, idle_share(times, machine_times()))
    print("\n" + "\n\n".join([*shown, goals_table(judged)]))
    if not given.quick:
        print(f"Written to {written(shown, ways, judged, given)}")
    return 0 if all(goal.met for goal in judged) else 1


if __name__ == "__main__":
    sys.exit(main())
