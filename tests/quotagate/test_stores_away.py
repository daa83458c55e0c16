"""Every command against a PostgreSQL and a Redis that are missing, refuse, or are empty: one plain line."""

import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from socketserver import StreamRequestHandler, ThreadingTCPServer
from threading import Thread

import pytest

from devstack import postgres
from devstack.ports import free_port
from quotagate.main import app
from tests.quotagate.outcomes import assert_plain, outcomes_of

SSL_REQUEST = struct.pack("!I", 80877103)
WITH_POSTGRES = (
    "migrate",
    "plans apply",
    "plans apply --dry-run",
    "reconcile",
    "recompute",
    "usage list",
    "usage archive",
    "usage restore none.csv.gz",
    "audit verify",
    "doctor",
    "control --port 0",
    "backup kept",
)
WITH_REDIS = ("reconcile", "doctor", "control --port 0", "backup kept")
WITH_NEITHER = {
    *("up", "demo", "gateway", "config", "version", "health", "observability", "openapi", "commands", "restore"),
    *("org", "people", "token", "keys", "activation", "service-tokens", "signing-keys", "console_link"),
    *("export", "diff", "apply"),
}
"""They have a stack or a control plane to ask, need none, or (the gateway) go on without; a backup that is restored is
read first: tests of their own."""


class _Refuses(StreamRequestHandler):
    """A PostgreSQL that knows nobody."""

    def handle(self) -> None:
        while True:
            size = struct.unpack("!I", self.rfile.read(4))[0]
            if self.rfile.read(size - 4) != SSL_REQUEST:
                break
            self.wfile.write(b"N")
        error = b'SFATAL\0VFATAL\0C28P01\0Mpassword authentication failed for user "app"\0\0'
        self.wfile.write(b"E" + struct.pack("!I", len(error) + 4) + error)


@pytest.fixture(scope="module")
def refusing() -> Iterator[str]:
    with ThreadingTCPServer(("127.0.0.1", 0), _Refuses) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"postgresql://app:wrong@127.0.0.1:{server.server_address[1]}/quotagate"
        server.shutdown()


def test_each_command_that_needs_a_store_is_tried_here() -> None:
    commands = {command.name or command.callback.__name__ for command in app.registered_commands if command.callback}
    groups = {str(group.typer_instance.info.name) for group in app.registered_groups if group.typer_instance}
    assert {*commands, *groups} - WITH_NEITHER == {command.split()[0] for command in (*WITH_POSTGRES, *WITH_REDIS)}


def test_a_postgres_that_is_missing_is_told_in_one_line(redis_url: str, tmp_path: Path) -> None:
    dsn = f"postgresql://app@127.0.0.1:{free_port()}/quotagate"
    assert_plain(outcomes_of(WITH_POSTGRES, dsn, redis_url, tmp_path), "Postgres: [Errno 111] Connect")


def test_a_wrong_password_is_told_in_one_line(refusing: str, redis_url: str, tmp_path: Path) -> None:
    assert_plain(outcomes_of(WITH_POSTGRES, refusing, redis_url, tmp_path), "Postgres: password authentication failed")


def test_a_database_that_does_not_exist_is_told_in_one_line(
    postgres_server: str, redis_url: str, tmp_path: Path
) -> None:
    dsn = f"{postgres_server.rpartition('/')[0]}/never_made"
    assert_plain(outcomes_of(WITH_POSTGRES, dsn, redis_url, tmp_path), 'Postgres: database "never_made" does not exist')


def test_a_database_that_nobody_migrated_is_told_with_the_command_that_helps(
    empty_database: str, redis_url: str, tmp_path: Path
) -> None:
    commands = tuple(command for command in WITH_POSTGRES if command != "migrate")
    assert_plain(outcomes_of(commands, empty_database, redis_url, tmp_path), "run `quotagate migrate`")


def test_a_database_of_an_older_release_is_told_with_the_command_that_helps(
    postgres_dsn: str, redis_url: str, tmp_path: Path
) -> None:
    newest = postgres.execute(postgres_dsn, "SELECT version_num FROM alembic_version")
    postgres.execute(postgres_dsn, "UPDATE alembic_version SET version_num = '0008'")
    results = outcomes_of(("control --port 0", "audit verify"), postgres_dsn, redis_url, tmp_path)
    postgres.execute(postgres_dsn, f"UPDATE alembic_version SET version_num = '{newest}'")
    assert_plain(results, "the schema is 0008, and this release needs")


def test_a_role_without_rights_is_told_in_one_line(postgres_dsn: str, redis_url: str, tmp_path: Path) -> None:
    postgres.execute(postgres_dsn, "CREATE ROLE nothing LOGIN")
    dsn = f"postgresql://nothing@{postgres_dsn.partition('@')[2]}"
    try:
        assert_plain(
            outcomes_of(WITH_POSTGRES, dsn, redis_url, tmp_path),
            "Postgres: permission denied",
            "not the owner",
            "only the owner",
        )
    finally:
        postgres.execute(postgres_dsn, "DROP ROLE nothing")


def test_a_redis_that_is_missing_is_told_in_one_line(postgres_dsn: str, tmp_path: Path) -> None:
    results = outcomes_of(WITH_REDIS, postgres_dsn, f"redis://127.0.0.1:{free_port()}/0", tmp_path)
    assert_plain(results, "Redis does not answer: ", "redis              does not answer: ")


def test_what_is_no_redis_is_told_in_one_line(postgres_dsn: str, tmp_path: Path) -> None:
    port = postgres_dsn.rpartition("/")[0].rpartition(":")[2]
    results = outcomes_of(WITH_REDIS, postgres_dsn, f"redis://127.0.0.1:{port}/0", tmp_path)
    assert_plain(results, "Redis does not answer: ", "redis              does not answer: ")


def test_a_migration_says_what_it_did(empty_database: str, tmp_path: Path, redis_url: str) -> None:
    def migrate() -> list[str]:
        argv = [sys.executable, "-m", "quotagate", "migrate", "--dsn", empty_database]
        return subprocess.run(argv, capture_output=True, text=True, timeout=120, check=True).stdout.splitlines()

    first, role = migrate()
    assert first.startswith("The schema is 00")
    assert "migrations were applied, 0001 to " in first
    assert role == "The role quotagate_app has its rights."
    assert migrate()[0].startswith("The schema is already 00")
