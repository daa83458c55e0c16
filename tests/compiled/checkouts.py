"""Checkouts of a test's own, in which something is built, edited or broken."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from compiled.built import BUILT, LIBRARY_FILE, ROOT, Manifest, directory_for

COPIED = ("compiled", "common", "config", "control", "devstack", "gateway", "identity", "lua", "quota", "quotagate")
HERE_BUILT = directory_for()
WHAT_RUNS = "import gateway.http.head as m; from compiled import finder; print(finder.install(), m.RequestHead)"


@dataclass(frozen=True)
class Checkout:
    root: Path

    @property
    def built(self) -> Path:
        """Where what is built of its sources belongs."""
        return self.root / BUILT.relative_to(ROOT) / directory_for(self.root).name

    def place(self, library: bytes, said_bytes: int | None = None) -> None:
        """As if the builder had made this library."""
        self.built.mkdir(parents=True)
        (self.built / LIBRARY_FILE).write_bytes(library)
        Manifest(len(library) if said_bytes is None else said_bytes, "a test").write(self.built)

    def run(self, *argv: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Python in the checkout, with its modules before those that are installed."""
        inherited = {name: value for name, value in os.environ.items() if name != "QUOTAGATE_COMPILED"}
        return subprocess.run(
            [sys.executable, *argv],
            cwd=self.root,
            env={**inherited, "PYTHONPATH": str(self.root), **environment},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    def what_runs(self, **environment: str) -> str:
        done = self.run("-c", WHAT_RUNS, **environment)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout.partition("<")[0].strip()


def copied(directory: Path) -> Checkout:
    """The sources of this checkout, of which nothing is built there."""
    ignored = shutil.ignore_patterns("__pycache__", "built")
    for name in COPIED:
        shutil.copytree(ROOT / name, directory / name, ignore=ignored)
    for name in ("pyproject.toml", "hatch_build.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, directory)
    return Checkout(directory)
