"""With --json, whatever commands print can be read by programs: results and failures alike."""

import json
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import typer.main
from typer.testing import CliRunner

from quotagate.failure import CODES
from quotagate.main import app
from tests.quotagate.configuration.planes import Plane

WITHOUT = {
    "quotagate commands": "writes a document",
    "quotagate config schema": "writes a document, which is JSON",
    "quotagate control": "runs until it is stopped",
    "quotagate demo": "tells a story to people",
    "quotagate gateway": "runs until it is stopped",
    "quotagate observability check": "its exit code says it all",
    "quotagate observability render": "writes documents",
    "quotagate openapi": "writes a document, which is JSON",
    "quotagate people export": "writes a document, which is JSON",
    "quotagate up": "runs until it is stopped; programs read DIR/ready.json",
}
"""Commands without --json, and why."""


def leaves(path: str, command: Any) -> Iterator[tuple[str, Any]]:
    if not hasattr(command, "commands"):
        yield path, command
        return
    for name, inner in command.commands.items():
        yield from leaves(f"{path} {name}", inner)


def test_each_command_that_comes_to_something_has_json() -> None:
    commands = dict(leaves("quotagate", typer.main.get_command(app)))
    without = {path for path, each in commands.items() if not any("--json" in option.opts for option in each.params)}
    assert without <= WITHOUT.keys()
    assert WITHOUT.keys() <= commands.keys()


@pytest.fixture
def org(plane: Plane) -> str:
    name = f"org-{uuid4().hex[:8]}"
    plane.done("org", "create", name, "--plan", "tiny")
    return name


def one(plane: Plane, *arguments: str | Path) -> dict[str, Any]:
    """What a command prints: one object, and nothing beside it."""
    result = plane.run(*arguments, "--json")
    assert (result.exit_code, result.stderr) == (0, ""), (arguments, result.output)
    found = json.loads(result.stdout)
    assert isinstance(found, dict)
    return found


def several(plane: Plane, *arguments: str | Path) -> list[dict[str, Any]]:
    """What a command prints: an object a line, and nothing beside them."""
    result = plane.run(*arguments, "--json")
    assert (result.exit_code, result.stderr) == (0, ""), (arguments, result.output)
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_what_is_made_listed_and_changed_is_json_and_nothing_beside_it(plane: Plane, org: str, tmp_path: Path) -> None:
    assert one(plane, "org", "show", org)["plan"] == "tiny"
    assert org in [each["id"] for each in several(plane, "org", "list")]
    key = one(plane, "keys", "create", org, "--expires", "7d")
    assert one(plane, "keys", "roll", org, key["id"], "--grace", "10m")["rolled_from"] == key["id"]
    assert len(several(plane, "keys", "list", org)) == 2
    file = tmp_path / "keys.csv"
    digest = sha256(org.encode()).hexdigest()
    file.write_text(f"hash\n{digest}\n")
    assert one(plane, "keys", "import", org, file) == {"organization": org, "keys": 1, "taken": []}
    token = one(plane, "service-tokens", "create", org, "--role", "viewer", "--to-file", tmp_path / "token")
    assert token["id"] in [each["id"] for each in several(plane, "service-tokens", "list")]
    [revoked] = several(plane, "service-tokens", "revoke", org)
    assert (revoked["id"], revoked["revoked_at"] is None) == (token["id"], False)
    code = one(plane, "activation", "create", org, "--valid", "1d")
    [listed] = several(plane, "activation", "list", "--org", org)
    assert code["id"] == listed["id"]
    assert one(plane, "activation", "revoke", org, code["id"]) == {"id": code["id"], "state": "revoked"}
    assert several(plane, "activation", "sites", org) == []
    assert one(plane, "console-link", "--role", "viewer")["url"].startswith("http")
    other = f"{org}-other"
    plane.done("org", "create", other)
    taken = plane.run("keys", "import", other, file, "--json")
    assert (taken.exit_code, json.loads(taken.stdout)["taken"]) == (1, [digest])
    assert json.loads(taken.stderr)["error"]["code"] == "failed"


def failure(plane: Plane, *arguments: str) -> tuple[int, dict[str, Any]]:
    result = plane.run(*arguments, "--json")
    assert result.stdout == ""
    error: dict[str, Any] = json.loads(result.stderr)["error"]
    return result.exit_code, error


def test_a_refusal_is_one_object_with_status_and_type(plane: Plane) -> None:
    exit_code, error = failure(plane, "org", "show", "nobody")
    assert (exit_code, error["code"], error["status"]) == (1, "refused", 404)
    assert error["type"] == "urn:quotagate:problem:organization-unknown"
    assert "answered 404" in error["message"]


def test_an_organization_is_not_made_with_a_plan_that_does_not_exist(plane: Plane) -> None:
    exit_code, error = failure(plane, "org", "create", "unmade", "--plan", "golden")
    assert (exit_code, error["code"]) == (1, "failed")
    assert "No available plan has the code golden" in error["message"]
    assert failure(plane, "org", "show", "unmade")[1]["status"] == 404


def test_a_key_that_expires_on_a_day_is_good_until_its_end(plane: Plane, org: str) -> None:
    assert one(plane, "keys", "create", org, "--expires", "2090-12-31")["expires_at"] == "2090-12-31T23:59:59Z"


FAILURES = [
    (["org", "list", "--jsno"], 2, "usage"),
    (["org", "lists"], 2, "usage"),
    (["keys", "create", "x", "--expires", "soon"], 2, "usage"),
    (["keys", "create", "x", "--expires", "9999999d"], 2, "usage"),
    (["keys", "create", "x", "--expires", "2027-02-30"], 2, "usage"),
    (["keys", "create", "x", "--quota", "many"], 2, "usage"),
    (["token", "mint", "acme", "--ttl", "9999999d"], 2, "usage"),
    (["health", "--timeout", "25d"], 2, "usage"),
    (["migrate"], 2, "usage"),
    (["config", "check", "--gateway-config", "nowhere.yaml"], 2, "settings"),
    (["org", "list", "--data-dir", "nowhere"], 1, "unreachable"),
    (["health", "http://127.0.0.1:1"], 1, "unreachable"),
    (["recompute", "--dsn", "postgresql://127.0.0.1:1/none"], 1, "unreachable"),
    (["audit", "verify", "--dsn", "postgresql://127.0.0.1:1/none"], 2, "not_checked"),
    (["token", "mint", "acme", "--secret-env", "UNSET"], 2, "usage"),
]


@pytest.mark.parametrize(("arguments", "exit_code", "code"), FAILURES, ids=[" ".join(each[0]) for each in FAILURES])
def test_a_failure_is_one_object_on_stderr_with_a_code_that_is_documented(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], exit_code: int, code: str
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, [*arguments, "--json"])
    assert (result.exit_code, result.stdout) == (exit_code, "")
    error = json.loads(result.stderr)["error"]
    assert error["code"] == code
    assert error["message"]
    assert code in CODES


def test_behind_two_hyphens_it_is_no_option() -> None:
    result = CliRunner().invoke(app, ["org", "list", "--data-dir", "nowhere", "--", "--json"])
    assert result.exit_code == 2
    assert result.stderr.startswith("Usage:")
