"""A standby of a PostgreSQL of the tests, which really streams from it."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from devstack import postgres
from devstack.child import spawn, stopping
from devstack.os_account import home_for, needed_account
from devstack.ports import LOOPBACK, free_port
from devstack.postgres import PostgresServer


class Standby:
    def __init__(self, server: PostgresServer) -> None:
        self.server = server

    def dsn(self, of_primary: str) -> str:
        """The same database and role, here."""
        parts = urlsplit(of_primary)
        return parts._replace(netloc=f"{parts.username}@{LOOPBACK}:{self.server.port}").geturl()

    def run(self, sql: str) -> str:
        return postgres.execute(self.server.dsn(postgres.SUPERUSER), sql)


@contextmanager
def streaming(directory: Path, primary: str) -> Iterator[Standby]:
    """`primary`: the server's address."""
    account, home = needed_account(), directory / "standby"
    if account is None:
        home.mkdir(mode=0o700)
    else:
        home = home_for(account, home)
    programs = postgres.programs()
    copy = spawn(
        "pg_basebackup",
        [str(programs / "pg_basebackup"), "-d", primary, "-D", str(home / "data"), "-R", "-X", "stream", "-c", "fast"],
        log=directory / "basebackup.log",
        account=None if account is None else account.ids,
    )
    try:
        with stopping(copy):
            assert copy.process.wait() == 0, copy.log.read_text()
        server = postgres.start(directory / "standby", free_port(), log=directory / "standby.log", durable=False)
        with stopping(server.child):
            server.wait_ready()
            yield Standby(server)
    finally:
        shutil.rmtree(home)
