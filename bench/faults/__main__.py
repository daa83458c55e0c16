"""The servers of the ledger are struck under load, at each durability level: `make faults`.

    python -m bench.faults [--faults 30] [--levels memory,aof,replica] [--rate 100] [--seed N] [--down-after-ms 500]
    python -m bench.faults --merge FILE...

Two gateways and two control planes run on a primary with two replicas, which three Sentinels watch, or on a Cluster
(`--topology cluster`), and clients keep books as in a soak. At each level as many faults come in a random order, each
when the servers are whole again (bench/faults/striking.py). In the end the clients' books, the rows, the counters and
Redis must say the same. It exits with 1 where something was lost, counted twice or given away, and where more than 5 of
100 failovers took longer than 3 s, or on a Cluster longer than its node timeout and a second. `--merge` puts the
figures of several runs together (their faults.json), and strikes nothing.

Each call is looked up among the rows, by its request id: after each fault, and in the end. Where the rows of one are
not what it took, that is told, and the logs of all parts are kept.
"""

import argparse
import asyncio
import json
import random
import shutil
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from itertools import chain, islice
from pathlib import Path
from typing import Any

import asyncpg
import uvloop

from bench import report
from bench.busyness import idle_share, machine_times
from bench.faults.cluster import NODE_TIMEOUT_MS, ClusterInstallation
from bench.faults.levels import Level, merged
from bench.faults.servers import DOWN_AFTER_MS, LEVELS, WatchedInstallation
from bench.faults.striking import PROBE, Faults, Outage
from bench.open_loop.pacing import quantile
from bench.report import Bars, Goal, goals_table, table
from bench.soak.audit import counted, findings, miscounted
from bench.soak.faults import in_turns
from bench.soak.traffic import Books, Traffic

AGAIN_SECONDS = 3.0
CALM_SECONDS = 8.0  # after the last fault
ROW_SECONDS = 5.0  # until a call has its row, where nothing is away
SAME = ("topology", "down_after_ms", "node_timeout_ms")
"""Options in which runs must agree that are put together."""


async def run(at: WatchedInstallation | ClusterInstallation, level: str, given: argparse.Namespace) -> Level:
    chance = random.Random(f"{given.seed} {level}")  # noqa: S311 - faults, no secrets
    traffic = Traffic([part.port for part in at.gateways], [part.port for part in at.controls], given.rate)
    traffic.books.answered = {}
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
        what = f"{fault.name:48} {outage.of_fault:5.2f} s{since}, over {traffic.books.over}"
        off = await looked_up(at.dsn, traffic.books, time.time() - ROW_SECONDS)
        print(f"{level:8} {number + 1:4}  {moment(time.time())}  {what}, miscounted {len(off)}", flush=True)
    await asyncio.sleep(CALM_SECONDS)
    idle = idle_share(times, machine_times())
    await traffic.stop()
    found = findings(traffic.books, await counted(at, traffic.books))
    if off := await looked_up(at.dsn, traffic.books, time.time()):
        for request_id, how in sorted(off.items()):
            print(f"{level:8} {request_id} of {how}")
        print(f"The logs are kept in {kept_logs(at.directory)}", flush=True)
    return Level(found, traffic.books.admitted.total(), traffic.books.failed, dict(outages), idle, wrong)


async def looked_up(dsn: str, books: Books, answered_before: float) -> dict[str, str]:
    connection = await asyncpg.connect(dsn)
    try:
        return await miscounted(connection, books, answered_before)
    finally:
        await connection.close()


def moment(seconds: float) -> str:
    """Of the day, in UTC, as logs have it."""
    return datetime.fromtimestamp(seconds, UTC).time().isoformat("milliseconds")


def kept_logs(directory: Path) -> Path:
    kept = Path(tempfile.mkdtemp(prefix="quotagate-faults-"))
    for log in directory.rglob("*.log"):
        shutil.copy(log, kept / "-".join(log.relative_to(directory).parts))
    return kept


def quantiles(seconds: Sequence[float]) -> list[str]:
    ordered = sorted(seconds)
    return [f"{quantile(ordered, share):.2f} s" if ordered else "-" for share in (0.5, 0.95)]


def failovers(outages: Iterable[Outage]) -> tuple[list[float], list[float]]:
    """Seconds of those that had one, since the fault and since the failover, in ascending order."""
    both = [(each.of_fault, each.of_failover) for each in outages if each.of_failover is not None]
    return sorted(after for after, _ in both), sorted(since for _, since in both)


def goals(levels: Mapping[str, Level], again_seconds: float = AGAIN_SECONDS) -> list[Goal]:
    judged = list[Goal]()
    for name, level in levels.items():
        judged += [Goal(f"{name}: {goal.about}", goal.measured, goal.bound) for goal in level.found.goals()]
    after, since = failovers(chain.from_iterable(level.all_outages for level in levels.values()))
    for about, seconds in (("the fault", after), ("the failover", since)):
        if seconds:
            judged.append(Goal(f"from {about} to admitting again, p95", quantile(seconds, 0.95), again_seconds, "s"))
    judged.append(Goal("faults that were not over in time", sum(len(level.wrong) for level in levels.values()), 0))
    return judged


def _counts(name: str, level: Level) -> list[str]:
    found = [f"{count:,}" for count in asdict(level.found).values()]
    calls = [f"{level.admitted:,}", f"{level.failed:,}"]
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
        "Until both gateways admitted again, since the fault and since another primary was named:",
        table(["level", "fault", "times", "p50", "p95", "p50, failover", "p95, failover"], times),
        f"Of the machine's time was idle: {idle}.",
        *chain.from_iterable(level.wrong for level in levels.values()),
    ]


def bars(levels: Mapping[str, Level]) -> list[Bars]:
    """Of each level, and of each fault at all levels, that had a failover."""
    of_faults = defaultdict[str, list[Outage]](list)
    for fault, outages in chain.from_iterable(level.outages.items() for level in levels.values()):
        of_faults[fault] += outages
    by_level = {name: failovers(level.all_outages) for name, level in levels.items()}
    by_fault = {name: failovers(outages) for name, outages in sorted(of_faults.items())}
    return [
        Bars(f"from the {moment} to admitting again, p{share * 100:.0f}, s, by {group}", shown)
        for group, times, shares in (("level", by_level, (0.95,)), ("fault", by_fault, (0.5, 0.95)))
        for which, moment in enumerate(("fault", "failover"))
        for share in shares
        if (shown := {name: quantile(each[which], share) for name, each in times.items() if each[0]})
    ]


def told(levels: Mapping[str, Level], options: Mapping[str, Any]) -> int:
    """Shows and writes what came of them; the exit status."""
    judged, shown = goals(levels, again_within(options)), tables(levels)
    print("\n" + "\n\n".join([*shown, goals_table(judged)]))
    print(f"Written to {written(shown, levels, judged, options)}")
    return 0 if all(goal.met for goal in judged) else 1


def written(
    shown: Sequence[str], levels: Mapping[str, Level], judged: Sequence[Goal], options: Mapping[str, Any]
) -> str:
    raw = {
        "options": options,
        "levels": {name: level.raw() for name, level in levels.items()},
    }
    first = options.get("merged", [options])[0]
    of_cluster = first["topology"] == "cluster"
    title = (
        f"Faults of a Cluster, cluster-node-timeout {first['node_timeout_ms']}"
        if of_cluster
        else f"Faults behind Sentinels, down-after-milliseconds {first['down_after_ms']}"
    )
    name = "faults-cluster" if of_cluster else "faults"
    folder = report.write(name, title, shown, bars(levels), judged, raw, report.machine())
    return f"{folder.relative_to(report.ROOT)}/{name}.json, .md and .svg"


def again_within(options: Mapping[str, Any]) -> float:
    """In so many seconds requests are to be admitted again: a Cluster first waits for its own node timeout."""
    first = options.get("merged", [options])[0]
    return float(first["node_timeout_ms"]) / 1000 + 1 if first["topology"] == "cluster" else AGAIN_SECONDS


def installation(level: str, given: argparse.Namespace) -> WatchedInstallation | ClusterInstallation:
    if given.topology == "cluster":
        return ClusterInstallation(level, PROBE, given.node_timeout_ms)
    return WatchedInstallation(level, given.down_after_ms)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.faults", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--faults", type=int, default=30, help="at each level")
    parser.add_argument("--levels", default=",".join(LEVELS))
    parser.add_argument("--rate", type=float, default=100.0, help="calls a second")
    parser.add_argument("--seed", type=int, default=None, help="plays the faults of an earlier run again")
    parser.add_argument("--down-after-ms", type=int, default=DOWN_AFTER_MS, help="of the Sentinels")
    parser.add_argument("--topology", choices=("sentinel", "cluster"), default="sentinel")
    parser.add_argument("--node-timeout-ms", type=int, default=NODE_TIMEOUT_MS, help="of the Cluster")
    parser.add_argument("--merge", nargs="+", type=Path, metavar="FILE", help="faults.json of earlier runs")
    given = parser.parse_args()
    if given.merge:
        try:
            levels = merged(runs := [json.loads(file.read_text()) for file in given.merge])
            kinds = {tuple(run["options"][name] for name in SAME) for run in runs}
        except (OSError, ValueError, KeyError, TypeError) as e:
            parser.error(f"--merge: this is no faults.json of this benchmark: {e!r}")
        if len(kinds) > 1:
            parser.error(f"--merge: these runs differ in {', '.join(SAME)}")
        return told(levels, {"merged": [run["options"] for run in runs]})
    names = given.levels.split(",")
    if given.faults < 1 or given.rate <= 0 or set(names) - LEVELS.keys():
        parser.error(f"--faults and --rate are above 0; --levels are of {','.join(LEVELS)}")
    given.seed = random.randrange(2**31) if given.seed is None else given.seed  # noqa: S311 - faults, no secrets
    print(f"{given.faults} faults at {given.levels}, {given.rate:g} calls/s, seed {given.seed}", flush=True)
    levels = dict[str, Level]()
    for name in names:
        with (
            installation(name, given) as at,
            asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
        ):
            levels[name] = runner.run(run(at, name, given))
    del given.merge
    return told(levels, vars(given))


if __name__ == "__main__":
    sys.exit(main())
