"""The installed command as processes: what a person runs, and what their clients see."""

import json
import logging
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol
from uuid import uuid4

import httpx
import psutil
import pytest

LOG = logging.getLogger(__name__)
QUOTAGATE = str(Path(sys.executable).with_name("quotagate"))
START_SECONDS = 240.0  # a loaded machine starts two stores, three services and the gateway
STOP_SECONDS = 120.0
SETTLE_SECONDS = 60.0  # until the writer has moved an event to Postgres
AGAIN_SECONDS = 0.2


def run_quotagate(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Where it fails, pytest shows what it said beside the test."""
    done = subprocess.run([QUOTAGATE, *arguments], capture_output=True, text=True, timeout=START_SECONDS, check=False)
    if done.returncode:
        LOG.warning("quotagate %s: %d\n%s%s", shlex.join(arguments), done.returncode, done.stdout, done.stderr)
    return done


def wait_for(holds: Callable[[], bool], seconds: float = SETTLE_SECONDS) -> bool:
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


class AskingAgain(httpx.HTTPTransport):
    """As a client is told to do by a 503: on a busy machine Redis may not answer a gateway in time. Nothing is charged
    for such a request, so what is counted stays exact."""

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        deadline = time.monotonic() + SETTLE_SECONDS
        while True:
            answer = super().handle_request(request)
            if answer.status_code != httpx.codes.SERVICE_UNAVAILABLE or time.monotonic() > deadline:
                return answer
            answer.close()
            time.sleep(AGAIN_SECONDS)


def client_of(gateway: str, token: str) -> httpx.Client:
    headers = {"Authorization": f"Bearer {token}"}
    return httpx.Client(base_url=gateway, headers=headers, timeout=SETTLE_SECONDS, transport=AskingAgain())


class Up:
    """One `quotagate up`, from its start until everything answered."""

    def __init__(self, data_dir: Path, *flags: str) -> None:
        self.data_dir = data_dir
        self.output = data_dir.with_name(f"{data_dir.name}.output")
        argv = [QUOTAGATE, "up", "--data-dir", str(data_dir), "--gateway-port", "0", "--control-port", "0", *flags]
        with self.output.open("w") as output:
            self.process = subprocess.Popen(argv, stdout=output, stderr=subprocess.STDOUT, process_group=0)
        wait_for(lambda: self._is_ready() or self.process.poll() is not None, START_SECONDS)
        if not self._is_ready():
            self.stop()
            pytest.fail(f"quotagate up was not ready:\n{self.output.read_text()}")
        self.ready: dict[str, Any] = json.loads((data_dir / "ready.json").read_text())

    def _is_ready(self) -> bool:
        return "Quotagate is ready" in self.output.read_text()  # ready.json could be that of a run that was killed

    def token(self, org: str) -> str:
        return next(str(entry["token"]) for entry in self.ready["orgs"] if entry["org"] == org)

    def client(self, org: str) -> httpx.Client:
        return client_of(self.ready["gateway"], self.token(org))

    def call(self, token: str) -> httpx.Response:
        with client_of(self.ready["gateway"], token) as client:
            return client.get("/get")

    def entitlement(self, org: str) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {self.ready['admin_token']}"}
        entitlement: dict[str, Any] = httpx.get(
            f"{self.ready['control']}/v1/entitlements/{org}", headers=headers, timeout=SETTLE_SECONDS
        ).json()
        return entitlement

    def organization_with_100_calls(self) -> str:
        """A new one on the plan of `tiny`. Its token is in `ready` like those of the others."""
        org = f"org-{uuid4().hex[:8]}"
        made = run_quotagate("org", "create", org, "--plan", "tiny", "--data-dir", str(self.data_dir))
        assert made.returncode == 0, made.stderr
        token = run_quotagate("token", "mint", org, "--data-dir", str(self.data_dir))
        self.ready["orgs"].append({"org": org, "plan": "tiny", "token": token.stdout.strip()})
        return org

    def descendants(self) -> list[psutil.Process]:
        return list(psutil.Process(self.process.pid).children(recursive=True))

    def command_lines(self) -> dict[psutil.Process, str]:
        lines = {}
        for process in self.descendants():
            with suppress(psutil.NoSuchProcess):  # PostgreSQL's workers come and go
                lines[process] = " ".join(process.cmdline())
        return lines

    def child(self, command: str) -> psutil.Process:
        """The child whose command line holds this text."""
        return next(process for process, line in self.command_lines().items() if command in line)

    def wait(self) -> int:
        code = self.process.wait(STOP_SECONDS)
        if code:
            LOG.warning("quotagate up: %d\n%s", code, self.output.read_text())
        return code

    def stop(self) -> int:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGINT)  # as the terminal does on Ctrl-C: to the whole group
        return self.wait()


class Command(Protocol):
    """The installed command, to its end."""

    def __call__(self, *arguments: str) -> subprocess.CompletedProcess[str]: ...


class Eventually(Protocol):
    """Whether this holds before the time is over."""

    def __call__(self, holds: Callable[[], bool], seconds: float = SETTLE_SECONDS) -> bool: ...


class StartUp(Protocol):
    """Starts a stack of its own on a data directory of this name."""

    def __call__(self, name: str, *flags: str) -> Up: ...
