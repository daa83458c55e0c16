"""`make load` against a stack that runs: each kind of user does what it is there for, and a failure is an error."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.e2e.running import START_SECONDS, Up

ROOT = Path(__file__).parent.parent.parent


def load(seconds: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "bench.loadtest", "--seconds", str(seconds), "--shape", "steady", *arguments]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("QUOTAGATE_")}
    return subprocess.run(
        argv, capture_output=True, text=True, timeout=START_SECONDS, check=False, cwd=ROOT, env=environment
    )


def figures(results: Path) -> dict[str, Any]:
    [file] = results.glob("*/load.json")
    content: dict[str, Any] = json.loads(file.read_text())
    return content


def test_a_load_test_makes_its_organizations_calls_in_all_ways_and_says_that_nothing_was_over_admitted(
    stack: Up, tmp_path: Path
) -> None:
    ready = str(stack.data_dir / "ready.json")
    done = load(4, "--ready", ready, "--users", "40", "--organizations", "5", "--results", str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    result = figures(tmp_path)
    called = {line["name"] for line in result["lines"]}
    kinds = {"call", "call with a body", "one hot organization", "exhausted organization", "entitlement changed"}
    assert kinds | {"stream, to its end", "upload", "change, until it is enforced"} <= called
    assert result["total"]["failures"] == 0
    assert (result["exactness"]["over"], result["exactness"]["witnessed"]) == (0, True)
    assert "Over-admitted 0: 1 organizations with 50 units each" in done.stdout
    assert "Left out: WebSocketUser, since --websocket-path names no path." in done.stdout
    [page] = tmp_path.glob("*/load.html")
    assert "<html" in page.read_text()[:200]


def test_two_processes_load_a_gateway_that_is_not_ours_with_tokens_only_and_fail_when_those_are_refused(
    stack: Up, tmp_path: Path
) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text(f"acme {stack.token('acme')}\nnobody not-a-token\n")
    given = (
        "--host",
        stack.ready["gateway"],
        "--tokens",
        str(tokens),
        "--calls",
        "/anything",
        "--users",
        "20",
        "--processes",
        "2",
    )
    done = load(12, *given, "--results", str(tmp_path))  # so long that a busy machine calls with both tokens, too
    assert done.returncode == 1, done.stdout + done.stderr
    result = figures(tmp_path)
    assert 0 < result["total"]["failures"] < result["total"]["requests"]
    assert "status 401" in done.stdout
    assert (result["exactness"], result["generator"]["processes"]) == (None, 2)


def test_an_open_loop_measures_a_gateway_that_is_not_ours_at_the_rate_that_was_asked_for(
    stack: Up, tmp_path: Path
) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text(f"bulk {stack.token('bulk')}\n")
    argv = [sys.executable, "-m", "bench.open_loop", "--host", stack.ready["gateway"], "--tokens", str(tokens)]
    done = subprocess.run(
        [*argv, "--rates", "50", "--seconds", "1"],
        capture_output=True,
        text=True,
        timeout=START_SECONDS,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    [row] = [line for line in done.stdout.splitlines() if line.startswith("| 50 ")]
    assert [cell.strip() for cell in row.split("|")][1:5] == ["50", "gateway", "50", "0"]
