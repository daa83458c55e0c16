"""A PgBouncer of a test's own, as Debian ships it."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from devstack.child import Child, spawn, stopping
from devstack.os_account import home_for, needed_account
from devstack.ports import LOOPBACK, free_port, is_free

PROGRAM = shutil.which("pgbouncer", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
needs_pgbouncer = pytest.mark.skipif(PROGRAM is None, reason="needs pgbouncer")

SETTINGS = """
[databases]
* = host={host} port={port}
[pgbouncer]
listen_addr = {loopback}
listen_port = {own}
unix_socket_dir =
auth_type = trust
auth_file = {users}
pool_mode = {mode}
default_pool_size = {size}
max_client_conn = 200
query_wait_timeout = 20
"""


class Pooler:
    """`dsn`: as the one that it was made for, through the pooler."""

    def __init__(self, dsn: str, child: Child) -> None:
        self.dsn, self.child = dsn, child


@contextmanager
def pooling(directory: Path, dsn: str, mode: str = "transaction", size: int = 3) -> Iterator[Pooler]:
    """`size`: connections to PostgreSQL, of all that come with the same role."""
    parts, own, account = urlsplit(dsn), free_port(), needed_account()
    home = directory / f"pgbouncer-{own}"
    if account is None:
        home.mkdir()
    else:
        home = home_for(account, home)
    file = home / "pgbouncer.ini"
    users = home / "users.txt"
    users.write_text(f'"{parts.username}" ""\n')
    file.write_text(
        SETTINGS.format(
            host=parts.hostname, port=parts.port, loopback=LOOPBACK, own=own, mode=mode, size=size, users=users
        )
    )
    child = spawn(
        "pgbouncer",
        [str(PROGRAM), str(file)],
        log=directory / f"pgbouncer-{own}.log",
        account=None if account is None else account.ids,
    )
    try:
        with stopping(child):
            child.wait_until(lambda: not is_free(own), 20)
            yield Pooler(parts._replace(netloc=f"{parts.username}@{LOOPBACK}:{own}").geturl(), child)
    finally:
        shutil.rmtree(home)
