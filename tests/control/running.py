"""The control plane as a process of a test."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType

import httpx

from control.settings.control_plane import Settings
from devstack.ports import free_port
from tests.control.plane import ADMIN_TOKEN, JWT_SECRET


def environment(settings: Settings) -> dict[str, str]:
    return {
        **os.environ,
        "QUOTAGATE_POSTGRES_DSN": settings.postgres.dsn.get_secret_value(),
        "QUOTAGATE_REDIS_URL": settings.redis.url.get_secret_value(),
        "QUOTAGATE_ADMIN_TOKEN": ADMIN_TOKEN,
        "QUOTAGATE_JWT_SECRET": JWT_SECRET,
    }


def command(port: int, config: Path | None = None) -> list[str]:
    words = [] if config is None else ["--config", str(config)]
    return [sys.executable, "-m", "quotagate", "control", "--port", str(port), *words]


def ended(settings: Settings, environ: Mapping[str, str]) -> "subprocess.CompletedProcess[str]":
    """A control plane that does not start."""
    return subprocess.run(
        command(0), env={**environment(settings), **environ}, capture_output=True, text=True, timeout=60, check=False
    )


@contextmanager
def started(
    settings: Settings, log: Path, environ: Mapping[str, str] = MappingProxyType({}), config: Path | None = None
) -> Iterator[tuple["subprocess.Popen[bytes]", httpx.Client]]:
    port = free_port()
    with log.open("wb") as output:
        process = subprocess.Popen(
            command(port, config), env={**environment(settings), **environ}, stdout=output, stderr=output
        )
    headers = {"authorization": f"Bearer {ADMIN_TOKEN}"}
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers) as client:
            deadline = time.monotonic() + 60
            while not answers(client):
                assert time.monotonic() < deadline, log.read_text()
                assert process.poll() is None, log.read_text()
                time.sleep(0.05)
            yield process, client
    finally:
        process.kill()
        process.wait()


def answers(client: httpx.Client) -> bool:
    try:
        return client.get("/-/ready").status_code == 200
    except httpx.TransportError:
        return False
