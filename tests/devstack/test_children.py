"""All services of a stack live, or none does."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from devstack.child import Child, ServiceDied, ServiceSilent, StackError, spawn
from devstack.children import Children, StopRequested
from devstack.stack import started

DEADLINE_SECONDS = 60.0

SERVICE = """
import os, signal, sys, time
name, journal = sys.argv[1:]
def stop(*_):
    open(journal, "a").write(f"{name} stopped\\n")
    sys.exit()
signal.signal(signal.SIGTERM, stop)
open(journal, "a").write(f"{name} started\\n")
while True:
    time.sleep(0.05)  # a signal that came right before pause() would be waited for in vain
"""
DEAF_SERVICE = """
import signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("deaf", flush=True)
while True:
    signal.pause()
"""


def start(directory: Path, name: str) -> Child:
    journal = directory / "journal"
    child = spawn(name, [sys.executable, "-c", SERVICE, name, str(journal)], log=directory / f"{name}.log")
    child.wait_until(lambda: f"{name} started" in read(journal), DEADLINE_SECONDS)
    return child


def read(file: Path) -> str:
    return file.read_text() if file.exists() else ""


def eventually(holds: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def lives(process_id: int) -> bool:
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    # An orphan that ended stays in the table until init fetches its exit code.
    return Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


def test_services_stop_in_the_reverse_order_of_their_stages(tmp_path: Path) -> None:
    with Children() as supervisor:
        for stage, name in enumerate(("first", "second", "third")):
            supervisor.keep(start(tmp_path, name), stage)
    stopped = [line for line in read(tmp_path / "journal").splitlines() if line.endswith("stopped")]
    assert stopped == ["third stopped", "second stopped", "first stopped"]


def test_a_service_that_dies_is_named_with_its_exit_code_its_log_and_its_last_words(tmp_path: Path) -> None:
    with Children() as supervisor:
        other = supervisor.keep(start(tmp_path, "other"))
        argv = [sys.executable, "-c", "import sys; print('no such file: x.yaml'); sys.exit(3)"]
        supervisor.keep(spawn("gateway", argv, log=tmp_path / "gateway.log"))
        with pytest.raises(ServiceDied) as caught:
            supervisor.watch()
    assert str(caught.value) == f"gateway ended with exit code 3; its log is {tmp_path / 'gateway.log'}"
    assert caught.value.detail == ("no such file: x.yaml",)
    assert other.exit_code == 0


def test_a_service_that_never_answers_is_given_up(tmp_path: Path) -> None:
    with Children() as supervisor:
        child = supervisor.keep(start(tmp_path, "mute"))
        with pytest.raises(ServiceSilent, match=r"mute did not answer within 0\.1 s"):
            child.wait_until(lambda: False, 0.1, supervisor.pause)


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_signal_ends_every_wait(tmp_path: Path, signum: signal.Signals) -> None:
    with Children() as supervisor:
        child = supervisor.keep(start(tmp_path, "service"))
        signal.raise_signal(signum)
        with pytest.raises(StopRequested):
            child.wait_until(lambda: False, DEADLINE_SECONDS, supervisor.pause)
        supervisor.watch()
    assert child.exit_code == 0


def test_a_service_that_ignores_the_stop_is_killed_after_its_grace(tmp_path: Path) -> None:
    argv = [sys.executable, "-c", DEAF_SERVICE]
    child = spawn("deaf", argv, log=tmp_path / "deaf.log", grace_seconds=0.1)
    child.wait_until(lambda: "deaf" in read(child.log), DEADLINE_SECONDS)
    child.stop()
    assert child.exit_code == -signal.SIGKILL


def test_workers_of_a_master_that_crashed_do_not_stay_behind(tmp_path: Path) -> None:
    master = "import os, subprocess, sys; print(subprocess.Popen(['sleep', '60']).pid, flush=True); os._exit(1)"
    child = spawn("master", [sys.executable, "-c", master], log=tmp_path / "master.log")
    child.process.wait()
    worker = int(read(child.log))
    assert lives(worker)
    child.stop()
    assert eventually(lambda: not lives(worker))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has the parent-death signal")
def test_a_killed_supervisor_leaves_no_service(tmp_path: Path) -> None:
    supervisor = """
import sys, time
from pathlib import Path
from devstack.child import spawn
service, journal, log = sys.argv[1:]
print(spawn("service", [sys.executable, "-c", service, "service", journal], log=Path(log)).process.pid, flush=True)
time.sleep(60)
"""
    argv = [sys.executable, "-c", supervisor, SERVICE, str(tmp_path / "journal"), str(tmp_path / "log")]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        service = int(process.stdout.readline())
        assert eventually(lambda: "service started" in read(tmp_path / "journal"))
        process.kill()
    assert eventually(lambda: not lives(service))
    assert "service stopped" in read(tmp_path / "journal")


def test_the_logs_of_the_five_runs_before_are_kept(tmp_path: Path) -> None:
    for word in ("first", "second", "third", "fourth", "fifth", "sixth", "seventh"):
        argv = [sys.executable, "-c", f"print({word!r})"]
        spawn("service", argv, log=tmp_path / "service.log").process.wait()
    assert read(tmp_path / "service.log") == "seventh\n"
    assert [read(tmp_path / f"service.{number}.log") for number in (1, 5, 6)] == ["sixth\n", "second\n", ""]


def test_a_start_that_fails_since_a_service_died_tells_of_the_service_and_its_log(tmp_path: Path) -> None:
    log = tmp_path / "fragile.log"

    class Starting:
        """Has missed the service, before anybody looked whether it lives."""

        def start(self) -> Any:
            raise StackError("the control plane did not answer")

    with Children() as supervisor:
        fragile = supervisor.keep(spawn("fragile", [sys.executable, "-c", "raise SystemExit('settings')"], log=log))
        fragile.process.wait(DEADLINE_SECONDS)
        with pytest.raises(ServiceDied, match=str(log)) as died:
            started(Starting(), supervisor)
        assert died.value.detail == ("settings",)
