"""docs/recovery.md, command by command: a database is lost, and so is Redis. systemd and `createdb` have stand-ins."""

import asyncio
import os
import re
import sys
from pathlib import Path
from uuid import uuid4

import pytest
from redis.asyncio import Redis

from control.http.context import Context
from control.settings.control_plane import Settings
from devstack import postgres
from tests.control.plane import Entitled
from tests.control.running import environment
from tests.control.usage import spend, write_all

DOCUMENT = (Path(__file__).parents[2] / "docs" / "recovery.md").read_text()
PLACE = "/var/backups/quotagate/2026-11-30"
CREATE = "import sys; from devstack import postgres; postgres.execute(sys.argv[1], f'CREATE DATABASE {sys.argv[2]}')"
SECONDS = 300


def commands(section: str) -> list[str]:
    [text] = re.findall(rf"^## {section}\n(.*?)(?=^## |\Z)", DOCUMENT, re.DOTALL | re.MULTILINE)
    return [
        line.removeprefix("# ")
        for block in re.findall(r"```console\n(.*?)```", text, re.DOTALL)
        for line in block.splitlines()
    ]


class Machine:
    def __init__(self, directory: Path, settings: Settings, server: str) -> None:
        self._directory, self._server = directory, server
        self.database = f"recovered_{uuid4().hex[:12]}"
        self.dsn = f"{server.rpartition('/')[0]}/{self.database}"
        self._environ = environment(settings)
        shims = directory / "shims"
        shims.mkdir()
        for name, text in {
            "systemctl": "exit 0",
            "runuser": 'shift 3; exec "$@"',
            "createdb": f'exec {sys.executable} -c "{CREATE}" {server} {self.database}',
        }.items():
            (shims / name).write_text(f"#!/bin/sh\n{text}\n")
            (shims / name).chmod(0o755)
        self._environ["PATH"] = f"{shims}:{Path(sys.executable).parent}:{os.environ['PATH']}"

    async def run(self, section: str) -> None:
        script = "\n".join(commands(section)).replace(PLACE, str(self._directory / "backup"))
        process = await asyncio.create_subprocess_exec(
            *("bash", "-exc", script),
            env=self._environ,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        async with asyncio.timeout(SECONDS):
            output, _ = await process.communicate()
        assert process.returncode == 0, output.decode()

    def loses_its_database(self) -> None:
        """From here on, the address of the database is that of the new one."""
        self._environ["QUOTAGATE_POSTGRES_DSN"] = self.dsn


@pytest.mark.parametrize("section", ["PostgreSQL is lost", "Both are lost"])
async def test_the_commands_of_the_document_bring_everything_back(
    section: str,
    context: Context,
    settings: Settings,
    redis: Redis,
    postgres_server: str,
    entitled: Entitled,
    tmp_path: Path,
    new_streams: None,
) -> None:
    machine = Machine(tmp_path, settings, postgres_server)
    org = await entitled("starter")
    await context.publisher.install(org)
    await spend(context, org, 3)
    await write_all(context)
    await spend(context, org, 2)
    await machine.run("Backups")
    machine.loses_its_database()
    if section == "Both are lost":
        await redis.flushall()
    try:
        await machine.run(section)
        rows = f"SELECT count(*) FROM usage_event WHERE org = '{org}'"  # an id of the test's own
        assert postgres.execute(machine.dsn, rows) == "5"
        unsealed = postgres.execute(machine.dsn, "SELECT count(*) FROM audit_unsealed")
        assert unsealed == "0", "the journal verifies, however long what comes before takes"
    finally:
        postgres.execute(postgres_server, f"DROP DATABASE IF EXISTS {machine.database} WITH (FORCE)")


def test_each_disaster_has_its_commands() -> None:
    for section in ("Backups", "Redis is lost", "PostgreSQL is lost", "Both are lost"):
        assert commands(section)
