"""How large a backup is, how long it and a restore take, and how much memory they need.

    python -m bench.backup [--organizations 10000] [--events 2000000] [--days 30] [--waiting 100000]

It fills an embedded PostgreSQL, which writes to the disk as in production, and has usage events wait in Valkey's
streams that no control plane has written. `quotagate backup` and `quotagate restore` run as processes of their own,
whose most resident memory the kernel tells; PostgreSQL's own work is beside them. What was restored is compared by
`quotagate recompute`.
"""

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

from redis.asyncio import Redis

from bench import console_data, report
from bench.report import Bars, Goal, goals_table, number, table
from devstack import postgres, valkey
from devstack.child import stopping
from devstack.ports import free_port
from quota import keys
from quota.calls.take import Take, take_call
from quota.ledger import Ledger
from quota.model import Entitlement, MeterLimit, Status
from quota.periods import CALENDAR_ANCHOR, monthly_periods

MIB = 1024 * 1024
MEMORY_MIB = 256.0
"""However large the tables are."""
TAKES_AT_ONCE = 50
WAITING_ORGS = 100
SECRET = "a secret of the benchmarks, forty characters"
TITLE = "Backup and restore"


@dataclass(frozen=True, slots=True)
class Done:
    """A command that has ended well."""

    name: str
    seconds: float
    resident_mib: float
    """At most, at any time."""
    said: str


def quotagate(environment: Mapping[str, str], *words: str) -> Done:
    """Raises SystemExit where it fails."""
    began = time.monotonic()
    command = [sys.executable, "-m", "quotagate", *words]
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(command, env={**os.environ, **environment}, stdout=output, stderr=output)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        said = output.read().decode()
    seconds = time.monotonic() - began
    if process.returncode:
        raise SystemExit(f"quotagate {words[0]} failed:\n{said}")
    print(f"  {words[0]}: {seconds:.0f} s", flush=True)
    return Done(words[0], seconds, used.ru_maxrss / 1024, said)


async def wait_in_redis(url: str, events: int) -> None:
    """Has so many charges in the streams, of organizations that the database knows."""
    async with Redis.from_url(url) as redis:
        ledger = Ledger(redis)
        await ledger.check_layout()
        periods = monthly_periods(CALENDAR_ANCHOR, time.time())
        orgs = [f"org-{number:06d}" for number in range(1, WAITING_ORGS + 1)]
        for org in orgs:
            meters = (MeterLimit("api_calls", 10**12),)
            await ledger.publish(Entitlement(org, 1, Status.ACTIVE, meters=meters, periods=periods))
        for first in range(0, events, TAKES_AT_ONCE):
            org = orgs[first // TAKES_AT_ONCE % len(orgs)]
            takes = [
                Take(org, f"waits-{first + at}", {"api_calls": 1}) for at in range(min(TAKES_AT_ONCE, events - first))
            ]
            await ledger.run(take_call(takes, ledger.shards))
        for shard in range(ledger.shards):  # as if nobody had ever vouched: what is backed up is what the streams hold
            await redis.delete(keys.generation_key(shard))


def measured(directory: Path, given: argparse.Namespace) -> tuple[list[Done], int, float]:
    """The commands, the bytes of the backup, and those of the database."""
    with ExitStack() as stack:
        server = stack.enter_context(postgres.temporary(directory))
        port = free_port()
        cache = valkey.start(directory / "valkey", port, log=directory / "valkey.log")
        stack.enter_context(stopping(cache))
        valkey.wait_ready(cache, port)
        old, new = postgres.create_database(server, "old"), postgres.create_database(server, "new")
        console_data.make(old, given.organizations, given.events, given.days)
        asyncio.run(wait_in_redis(valkey.url(port), given.waiting))
        size = int(postgres.execute(old, "SELECT pg_database_size(current_database())"))
        common = {
            "QUOTAGATE_REDIS_URL": valkey.url(port),
            "QUOTAGATE_ADMIN_TOKEN": SECRET,
            "QUOTAGATE_JWT_SECRET": SECRET,
        }
        of_old = {**common, "QUOTAGATE_POSTGRES_DSN": old}
        of_new = {**common, "QUOTAGATE_POSTGRES_DSN": new}
        backup = directory / "backup"
        done = [quotagate(of_old, "backup", str(backup))]
        stored = sum(file.stat().st_size for file in backup.iterdir())
        asyncio.run(emptied(valkey.url(port)))
        done.append(quotagate(of_new, "restore", str(backup), "--dsn", new))
        done.append(quotagate(of_new, "recompute"))
        if ", 0 are not the sum" not in done[-1].said:
            raise SystemExit(f"what was restored does not agree with itself:\n{done[-1].said}")
    return done, stored, size


async def emptied(url: str) -> None:
    async with Redis.from_url(url) as redis:
        await redis.flushall()


def goals(done: Sequence[Done]) -> list[Goal]:
    return [Goal(f"most memory of `quotagate {each.name}`", each.resident_mib, MEMORY_MIB, "MiB") for each in done[:2]]


def tables(done: Sequence[Done], stored: int, size: float, given: argparse.Namespace) -> list[str]:
    rows = [[f"`quotagate {each.name}`", f"{each.seconds:.0f} s", f"{number(each.resident_mib)} MiB"] for each in done]
    about = (
        f"{given.organizations:,} organizations, {given.events:,} usage events of {given.days} days, and"
        f" {given.waiting:,} that only Redis had: the database has {number(size / MIB)} MiB, the backup"
        f" {number(stored / MIB)} MiB."
    )
    return [
        about,
        table(["command", "takes", "memory, at most"], rows),
    ]


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.backup", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--organizations", type=int, default=10_000)
    parser.add_argument("--events", type=int, default=2_000_000)
    parser.add_argument("--days", type=int, default=30, help="that the events are of")
    parser.add_argument("--waiting", type=int, default=100_000, help="events that only Redis has")
    return parser.parse_args()


def main() -> int:
    given = parsed()
    with tempfile.TemporaryDirectory(prefix="quotagate-bench-") as name:
        Path(name).chmod(0o711)  # under root, PostgreSQL runs as another user
        done, stored, size = measured(Path(name), given)
    judged, shown = goals(done), tables(done, stored, size, given)
    print("\n" + "\n\n".join([*shown, goals_table(judged)]))
    raw = {
        "options": vars(given),
        "commands": [asdict(each) for each in done],
        "bytes": {"backup": stored, "database": size},
    }
    bars = [Bars("seconds", {each.name: each.seconds for each in done})]
    folder = report.write("backup", TITLE, shown, bars, judged, raw, report.machine())
    print(f"Written to {folder.relative_to(report.ROOT)}/backup.json, .md and .svg")
    return 0 if all(goal.met for goal in judged) else 1


if __name__ == "__main__":
    sys.exit(main())
