"""One child process: started into its log, watched, stopped in order, never left behind."""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

POLL_SECONDS = 0.02
LOG_TAIL_LINES = 12
LOGS_KEPT = 5  # of earlier runs
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None

Pause = Callable[[float], None]
"""Waits that many seconds, or raises to give up waiting."""


class StackError(Exception):
    """What went wrong, in one plain line. `detail`: lines of a log that may say more."""

    def __init__(self, message: str, detail: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.detail = tuple(detail)


class ServiceDied(StackError):
    def __init__(self, child: "Child") -> None:
        super().__init__(f"{child.name} {_ending(child.exit_code)}; its log is {child.log}", tail(child.log))


class ServiceSilent(StackError):
    def __init__(self, child: "Child", timeout_seconds: float) -> None:
        message = f"{child.name} did not answer within {timeout_seconds:g} s; its log is {child.log}"
        super().__init__(message, tail(child.log))


@dataclass(frozen=True)
class Child:
    name: str
    process: "subprocess.Popen[bytes]"
    log: Path
    stop_signal: signal.Signals
    grace_seconds: float

    @property
    def exit_code(self) -> int | None:
        return self.process.poll()

    def wait_until(self, answers: Callable[[], bool], timeout_seconds: float, pause: Pause = time.sleep) -> None:
        """Returns when the child answers. Raises `ServiceDied` or `ServiceSilent`, or what `pause` raises."""
        deadline = time.monotonic() + timeout_seconds
        while not answers():
            if self.exit_code is not None:
                raise ServiceDied(self)
            if time.monotonic() > deadline:
                raise ServiceSilent(self, timeout_seconds)
            pause(POLL_SECONDS)

    def ask_to_stop(self) -> None:
        if self.exit_code is None:
            self.process.send_signal(self.stop_signal)

    def stop(self, grace_seconds: float | None = None) -> None:
        self.ask_to_stop()
        self.end(grace_seconds)

    def end(self, grace_seconds: float | None = None) -> None:
        """Waits for its end after `ask_to_stop`; kills it when its time is over."""
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(self.grace_seconds if grace_seconds is None else grace_seconds)
        # The group can outlive its leader: the workers of a master that crashed must not stay behind.
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def spawn(
    name: str,
    argv: Sequence[str],
    *,
    log: Path,
    env: Mapping[str, str] | None = None,
    account: tuple[int, int] | None = None,
    stop_signal: signal.Signals = signal.SIGTERM,
    grace_seconds: float = 10,
    inherited_fds: Sequence[int] = (),
) -> Child:
    """Starts a child as the leader of its own process group: a Ctrl-C in the terminal reaches only us, and we decide in
    which order children stop. `account`: the (uid, gid) to run as."""
    log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    _keep_earlier_logs(log)
    uid, gid = account if account is not None else (None, None)
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603  # the command lines are this package's own
            argv,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=None if env is None else {**os.environ, **env},
            user=uid,
            group=gid,
            extra_groups=None if gid is None else [gid],
            process_group=0,
            pass_fds=inherited_fds,
            preexec_fn=_stop_with_parent(stop_signal),
        )
    return Child(name, process, log, stop_signal, grace_seconds)


def _keep_earlier_logs(log: Path) -> None:
    """The logs of the last runs stay, so that the log of a crash survives some tries to start again."""
    if log.exists():
        for number in range(LOGS_KEPT - 1, 0, -1):
            earlier = log.with_suffix(f".{number}.log")
            if earlier.exists():
                earlier.replace(log.with_suffix(f".{number + 1}.log"))
        log.replace(log.with_suffix(".1.log"))


@contextmanager
def stopping(child: Child) -> Iterator[Child]:
    try:
        yield child
    finally:
        child.stop()


def tail(log: Path, lines: int = LOG_TAIL_LINES) -> list[str]:
    try:
        return log.read_text(errors="replace").splitlines()[-lines:]
    except OSError:
        return []


def _stop_with_parent(stop_signal: signal.Signals) -> Callable[[], None] | None:
    """Linux sends the stop signal to the child when we die, even of SIGKILL. Other systems have no such call."""
    if _libc is None:
        return None
    libc, parent = _libc, os.getpid()

    def in_child() -> None:
        # It runs after the change of user, which would undo it.
        libc.prctl(_PR_SET_PDEATHSIG, int(stop_signal))
        if os.getppid() != parent:  # we died between fork and prctl
            os._exit(1)

    return in_child


def _ending(exit_code: int | None) -> str:
    if exit_code is not None and exit_code < 0:
        return f"was ended by {signal.Signals(-exit_code).name}"
    return f"ended with exit code {exit_code}"
