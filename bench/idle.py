"""What a stack costs while nobody calls it.

    python -m bench.idle [--seconds 30] [--quick]

It runs `quotagate up` on a directory of its own and waits until the start is over. Then it counts for a while: the CPU
of the control plane and of the gateway, the commands of Redis by name, and the transactions of PostgreSQL.
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
from bench.report import Bars, Goal, goals_table
from bench.webhooks import stack

QUIET_SECONDS = 15.0  # after a start: every periodic task has then run for the first time
PLANES = ("control", "gateway")
CONTROL_PERCENT_MAX, COMMANDS_MAX = 1.0, 50.0
COMMITS = "SELECT sum(xact_commit + xact_rollback)::bigint FROM pg_stat_database"


@dataclass(frozen=True)
class Figures:
    """Of one second."""

    percent: dict[str, float]
    """Of a core, by plane, with its processes."""
    commands: dict[str, float]
    transactions: float


def cpu_seconds() -> dict[str, float]:
    """What the processes of each plane have used."""
    used = dict.fromkeys(PLANES, 0.0)
    for process in psutil.Process().children(recursive=True):
        line = process.cmdline()
        plane = line[3] if line[1:3] == ["-m", "quotagate"] else ""
        if plane in used:
            for each in (process, *process.children(recursive=True)):
                times = each.cpu_times()
                used[plane] += times.user + times.system
    return used


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
        used, called, done = cpu_seconds(), commands(server), asyncio.run(transactions(dsn))
        began = time.monotonic()
        time.sleep(seconds)
        passed = time.monotonic() - began
        calls = commands(server) - called - Counter({"info": 1})
        percent = {plane: 100 * (at_end - used[plane]) / passed for plane, at_end in cpu_seconds().items()}
        committed = asyncio.run(transactions(dsn)) - done
    return Figures(percent, {name: count / passed for name, count in calls.items()}, committed / passed)


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
        Goal("commands of Redis, all planes and workers", called, COMMANDS_MAX, "a second"),
    ]
    print(goals_table(goals))
    print(f"gateway {figures.percent['gateway']:.2f} % of a core; {figures.transactions:.2f} transactions a second")
    print(", ".join(f"{name} {rate:.2f}" for name, rate in sorted(figures.commands.items(), key=lambda each: -each[1])))
    if not options.quick:
        bars = [Bars("CPU, % of a core", figures.percent), Bars("Redis commands a second", figures.commands)]
        raw = {"options": {"seconds": options.seconds}, **asdict(figures)}
        folder = report.write("idle", "A stack while nobody calls it", [], bars, goals, raw, report.machine())
        print(f"Written to {folder.relative_to(report.ROOT)}/idle.json, .md and .svg")
    if not all(goal.met for goal in goals):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
