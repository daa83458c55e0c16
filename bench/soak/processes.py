"""A whole installation whose processes may be killed, stopped for a moment, and started again where they were."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from bench.harness import children, exit_on_sigterm
from devstack import demo, postgres, sample_process, token_mint, valkey
from devstack.child import Child, StackError, spawn
from devstack.ports import LOOPBACK, free_port
from devstack.sample_process import answers

SECRET, ADMIN_TOKEN = "a secret for benchmarks, forty characters", "an-admin-token-of-a-benchmark"
START_SECONDS = 120.0
LEAVE_SECONDS = 120.0
DATABASE = "soak"
WITHOUT_RIGHTS = ("setpriv", "--bounding-set=-all", "--inh-caps=-all")  # of util-linux: root without capabilities
PATIENT = ", timeout_ms: 60000, budget_ms: 60000"
GATEWAY = """
redis: {{url: "{redis}"{times}}}
auth: {{algorithms: [HS256], secret: "{secret}", issuer: {issuer}, audience: {audience}}}
access_log: {{path: /dev/null}}
upstreams: {{api: {{url: "{upstream}"}}}}
routes: [{{path: /, upstream: api}}]
"""


@dataclass(frozen=True, slots=True)
class Release:
    """Of Quotagate, as it is run."""

    name: str
    command: tuple[str, ...]


OWN = Release("new", (sys.executable, "-m", "quotagate"))


class Part:
    """One process, with the workers that it starts, which keeps its address when it is started again."""

    def __init__(self, name: str, port: int, start: Callable[[], Child], ready: Callable[[Child], None]) -> None:
        self.name = name
        self.port = port
        self._start = start
        self._ready = ready
        self._child: Child | None = None

    def start(self) -> None:
        self._child = self._start()
        self._ready(self._child)

    @property
    def pid(self) -> int:
        assert self._child is not None  # noqa: S101 - a part is started before it is used
        return self._child.process.pid

    def lives(self) -> bool:
        return self._child is not None and self._child.exit_code is None

    def signal(self, number: signal.Signals) -> None:
        """To it alone."""
        os.kill(self.pid, number)

    def stop_for(self, seconds: float) -> None:
        """It hangs for so long, with all of its processes."""
        os.killpg(self.pid, signal.SIGSTOP)
        try:
            time.sleep(seconds)
        finally:
            os.killpg(self.pid, signal.SIGCONT)

    def leave(self) -> None:
        """It is asked to end, and takes the time that it needs. Raises TimeoutExpired where it needs too long."""
        assert self._child is not None  # noqa: S101 - as above
        self._child.ask_to_stop()
        self._child.process.wait(LEAVE_SECONDS)

    def logged(self, text: str) -> int:
        """How often, since it was started."""
        assert self._child is not None  # noqa: S101 - as above
        return self._child.log.read_text(errors="replace").count(text)

    def kill(self) -> None:
        assert self._child is not None  # noqa: S101 - as above
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._child.process.wait()

    def end(self) -> None:
        if self._child is not None:
            self._child.stop()

    def workers(self) -> list[int]:
        """The oldest first."""
        return sorted(children(self.pid), key=_started)


class Installation:
    """Two gateways and two control planes on one Redis and one PostgreSQL. In a soak the first of each meets no fault
    of its own: how much it holds is looked at all the time."""

    def __init__(self, release: Release = OWN, *, second_without_rights: bool = False, patient: bool = False) -> None:
        """`release`: which each part is of, until `releases` says otherwise and it is started again.
        `second_without_rights`: the second gateway is run as without root. `patient`: Redis has a minute to reply."""
        self._times = PATIENT if patient else ""
        self.releases = dict.fromkeys(("gateway-a", "gateway-b", "control-a", "control-b"), release)
        self._release = release
        self._prefix = {"gateway-b": WITHOUT_RIGHTS} if second_without_rights and os.geteuid() == 0 else {}
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        exit_on_sigterm()
        self.directory = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="quotagate-soak-")))
        self.directory.chmod(0o711)  # under root, PostgreSQL runs as another user
        try:
            self._start()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _start(self) -> None:
        self.database = self._postgres(free_port())
        self.redis_url = self._ledger()
        self.upstream = self._added(
            "upstream", self._sample, lambda child, port: sample_process.wait_ready(child, port)
        )
        self.dsn = postgres.dsn(self.database.port, DATABASE)
        server = self._server
        assert server is not None  # noqa: S101 - it was started above
        postgres.create_database(server, DATABASE)
        self.migrate(self._release)
        self._do(self._release, "plans", "apply", "--dsn", self.dsn, "--plans", str(demo.PLANS))
        self.controls = [self._plane(f"control-{name}", ["control"], self._control_environment()) for name in "ab"]
        config = self.directory / "gateway.yaml"
        config.write_text(
            GATEWAY.format(
                redis=self.redis_url,
                times=self._times,
                secret=SECRET,
                issuer=token_mint.ISSUER,
                audience=token_mint.AUDIENCE,
                upstream=sample_process.url(self.upstream.port),
            )
        )
        given = ["gateway", "--config", str(config), "--workers"]
        self.gateways = [self._plane("gateway-a", [*given, "1"], {}), self._plane("gateway-b", [*given, "2"], {})]

    def migrate(self, release: Release) -> None:
        """Raises StackError."""
        self._do(release, "migrate", "--dsn", self.dsn)

    def _do(self, release: Release, *words: str) -> None:
        command = [*release.command, *words]
        done = subprocess.run(command, capture_output=True, text=True, cwd=self.directory, check=False)
        if done.returncode:
            raise StackError(f"{' '.join(words[:2])} of the {release.name} release failed", done.stderr.splitlines())

    def _control_environment(self) -> dict[str, str]:
        given = {
            "POSTGRES_DSN": self.dsn,
            "REDIS_URL": self.redis_url,
            "ADMIN_TOKEN": ADMIN_TOKEN,
            "JWT_SECRET": SECRET,
        }
        return {f"QUOTAGATE_{name}": value for name, value in given.items()}

    def _postgres(self, port: int) -> Part:
        self._server: postgres.PostgresServer | None = None

        def start() -> Child:
            self._server = postgres.start(self.directory / "postgres", port, log=self.directory / "postgres.log")
            return self._server.child

        def ready(_: Child) -> None:
            assert self._server is not None  # noqa: S101 - `start` made it
            self._server.wait_ready()

        def gone() -> None:
            if self._server is not None:
                shutil.rmtree(self._server.home, ignore_errors=True)

        self._stack.callback(gone)
        return self._kept(Part("postgres", port, start, ready))

    def _ledger(self) -> str:
        """Starts what keeps the ledger; its URL."""
        self.redis = self._valkey(free_port())
        return valkey.url(self.redis.port)

    def _valkey(self, port: int) -> Part:
        directory, log = self.directory / "valkey", self.directory / "valkey.log"
        return self._kept(
            Part("redis", port, lambda: valkey.start(directory, port, log=log), lambda c: valkey.wait_ready(c, port))
        )

    def _sample(self, port: int) -> Child:
        return sample_process.start(port, log=self.directory / "upstream.log")

    def _plane(self, name: str, argv: list[str], env: Mapping[str, str]) -> Part:
        def start(port: int) -> Child:
            given = [*self._prefix.get(name, ()), *self.releases[name].command, *argv]
            given += ["--host", LOOPBACK, "--port", str(port)]
            return spawn(name, given, env=env, log=self.directory / f"{name}.log")

        def ready(child: Child, port: int) -> None:
            child.wait_until(lambda: answers(port, "/-/ready"), START_SECONDS)

        return self._added(name, start, ready)

    def _added(self, name: str, start: Callable[[int], Child], ready: Callable[[Child, int], None]) -> Part:
        port = free_port()
        return self._kept(Part(name, port, lambda: start(port), lambda child: ready(child, port)))

    def _kept(self, part: Part) -> Part:
        self._stack.callback(part.end)
        part.start()
        return part


def _started(pid: int) -> int:
    """In ticks since the machine's start; the largest for one that has ended."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[19])
    except OSError:
        return sys.maxsize
