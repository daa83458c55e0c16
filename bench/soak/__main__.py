"""Hours of load with random faults: `make soak`.

    python -m bench.soak [--minutes 60] [--rate 200] [--every 20] [--seed N]

Two gateways and two control planes run on one Redis and one PostgreSQL, and clients call at a rate, the other gateway
where one does not answer. Every now and then something happens to one of them (bench/soak/faults.py); what was struck
answers again before the next fault. In the end the clients' own books, the rows, the counters and Redis must say the
same: nothing is lost, counted twice, or given away. The first gateway and the first control plane are never struck
themselves, and must hold no more memory and descriptors at the end than after a warm-up, which is judged from half an
hour on. It exits with 1 where one of that is not so.
"""

import argparse
import asyncio
import random
import sys
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

import uvloop

from bench import report
from bench.busyness import idle_share, machine_times
from bench.open_loop.pacing import quantile
from bench.report import Goal, goals_table, table
from bench.soak.audit import Findings, counted, findings
from bench.soak.faults import Faults, in_turns
from bench.soak.lines import lines
from bench.soak.processes import START_SECONDS, Installation
from bench.soak.traffic import Books, Traffic
from bench.soak.watching import (
    DESCRIPTORS_MORE,
    JUDGED_SECONDS,
    MIB,
    SLOPE_MIB_PER_HOUR,
    Growth,
    Series,
    growth,
    of_gateway,
    thinned,
)
from devstack.sample_process import answers

LOOK_SECONDS = 2.0
CALM_SECONDS = 15.0  # after the last fault
TITLE = "Memory of each process during a soak"


@dataclass
class Struck:
    """What one kind of fault has cost."""

    times: int = 0
    failed: int = 0
    """Calls that were not answered, or by 5xx, until all was ready again."""
    longest_seconds: float = 0.0
    """From the end of the fault until all was ready again."""


@dataclass
class Soak:
    seconds: float
    struck: dict[str, Struck] = field(default_factory=lambda: defaultdict(Struck))
    series: dict[str, Series] = field(default_factory=lambda: defaultdict(Series))
    wrong: list[str] = field(default_factory=list)
    """What must not be, in one line each."""
    idle: float | None = None
    """Share of the machine's time in which nothing ran."""


async def watch(at: Installation, soak: Soak, started: float) -> None:
    gateway, control = at.gateways[0], at.controls[0]
    watched = {**of_gateway(gateway.name, gateway.pid, gateway.workers()), control.name: control.pid}
    while True:
        for name, pid in list(watched.items()):
            try:
                soak.series[name].add(time.monotonic() - started, pid)
            except OSError:
                soak.wrong.append(f"{name} has ended, and nobody had struck it")
                del watched[name]
        await asyncio.sleep(LOOK_SECONDS)


async def ready(at: Installation) -> bool:
    """Whether all answer that they are, within `START_SECONDS`."""
    deadline = time.monotonic() + START_SECONDS
    for part in (*at.gateways, *at.controls):
        while not await asyncio.to_thread(answers, part.port, "/-/ready"):
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(0.1)
    return True


async def strike(at: Installation, soak: Soak, books: Books, chance: random.Random, every: float, until: float) -> None:
    upcoming = in_turns(Faults(at, chance).all(), chance)
    while True:
        pause = every * chance.uniform(0.5, 1.5)
        if time.monotonic() + pause > until:
            return
        await asyncio.sleep(pause)
        fault = next(upcoming)
        failed, struck = books.failed, soak.struck[fault.name]
        await fault.strike()
        ended = time.monotonic()
        if not await ready(at):
            soak.wrong.append(f"{fault.name}: not all were ready again after {START_SECONDS:g} s")
        recovered = time.monotonic() - ended
        struck.times += 1
        struck.failed += books.failed - failed
        struck.longest_seconds = max(struck.longest_seconds, recovered)
        print(
            f"{soak.seconds - (until - ended) - CALM_SECONDS:7.0f} s  {fault.name:40}"
            f" {books.failed - failed:5} calls failed, ready after {recovered:.1f} s",
            flush=True,
        )


async def run(at: Installation, given: argparse.Namespace) -> tuple[Soak, Books, Findings]:
    soak, chance = Soak(given.minutes * 60), random.Random(given.seed)  # noqa: S311 - faults, no secrets
    traffic = Traffic([part.port for part in at.gateways], [part.port for part in at.controls], given.rate)
    await traffic.prepare()
    started, times = time.monotonic(), machine_times()
    until = started + soak.seconds - CALM_SECONDS
    traffic.start()
    watching = asyncio.create_task(watch(at, soak, started))
    await strike(at, soak, traffic.books, chance, given.every, until)
    await asyncio.sleep(max(0.0, until + CALM_SECONDS - time.monotonic()))
    watching.cancel()
    soak.idle = idle_share(times, machine_times())
    await traffic.stop()
    return soak, traffic.books, findings(traffic.books, await counted(at, traffic.books))


def goals(soak: Soak, found: Findings, grown: Mapping[str, Growth]) -> list[Goal]:
    kept = found.goals()
    kept.append(Goal("processes that ended, or faults that were not recovered from", len(soak.wrong), 0))
    if soak.seconds < JUDGED_SECONDS:
        return kept
    for name, each in grown.items():
        kept.append(Goal(f"{name}: memory", each.mib_per_hour, SLOPE_MIB_PER_HOUR, "MiB/h"))
        more = each.descriptors_last - each.descriptors_first
        kept.append(Goal(f"{name}: more descriptors than at first", max(0.0, more), DESCRIPTORS_MORE))
    return kept


def tables(soak: Soak, books: Books, grown: Mapping[str, Growth]) -> list[str]:
    faults = [
        [name, str(each.times), f"{each.failed:,}", f"{each.longest_seconds:.1f} s"]
        for name, each in sorted(soak.struck.items())
    ]
    memory = [
        [
            name,
            f"{each.first_mib:.1f}",
            f"{each.last_mib:.1f}",
            f"{each.mib_per_hour:+.2f}",
            f"{each.descriptors_first:g}",
            f"{each.descriptors_last:g}",
        ]
        for name, each in grown.items()
    ]
    statuses = ", ".join(f"{status}: {count:,}" for status, count in books.statuses.most_common())
    latencies = sorted(books.latencies)
    ms = [f"{quantile(latencies, share) * 1000:,.1f} ms" for share in (0.5, 0.99, 0.999)]
    times = f"p50 {ms[0]}, p99 {ms[1]}, p99.9 {ms[2]}"
    idle = "" if soak.idle is None else f" {soak.idle:.0%} of the machine's time was idle."
    return [
        f"{books.statuses.total():,} calls in {soak.seconds / 60:g} minutes, answers by status: {statuses}.",
        f"Of what was admitted, from when it was due, the times of faults included: {times}.{idle}",
        table(["fault", "times", "calls failed", "ready again after, at most"], faults),
        table(["process", "MiB, first", "MiB, last", "MiB/h", "descriptors, first", "last"], memory),
        *soak.wrong,
    ]


def written(shown: Sequence[str], soak: Soak, books: Books, judged: Sequence[Goal], given: argparse.Namespace) -> str:
    raw = {
        "options": {"minutes": given.minutes, "rate": given.rate, "every": given.every, "seed": given.seed},
        "statuses": {str(status): count for status, count in books.statuses.items()},
        "faults": {name: asdict(each) for name, each in soak.struck.items()},
        "machine_idle": soak.idle,
        "series": {name: asdict(thinned(each)) for name, each in soak.series.items()},
    }
    folder = report.write("soak", TITLE, shown, [], judged, raw, report.machine())
    points = {
        name: [(s / 60, r / MIB) for s, r in zip(each.seconds, each.resident, strict=True)]
        for name, each in ((name, thinned(series)) for name, series in soak.series.items())
    }
    (folder / "soak.svg").write_text(lines(TITLE, "MiB", points))
    return f"{folder.relative_to(report.ROOT)}/soak.json, .md and .svg"


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.soak", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--rate", type=float, default=200.0, help="calls a second")
    parser.add_argument("--every", type=float, default=20.0, help="seconds between faults, on average")
    parser.add_argument("--seed", type=int, default=None, help="plays the faults of an earlier run again")
    given = parser.parse_args()
    if given.minutes * 60 < 2 * CALM_SECONDS or given.rate <= 0 or given.every <= 0:
        parser.error(f"--minutes is at least {2 * CALM_SECONDS / 60:g}; --rate and --every are above 0")
    given.seed = random.randrange(2**31) if given.seed is None else given.seed  # noqa: S311 - faults, no secrets
    print(f"{given.minutes:g} minutes at {given.rate:g} calls/s, a fault every {given.every:g} s, seed {given.seed}")
    with Installation() as at, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        soak, books, found = runner.run(run(at, given))
    grown = {name: each for name, series in soak.series.items() if (each := growth(series)) is not None}
    judged, shown = goals(soak, found, grown), tables(soak, books, grown)
    print("\n" + "\n\n".join([*shown, goals_table(judged), str(found)]))
    print(f"Written to {written(shown, soak, books, judged, given)}")
    return 0 if all(goal.met for goal in judged) else 1


if __name__ == "__main__":
    sys.exit(main())
