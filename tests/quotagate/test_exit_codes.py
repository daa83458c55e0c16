"""What a command ends with where a file of settings or a variable of the environment is at fault: one rule for all."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import typer.main
from typer.testing import CliRunner

from devstack import datadir, stack
from quotagate.main import app
from tests.quotagate.test_json_output import leaves

SETTINGS = {"config", "gateway_config", "control_config", "plans", "source"}
"""Parameters that are a file of settings or of configuration. `up` and `config check` have other names for some."""
NO_SETTINGS = {
    "quotagate audit verify": set(),
    "quotagate commands": {"file"},
    "quotagate export": {"target"},
    "quotagate keys import": {"file"},
    "quotagate observability check": {"table"},
    "quotagate observability render": {"table"},
    "quotagate openapi": {"file"},
    "quotagate people export": {"to_file"},
    "quotagate service-tokens create": {"to_file"},
    "quotagate usage restore": {"files"},
}
"""Files that are written, or hold data: a failure of these is one of the command."""
FAULTY = {
    "missing.yaml": None,
    "syntax.yaml": b"plans: [\n",
    "unknown.yaml": b"lisen: {port: 1}\n",
    "bytes.yaml": b"plans: \xff\n",
    "unset.yaml": b"format: ${QUOTAGATE_NOBODY_SETS_THIS}\n",
}
ENVIRONMENT = {
    "QUOTAGATE_POSTGRES_DSN": "postgresql://127.0.0.1:1/none",
    "QUOTAGATE_CONTROL_URL": "http://127.0.0.1:1",
    "QUOTAGATE_ADMIN_TOKEN": "x" * 32,
}
NEEDED = {"directory": "backup", "org": "acme", "to_file": "made", "files": "x.csv.gz", "kind": "gateway"}

COMMANDS = dict(leaves("quotagate", typer.main.get_command(app)))


def files_of(path: str) -> Iterator[Any]:
    for each in COMMANDS[path].params:
        if str(each.metavar).startswith("FILE") and each.name not in NO_SETTINGS.get(path, ()):
            yield each


@dataclass(frozen=True)
class Ended:
    exit_code: int
    stderr: str


def called(path: str, *arguments: str, without: str = "", environment: Mapping[str, str] = ENVIRONMENT) -> Ended:
    """The command with what it needs besides; `without`: a parameter that the arguments have."""
    command, words = COMMANDS[path], path.split()[1:]
    for each in command.params:
        if each.required and each.name != without:
            value = NEEDED.get(each.name, "x")
            words += [value] if each.param_type_name == "argument" else [each.opts[0], value]
    words += [*arguments, *(["--json"] if any("--json" in each.opts for each in command.params) else [])]
    if path == "quotagate gateway":  # it sets up the log of its process
        env = {**os.environ, **environment}
        argv = [sys.executable, "-m", "quotagate", *words]
        done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=60, check=False)
        return Ended(done.returncode, done.stderr)
    result = CliRunner().invoke(app, words, env=environment)
    assert isinstance(result.exception, SystemExit), repr(result.exception)
    return Ended(result.exit_code, result.stderr)


def assert_refused(ended: Ended, code: str) -> None:
    assert ended.exit_code == 2, ended
    assert "Traceback" not in ended.stderr
    if ended.stderr.startswith("{"):
        assert json.loads(ended.stderr)["error"]["code"] == code


@pytest.fixture
def nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty directory, and an environment without variables of ours."""
    for name in [each for each in os.environ if each.startswith("QUOTAGATE_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_each_file_that_a_command_reads_settings_from_is_tried_here() -> None:
    of = {(path, each.name) for path in COMMANDS for each in files_of(path)}
    others = {("quotagate config check", name) for name in ("gateway", "control", "plans")}
    others |= {(f"quotagate observability {name}", "file") for name in ("check", "render")}
    assert {(path, name) for path, name in of if name not in SETTINGS} <= others


@pytest.mark.parametrize("path", [path for path in COMMANDS if path != "quotagate up" and list(files_of(path))])
def test_every_command_ends_with_2_where_a_file_of_settings_is_faulty(path: str, nothing_set: Path) -> None:
    for file, content in FAULTY.items():
        if content is not None:
            (nothing_set / file).write_bytes(content)
        for each in files_of(path):
            words = (file,) if each.param_type_name == "argument" else (each.opts[0], file)
            assert_refused(called(path, *words, without=each.name), "settings")
    assert not (nothing_set / "backup").exists()


@pytest.mark.parametrize("plane", ["gateway", "control", "plans"])
def test_a_stack_with_a_faulty_file_of_settings_starts_nothing_and_ends_with_2(plane: str, nothing_set: Path) -> None:
    (nothing_set / "wrong.yaml").write_bytes(FAULTY["unknown.yaml"] or b"")
    option = "--plans" if plane == "plans" else f"--{plane}-config"
    result = called(
        "quotagate up", "--data-dir", "data", "--gateway-port", "0", "--control-port", "0", option, "wrong.yaml"
    )
    assert_refused(result, "settings")
    assert "wrong.yaml:1: lisen: unknown field" in result.stderr
    assert not (nothing_set / "data" / "logs").exists()


def test_settings_of_a_stack_are_checked_with_the_variables_that_the_stack_sets(nothing_set: Path) -> None:
    given: dict[str, str] = {}

    class Checked(Exception): ...

    def check(environment: Mapping[str, str]) -> None:
        given.update(environment)
        raise Checked

    with pytest.raises(Checked):
        stack.up(stack.Options(nothing_set / "data", 0, 0, check=check), say=print)
    named = ("QUOTAGATE_REDIS_URL", "QUOTAGATE_POSTGRES_DSN", "QUOTAGATE_JWT_SECRET", "QUOTAGATE_MASTER_KEY")
    assert all(given[name] for name in named)
    assert datadir.read_secrets(nothing_set / "data").jwt_secret == given["QUOTAGATE_JWT_SECRET"]


@pytest.mark.parametrize("path", [path for path, each in COMMANDS.items() if any(p.name == "dsn" for p in each.params)])
def test_every_command_ends_with_2_where_no_variable_names_the_database(path: str, nothing_set: Path) -> None:
    assert_refused(called(path, environment={}), "usage")


CALLING = [path for path, each in COMMANDS.items() if any(p.name == "admin_token_env" for p in each.params)]


@pytest.mark.parametrize("path", CALLING)
def test_every_command_ends_with_2_where_no_variable_holds_the_admin_token(path: str, nothing_set: Path) -> None:
    (nothing_set / "x").write_text("hash\n")
    url = {"QUOTAGATE_CONTROL_URL": "http://127.0.0.1:1"}
    extra: dict[str, tuple[str, ...]] = {f"quotagate people {verb}": ("--user", "u") for verb in ("export", "erase")}
    extra["quotagate activation create"] = ("acme",)
    result = called(path, *extra.get(path, ()), environment=url)
    assert_refused(result, "usage")
    assert "QUOTAGATE_ADMIN_TOKEN must hold the admin token of" in " ".join(result.stderr.split())
    assert not (nothing_set / "made").exists()


@pytest.mark.parametrize(
    "arguments",
    [("quotagate token mint", "--secret-env", "NOBODY_SETS_THIS"), ("quotagate plans apply", "--stripe")],
)
def test_a_variable_that_an_option_needs_is_missing_as_any_other(arguments: tuple[str, ...], nothing_set: Path) -> None:
    assert_refused(called(*arguments), "usage")
