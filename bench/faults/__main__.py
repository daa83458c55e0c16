"""The servers of the ledger are struck under load, at each durability level: `make faults`.

    python -m bench.faults [--faults 30] [--levels memory,aof,replica] [--rate 100] [--seed N] [--down-after-ms 500]

Two gateways and two control planes run on a primary with two replicas, which three Sentinels watch, and clients keep
books as in a soak. At each level as many faults come in a random order, each when the servers are whole again
(bench/faults/striking.py). In the end the clients' books, the rows, the counters and Redis must say the same. It exits
with 1 where something was lost, counted twice or given away, and where more than 5 of 100 failovers took longer than
3 s.
"""

import argparse
import asyncio
import random
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import chain, islice

import uvloop

from bench import report
from bench.busyness import idle_share, machine_times
from bench.faults.servers import DOWN_AFTER_MS, LEVELS, WatchedInstallation
from bench.faults.striking import Faults, Outage
from bench.open_loop.pacing import quantile
from bench.report import Bars, Goal, goals_table, table
from bench.soak.audit import Findings, counted, findings
from bench.soak.faults import in_turns
from bench.soak.traffic import Books, Traffic

AGAIN_SECONDS = 3.0
CALM_SECONDS = 8.0  # after the last fault


@dataclass
class Level:
    """What came of one durability level."""

    found: Findings
    books: Books
    outages: Mapping[str, list[Outage]]
    """By fault."""
    idle: float | None
    wrong: list[str] = field(default_factory=list)

    @property
    def all_outages(self) -> list[Outage]:
        return list(chain.from_iterable(self.outages.values()))


async def run(at: WatchedInstallation, level: str, given: argparse.Namespace) -> Level:
    chance = random.Random(f"{given.seed} {level}")  # noqa: S311 - faults, no secrets
    traffic = Traffic([part.port for part in at.gateways], [part.port for part in at.controls], given.rate)
    await traffic.prepare()
    times = machine_times()
    traffic.start()
    faults, outages, wrong = Faults(at, traffic, chance), defaultdict[str, list[Outage]](list), list[str]()
    for number, fault in enumerate(islice(in_turns(faults.all(), chance), given.faults)):
        try:
            outage = await faults.strike(fault)
        except TimeoutError:
            wrong.append(f"{level}: {fault.name}: was not over in time")
            break
        outages[fault.name].append(outage)
        since = "" if outage.of_failover is None else f", {outage.of_failover:.2f} s after the failover"
        over = traffic.books.over
        print(f"{level:8} {number + 1:4}  {fault.name:48} {outage.of_fault:5.2f} s{since}, over {over}", flush=True)
    await asyncio.sleep(CALM_SECONDS)
    idle = idle_share(times, machine_times())
    await traffic.stop()
    found = findings(traffic.books, await counted(at, traffic.books))
    return Level(found, traffic.books, outages, idle, wrong)


def quantiles(seconds: Sequence[float]) -> list[str]:
    ordered = sorted(seconds)
    return [f"{quantile(ordered, share):.2f} s" if ordered else "-" for share in (0.5, 0.95)]


def failovers(outages: Iterable[Outage]) -> tuple[list[float], list[float]]:
    """Seconds of those that had one, since the fault and since the failover, in ascending order."""
    both = [(each.of_fault, each.of_failover) for each in outages if each.of_failover is not None]
    return sorted(after for after, _ in both), sorted(since for _, since in both)


def goals(levels: Mapping[str, Level]) -> list[Goal]:
    judged = list[Goal]()
    for name, level in levels.items():
        judged += [Goal(f"{name}: {goal.about}", goal.measured, goal.bound) for goal in level.found.goals()]
    after, since = failovers(chain.from_iterable(level.all_outages for level in levels.values()))
    for about, seconds in (("the fault", after), ("the failover", since)):
        if seconds:
            judged.append(Goal(f"from {about} to admitting again, p95", quantile(seconds, 0.95), AGAIN_SECONDS, "s"))
    judged.append(Goal("faults that were not over in time", sum(len(level.wrong) for level in levels.values()), 0))
    return judged


def _counts(name: str, level: Level) -> list[str]:
    found = [f"{count:,}" for count in asdict(level.found).values()]
    calls = [f"{level.books.admitted.total():,}", f"{level.books.failed:,}"]
    return [name, str(len(level.all_outages)), *found, *calls]


def _times(name: str, fault: str, outages: Sequence[Outage]) -> list[str]:
    since = [each.of_failover for each in outages if each.of_failover is not None]
    return [name, fault, str(len(outages)), *quantiles([each.of_fault for each in outages]), *quantiles(since)]


def tables(levels: Mapping[str, Level]) -> list[str]:
    counts = [_counts(name, level) for name, level in levels.items()]
    times = [
        _times(name, fault, outages)
        for name, level in levels.items()
        for fault, outages in sorted(level.outages.items())
    ]
    names = ["lost", "duplicated", "over-admitted", "drift", "unaccounted", "calls admitted", "calls failed"]
    idle = ", ".join(f"{name} {level.idle:.0%}" for name, level in levels.items() if level.idle is not None)
    return [
        table(["level", "faults", *names], counts),
        "Until both gateways admitted again, since the fault and since the Sentinels named another primary:",
        table(["level", "fault", "times", "p50", "p95", "p50, failover", "p95, failover"], times),
        f"Of the machine's time was idle: {idle}.",
        *chain.from_iterable(level.wrong for level in levels.values()),
    ]


def bars(levels: Mapping[str, Level]) -> list[Bars]:
    """Of each level that had a failover."""
    of_levels = {name: failovers(level.all_outages) for name, level in levels.items()}
    shown = {name: times for name, times in of_levels.items() if times[0]}
    titles = ("from the fault to admitting again, p95, s", "from the failover to admitting again, p95, s")
    return [
        Bars(title, {name: quantile(times[which], 0.95) for name, times in shown.items()})
        for which, title in enumerate(titles)
        if shown
    ]


def written(
    shown: Sequence[str], levels: Mapping[str, Level], judged: Sequence[Goal], given: argparse.Namespace
) -> str:
    raw = {
        "options": vars(given),
        "levels": {
            name: {
                "findings": asdict(level.found),
                "statuses": {str(status): count for status, count in level.books.statuses.items()},
                "outages": {fault: [asdict(each) for each in outages] for fault, outages in level.outages.items()},
                "machine_idle": level.idle,
            }
            for name, level in levels.items()
        },
    }
    title = f"Faults behind Sentinels, down-after-milliseconds {given.down_after_ms}"
    folder = report.write("faults", title, shown, bars(levels), judged, raw, report.machine())
    return f"{folder.relative_to(report.ROOT)}/faults.json, .md and .svg"


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.faults", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--faults", type=int, default=30, help="at each level")
    parser.add_argument("--levels", default=",".join(LEVELS))
    parser.add_argument("--rate", type=float, default=100.0, help="calls a second")
    parser.add_argument("--seed", type=int, default=None, help="plays the faults of an earlier run again")
    parser.add_argument("--down-after-ms", type=int, default=DOWN_AFTER_MS, help="of the Sentinels")
    given = parser.parse_args()
    names = given.levels.split(",")
    if given.faults < 1 or given.rate <= 0 or set(names) - LEVELS.keys():
        parser.error(f"--faults and --rate are above 0; --levels are of {','.join(LEVELS)}")
    given.seed = random.randrange(2**31) if given.seed is None else given.seed  # noqa: S311 - faults, no secrets
    print(f"{given.faults} faults at {given.levels}, {given.rate:g} calls/s, seed {given.seed}", flush=True)
    levels = dict[str, Level]()
    for name in names:
        with (
            WatchedInstallation(name, given.down_after_ms) as at,
            asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
        ):
            levels[name] = runner.run(run(at, name, given))
    judged, shown = goals(levels), tables(levels)
    print("\n" + "\n\n".join([*shown, goals_table(judged)]))
    print(f"Written to {written(shown, levels, judged, given)}")
    return 0 if all(goal.met for goal in judged) else 1


if __name__ == "__main__":
    sys.exit(main())
