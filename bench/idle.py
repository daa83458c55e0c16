"""What a stack costs while nobody calls it.

    python -m bench.idle [--seconds 30] [--quick]

It runs `quotagate up` on a directory of its own and waits until the start is over. Then it counts for a while: the CPU
of the control plane and of the gateway, how often their threads wake up, the commands of Redis by name, and the
transactions of PostgreSQL.
"""

import argparse
import asyncio
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import asyncpg
import psutil
import redis

from bench import report
from bench.installation import stack
from bench.report import Bars, Goal, goals_table

QUIET_SECONDS = 15.0  # after a start: every periodic task has then run for the first time
PLANES = ("control", "gateway")
CONTROL_PERCENT_MAX, GATEWAY_PERCENT_MAX, COMMANDS_MAX = 1.0, 0.3, 50.0
COMMITS = "SELECT sum(xact_commit + xact_rollback)::bigint FROM pg_stat_database"


@dataclass(frozen=True)
class Figures:
    """Of one second."""

    percent: dict[str, float]
    """Of a core, by plane, with its processes."""
    wakeups: dict[str, float]
    """Of all threads, by plane."""
    commands: dict[str, float]
    transactions: float


@dataclass(frozen=True, slots=True)
class Used:
    """What the processes of a plane have used since they began."""

    cpu_seconds: float = 0.0
    wakeups: int = 0

    def with_process(self, process: psutil.Process) -> "Used":
        times = process.cpu_times()
        statuses = [file.read_text() for file in Path(f"/proc/{process.pid}/task").glob("*/status")]
        wakeups = [int(status.split("\nvoluntary_ctxt_switches:")[1].split()[0]) for status in statuses]
        return Used(self.cpu_seconds + times.user + times.system, self.wakeups + sum(wakeups))


def used() -> dict[str, Used]:
    """By plane."""
    by_plane = dict.fromkeys(PLANES, Used())
    for process in psutil.Process().children(recursive=True):
        line = process.cmdline()
        plane = line[3] if line[1:3] == ["-m", "quotagate"] else ""
        if plane in by_plane:
            for each in (process, *process.children(recursive=True)):
                by_plane[plane] = by_plane[plane].with_process(each)
    return by_plane


def commands(server: redis.Redis) -> Counter[str]:
    statistics: Any = server.info("commandstats")
    return Counter({name.removeprefix("cmdstat_"): counts["calls"] for name, counts in statistics.items()})


async def transactions(dsn: str) -> int:
    connection = await asyncpg.connect(dsn)
    try:
        return int(await connection.fetchval(COMMITS))
    finally:
        await connection.close()


def measure(facts: dict[str, Any], seconds: float) -> Figures:
    dsn = facts["postgres_owner"]
    with redis.Redis.from_url(facts["redis"]) as server:
        before, called, done = used(), commands(server), asyncio.run(transactions(dsn))
        began = time.monotonic()
        time.sleep(seconds)
        passed = time.monotonic() - began
        calls = commands(server) - called - Counter({"info": 1})
        after = used()
        percent = {plane: 100 * (after[plane].cpu_seconds - before[plane].cpu_seconds) / passed for plane in PLANES}
        wakeups = {plane: (after[plane].wakeups - before[plane].wakeups) / passed for plane in PLANES}
        committed = asyncio.run(transactions(dsn)) - done
    return Figures(percent, wakeups, {name: count / passed for name, count in calls.items()}, committed / passed)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.idle", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--quick", action="store_true", help="5 seconds, and no report")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="quotagate-bench-") as directory, stack(Path(directory) / "data") as facts:
        time.sleep(QUIET_SECONDS)
        figures = measure(facts, 5 if options.quick else options.seconds)
    called = sum(figures.commands.values())
    goals = [
        Goal("CPU of an idle control plane", figures.percent["control"], CONTROL_PERCENT_MAX, "% of a core"),
        Goal(
            "CPU of an idle gateway, with its supervisor",
            figures.percent["gateway"],
            GATEWAY_PERCENT_MAX,
            "% of a core",
        ),
        Goal("commands of Redis, all planes and workers", called, COMMANDS_MAX, "a second"),
    ]
    print(goals_table(goals))
    wakeups = ", ".join(f"{plane} {rate:.1f}" for plane, rate in figures.wakeups.items())
    print(f"wake-ups a second: {wakeups}; transactions a second: {figures.transactions:.2f}")
    print(", ".join(f"{name} {rate:.2f}" for name, rate in sorted(figures.commands.items(), key=lambda each: -each[1])))
    if not options.quick:
        bars = [Bars("CPU, % of a core", figures.percent), Bars("wake-ups a second", figures.wakeups)]
        bars += [Bars("Redis commands a second", figures.commands)]
        raw = {"options": {"seconds": options.seconds}, **asdict(figures)}
        folder = report.write("idle", "A stack while nobody calls it", [], bars, goals, raw, report.machine())
        print(f"Written to {folder.relative_to(report.ROOT)}/idle.json, .md and .svg")
    if not all(goal.met for goal in goals):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
