"""deploy/compose/: as Docker Compose reads it, and as Quotagate reads what is in it."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import yaml

from devstack import postgres
from tests.deploy import naming, tools

pytestmark = tools.needed
OURS = ("gateway", "control", "migrate")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy, with secrets made as the document says."""
    folder = tmp_path_factory.mktemp("checkout") / "deploy/compose"
    shutil.copytree(tools.DEPLOY / "compose", folder)
    done = tools.run([str(folder / "make-env.sh")])
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def services(folder: Path) -> dict[str, dict[str, Any]]:
    done = tools.run(
        [str(tools.BIN / "docker-compose"), "--file", str(folder / "compose.yaml"), "config", "--format=json"]
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    found: dict[str, dict[str, Any]] = json.loads(done.stdout)["services"]
    return found


def test_secrets_are_made_once_and_for_nobody_else_to_read(folder: Path) -> None:
    assert (folder / ".env").stat().st_mode & 0o077 == 0
    before = (folder / ".env").read_text()
    again = tools.run([str(folder / "make-env.sh")])
    assert (again.returncode, "is there already" in again.stderr) == (1, True)
    assert (folder / ".env").read_text() == before


def test_compose_says_which_secret_is_missing(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    words = ["--env-file", str(tmp_path / "empty"), "--file", str(folder / "compose.yaml"), "config"]
    done = tools.run([str(tools.BIN / "docker-compose"), *words])
    assert done.returncode != 0
    assert "see .env" in done.stderr


def test_each_command_variable_and_setting_exists(services: dict[str, dict[str, Any]], folder: Path) -> None:
    for name in OURS:
        service = services[name]
        assert list(naming.command_faults(service["command"])) == []
        assert set(service["environment"]) <= naming.variables()
        check = service["healthcheck"]
        if not check.get("disable"):
            assert check["test"][:2] == ["CMD", "quotagate"]
            assert list(naming.command_faults(check["test"][2:])) == []
    for name in ("gateway", "control"):
        text = (folder / f"{name}.yaml").read_text()
        assert list(naming.setting_faults(f"{name}.yaml", text)) == []
        assert naming.references(text) <= set(services[name]["environment"])
        mounted = {volume["target"] for volume in services[name]["volumes"]}
        assert f"/etc/quotagate/{name}.yaml" in mounted
    assert list(naming.setting_faults("plans.yaml", (folder / "plans.yaml").read_text())) == []


def test_ours_run_without_rights_on_read_only_roots_and_no_store_is_reached_from_outside(
    services: dict[str, dict[str, Any]],
) -> None:
    for name in OURS:
        service = services[name]
        assert (service["user"], service["read_only"], service["cap_drop"]) == ("10001:10001", True, ["ALL"])
        assert service["security_opt"] == ["no-new-privileges:true"]
    for name in ("valkey", "postgres"):
        assert "ports" not in services[name]
        assert set(services[name]["networks"]) == {"back"}
    assert services["control"]["ports"][0]["host_ip"] == "127.0.0.1"
    stop = yaml.safe_load((tools.DEPLOY / "compose/gateway.yaml").read_text())["drain"]["stop_seconds"]
    assert int(services["gateway"]["stop_grace_period"].removesuffix("s")) > stop


def test_valkey_keeps_what_it_answered_and_evicts_nothing(services: dict[str, dict[str, Any]]) -> None:
    command = services["valkey"]["command"][-1]
    assert "--appendonly yes" in command
    assert "--maxmemory-policy noeviction" in command


@pytest.fixture
def server_of_its_own() -> Iterator[str]:
    """A PostgreSQL that has no roles yet, as Compose starts it; that of the session has the roles of other tests."""
    # Not tmp_path: pytest makes it for its own user alone, and under root PostgreSQL runs as another.
    with TemporaryDirectory(prefix="quotagate-compose-") as name:
        directory = Path(name)
        directory.chmod(0o711)
        with postgres.running(directory) as dsn:
            yield dsn


@pytest.mark.skipif(shutil.which("psql") is None, reason="needs psql")
def test_postgres_first_start_makes_a_login_that_is_no_owner(server_of_its_own: str) -> None:
    rest = server_of_its_own.partition("://")[2]
    user, _, place = rest.partition("@")
    host, _, port = place.partition("/")[0].partition(":")
    environment = {
        **os.environ,
        "PGHOST": host,
        "PGPORT": port,
        "POSTGRES_USER": user,
        "POSTGRES_DB": "postgres",
        "POSTGRES_APP_PASSWORD": "it's a password",
    }
    script = tools.DEPLOY / "compose/login-role.sh"
    done = subprocess.run([str(script)], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    roles = "SELECT rolname FROM pg_roles WHERE rolname LIKE 'quotagate%' AND NOT rolsuper AND rolcanlogin"
    asked = subprocess.run(
        ["psql", "-At", "-U", user, "-d", "postgres", "-c", roles],
        env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert asked.stdout.split() == ["quotagate"]
