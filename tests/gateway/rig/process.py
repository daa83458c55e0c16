"""A gateway as the processes that an operator runs."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Protocol
from urllib.request import urlopen

import psutil

from devstack.ports import free_port
from tests.gateway.rig.patience import PATIENCE_SECONDS, PROCESS_SECONDS
from tests.gateway.rig.settings import merged


def is_alive(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _command(process: psutil.Process) -> list[str]:
    """Nothing of one that has ended just now."""
    try:
        return list(process.cmdline())
    except psutil.Error:
        return []


class Process:
    """A gateway as the process that an operator runs."""

    def __init__(self, directory: Path, changes: dict[str, Any]) -> None:
        self.file = directory / "gateway.yaml"
        self.log = directory / "gateway.log"
        self.port, self.management_port = (free_port(), free_port())
        self.settings = merged(
            changes,
            {"listen": {"port": self.port}, "management": {"port": self.management_port}},
        )
        self.write(self.settings)
        argv = [sys.executable, "-m", "quotagate", "gateway", "--config", str(self.file)]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(argv, stdout=log, stderr=subprocess.STDOUT)

    def write(self, settings: dict[str, Any]) -> None:
        self.file.write_text(json.dumps(settings))

    def workers(self) -> list[psutil.Process]:
        children = psutil.Process(self.process.pid).children()
        return [child for child in children if "multiprocessing.spawn" in " ".join(_command(child))]

    def logged(self, words: str) -> int:
        return self.log.read_text().count(words)

    def metrics(self) -> dict[str, float]:
        with urlopen(f"http://127.0.0.1:{self.management_port}/metrics", timeout=PATIENCE_SECONDS) as answer:
            lines = answer.read().decode().splitlines()
        return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[0] != "#")}

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def wait(self) -> int:
        return self.process.wait(PROCESS_SECONDS)


class StartProcess(Protocol):
    """Starts the gateway's processes in front of the upstream of the test, and returns when they answer."""

    async def __call__(self, **changes: Any) -> Process: ...
