"""A new release takes the place of an old one under load, goes back, and takes its place again: no client may notice.

    python -m bench.upgrade [--from REF] [--rate 200] [--seconds 10]

The old release is a commit of this repository: by default the one before the newest migration came. It is unpacked
into a directory of its own and has an environment of its own (that needs git, make, and an index of Python packages).
Two gateways and two control planes of it run on one Redis and one PostgreSQL, whose schema it has made. Then, under
load, docs/recovery.md is followed: the new release migrates, and takes the place of control planes and gateways, one
after the other, with `--seconds` for each step, so that both serve side by side. It exits with 1 where a call failed,
or what was admitted is not what was counted.
"""

import argparse
import asyncio
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

import uvloop

from bench import report
from bench.report import ROOT, Bars, Goal, goals_table, table
from bench.restarts.rolling import Restart, Step, replace, taken
from bench.soak.audit import Findings, counted, findings
from bench.soak.processes import OWN, Installation, Release
from bench.soak.traffic import Books, Traffic
from control.db import MIGRATIONS

TITLE = "Calls in each step of an upgrade"
PROGRAM = Path(".venv/bin/quotagate")


class Unusable(Exception):
    """The old release cannot be run; the message says why."""


def old_release(ref: str, directory: Path) -> Release:
    """Unpacked into `directory`, with an environment of its own. Raises Unusable."""
    archive = directory / "release.tar"
    try:
        _run("git", "-C", str(ROOT), "archive", "--output", str(archive), ref)
        _run("tar", "--extract", "--file", str(archive), "--directory", str(directory))
        _run("make", "-C", str(directory), ".venv/.embedded")
    except FileNotFoundError as e:
        raise Unusable(f"{e.filename} is needed") from e
    except subprocess.CalledProcessError as e:
        raise Unusable(f"{' '.join(e.cmd[:2])} of {ref} failed: {e.stderr.decode(errors='replace').strip()}") from e
    return Release("old", (str(directory / PROGRAM),))


def before_newest_migration() -> str:
    """The commit before the one that brought the newest migration. Raises Unusable."""
    newest = max(MIGRATIONS.glob("*.sql")).relative_to(ROOT)
    try:
        log = ("git", "-C", str(ROOT), "log", "--diff-filter=A", "--follow", "--format=%H", "--", str(newest))
        commit = _run(*log).decode().split()[-1]
    except (FileNotFoundError, subprocess.CalledProcessError, IndexError) as e:
        raise Unusable("this is no git repository with a history; name the old release by --from") from e
    return f"{commit}^"


def _run(*command: str) -> bytes:
    """What it says. Raises FileNotFoundError, CalledProcessError."""
    return subprocess.run(command, check=True, capture_output=True).stdout


class Rollout:
    """One release takes the place of another, part by part."""

    def __init__(self, at: Installation, books: Books, seconds: float) -> None:
        self.steps: list[Step] = []
        self._at, self._books, self._seconds = at, books, seconds

    async def migrate(self, release: Release) -> None:
        async def migrate() -> None:
            await asyncio.to_thread(self._at.migrate, release)

        await self._step(f"the {release.name} release migrates", migrate)

    async def replace(self, release: Release) -> None:
        """Control planes first (docs/recovery.md)."""
        for part in (*self._at.controls, *self._at.gateways):
            self._at.releases[part.name] = release
            await self._step(f"{part.name}: the {release.name} release", partial(replace, [part]))

    async def _step(self, about: str, restart: Restart) -> None:
        until = asyncio.get_running_loop().time() + self._seconds
        self.steps.append(await taken(about, self._books, until, restart))


async def run(at: Installation, old: Release, given: argparse.Namespace) -> tuple[list[Step], Books, Findings]:
    traffic = Traffic([part.port for part in at.gateways], [part.port for part in at.controls], given.rate)
    await traffic.prepare()
    traffic.start()
    rollout = Rollout(at, traffic.books, given.seconds)
    await rollout.migrate(OWN)
    for release in (OWN, old, OWN):
        await rollout.replace(release)
    await traffic.stop()
    return rollout.steps, traffic.books, findings(traffic.books, await counted(at, traffic.books))


def goals(books: Books, found: Findings) -> list[Goal]:
    return [Goal("calls that failed", books.failed, 0), *found.goals()]


def tables(steps: Sequence[Step], books: Books, about: str) -> list[str]:
    rows = [[step.about, f"{step.seconds:.1f} s", f"{step.calls:,}", f"{step.failed:,}"] for step in steps]
    statuses = ", ".join(f"{status}: {count:,}" for status, count in books.statuses.most_common())
    return [
        f"The old release is {about}.",
        table(["step", "done after", "calls", "failed"], rows),
        f"{books.statuses.total():,} calls, answers by status: {statuses}.",
    ]


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.upgrade", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--from", dest="ref", help="the old release: a commit, branch or tag")
    parser.add_argument("--rate", type=float, default=200.0, help="calls a second")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each step, at least")
    parser.add_argument(
        "--patient", action="store_true", help="Redis has a minute for a reply: where others use the machine, too"
    )
    given = parser.parse_args()
    if min(given.rate, given.seconds) <= 0:
        parser.error("--rate and --seconds are above 0")
    return given


def main() -> int:
    given = parsed()
    with tempfile.TemporaryDirectory(prefix="quotagate-old-") as name:
        try:
            ref = given.ref or before_newest_migration()
            about = _run("git", "-C", str(ROOT), "log", "-1", "--format=%h (%s)", ref).decode().strip()
            print(f"the old release is {about}", flush=True)
            old = old_release(ref, Path(name))
        except Unusable as e:
            sys.stderr.write(f"{e}\n")
            return 2
        with (
            Installation(old, patient=given.patient) as at,
            asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
        ):
            steps, books, found = runner.run(run(at, old, given))
    judged, shown = goals(books, found), tables(steps, books, about)
    print("\n" + "\n\n".join([*shown, goals_table(judged)]))
    raw = {
        "options": {"rate": given.rate, "seconds": given.seconds, "patient": given.patient, "from": about},
        "steps": [asdict(step) for step in steps],
    }
    bars = [Bars("calls", {step.about: float(step.calls) for step in steps})]
    folder = report.write("upgrade", TITLE, shown, bars, judged, raw, report.machine())
    print(f"Written to {folder.relative_to(report.ROOT)}/upgrade.json, .md and .svg")
    return 0 if all(goal.met for goal in judged) else 1


if __name__ == "__main__":
    sys.exit(main())
