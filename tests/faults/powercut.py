"""A loss of power for a Valkey: it is killed, and of its append-only file only what an fsync had confirmed is left. And
a disk that is full."""

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from tests.gateway.store import Store

SOURCE = Path(__file__).with_name("powercut.c")


class PowerCut:
    """Skips the test where there is no C compiler: no other way was found to lose what the kernel still has."""

    def __init__(self, directory: Path) -> None:
        compiler = shutil.which("cc")
        if compiler is None:
            pytest.skip("needs a C compiler")
        self._synced = directory / "synced"
        self._synced.mkdir()
        library = directory / "powercut.so"
        subprocess.run([compiler, "-shared", "-fPIC", "-o", str(library), str(SOURCE), "-ldl"], check=True)
        self.env = {"LD_PRELOAD": str(library), "POWERCUT_DIRECTORY": str(self._synced)}
        """For the Valkey."""

    def unsynced(self, store: Store) -> int:
        """Bytes of the append-only file that a loss of power would take."""
        return sum(file.stat().st_size - self._synced_bytes(file) for file in self._files(store))

    def fill_disk(self) -> None:
        (self._synced / "full").touch()

    def free_disk(self) -> None:
        (self._synced / "full").unlink()

    def slow_disk(self) -> None:
        """No fsync ends any more."""
        (self._synced / "slow").touch()

    def quick_disk(self) -> None:
        (self._synced / "slow").unlink()

    def strike(self, store: Store) -> None:
        assert store.child is not None
        store.send(signal.SIGKILL)
        store.child.process.wait()
        store.child = None
        for file in self._files(store):
            os.truncate(file, self._synced_bytes(file))

    @staticmethod
    def _files(store: Store) -> list[Path]:
        return list((store.directory / "appendonlydir").glob("*.incr.aof"))

    def _synced_bytes(self, file: Path) -> int:
        record = self._synced / file.name
        return int(record.read_text()) if record.exists() else 0
