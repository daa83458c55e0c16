"""Locust's own page knows our users and shapes, and no run ends well without a call.

What users do is in tests/e2e/test_load.py."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from devstack.ports import LOOPBACK, free_port

ROOT = Path(__file__).parent.parent.parent
START_SECONDS = 60.0
LOADTEST = [sys.executable, "-m", "bench.loadtest"]


def page(url: str, process: "subprocess.Popen[bytes]") -> str:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            return httpx.get(url).raise_for_status().text
        except httpx.TransportError:
            time.sleep(0.05)
    raise AssertionError(f"locust's page was not there after {START_SECONDS:g} s")


def environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("QUOTAGATE_")}


def ctrl_c(process: "subprocess.Popen[bytes]") -> None:
    os.killpg(process.pid, signal.SIGINT)


def terminate(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()


@pytest.mark.parametrize("stop", [ctrl_c, terminate])
def test_locusts_page_offers_each_shape_and_the_users_that_have_something_to_do_and_ends_with_its_command(
    tmp_path: Path, stop: Callable[["subprocess.Popen[bytes]"], None]
) -> None:
    tokens, port = tmp_path / "tokens", free_port()
    tokens.write_text("acme token\n")
    argv = [*LOADTEST, "--page", "--web-port", str(port)]
    argv += ["--host", f"http://{LOOPBACK}:1", "--tokens", str(tokens), "--stream-path", "/events"]
    process = subprocess.Popen(
        [*argv, "--results", str(tmp_path)], cwd=ROOT, env=environment(), stdout=subprocess.PIPE, process_group=0
    )
    try:
        shown = page(f"http://{LOOPBACK}:{port}/", process)
        stop(process)
        process.communicate(timeout=START_SECONDS)  # until locust, which writes there, has ended, too
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    for name in ("SteadyUser", "HotUser", "BurstUser", "StreamUser", "Steady", "Ramp", "Steps", "Spike", "Day"):
        assert f'"{name}"' in shown, name
    assert "EntitlementChangeUser" not in shown, "nobody's admin token is known"
    assert f"http://{LOOPBACK}:1" in shown


def test_a_load_test_in_which_nobody_has_an_answer_says_so_and_fails(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text("acme token\n")
    with socket.create_server((LOOPBACK, 0)) as silent:
        host = f"http://{LOOPBACK}:{silent.getsockname()[1]}"
        done = subprocess.run(
            [*LOADTEST, "--seconds", "1", "--host", host, "--tokens", str(tokens), "--results", str(tmp_path)],
            cwd=ROOT,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=START_SECONDS,
            check=False,
        )
    assert (done.returncode, "No call was made" in done.stderr) == (1, True), done.stdout + done.stderr
