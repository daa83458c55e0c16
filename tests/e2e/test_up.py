"""`quotagate up`: starts everything or says why not, and leaves nothing behind."""

import json
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from devstack import postgres, valkey
from devstack.child import ServiceDied, stopping
from devstack.ports import free_port
from tests.e2e.running import Command, Eventually, StartUp, Up, wait_for

PLANNED = [("tiny", "tiny"), ("acme", "starter"), ("globex", "growth"), ("bulk", "bulk"), ("unpaid", None)]
PLANES = ("gateway", "control")


def pasted(line: str) -> str:
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=60, check=True)
    return done.stdout


def test_ready_json_holds_what_a_client_needs(stack: Up, quotagate: Command) -> None:
    ready = json.loads((stack.data_dir / "ready.json").read_text())
    assert [(entry["org"], entry["plan"]) for entry in ready["orgs"]] == PLANNED
    stores = {"redis", "postgres", "postgres_owner"}
    assert (
        set(ready)
        == {
            "gateway",
            "gateways",
            "control",
            "controls",
            "console",
            "portal",
            "metrics",
            "metrics_of_gateways",
            "upstream",
            "stripe",
            "admin_token",
            "orgs",
            "sign_up",
            "topology",
        }
        | stores
    )
    assert postgres.execute(ready["postgres"], "SELECT current_database()") == "quotagate"
    control = "SELECT DISTINCT usename FROM pg_stat_activity WHERE application_name = 'quotagate'"
    assert postgres.execute(ready["postgres_owner"], control) == "quotagate", "which is not the owner"
    assert "can change neither journal nor events" in quotagate("doctor", "--data-dir", str(stack.data_dir)).stdout
    for secret in ("ready.json", "secrets.json"):
        assert stat.S_IMODE((stack.data_dir / secret).stat().st_mode) == 0o600


def test_the_admin_token_is_not_printed_and_where_it_is(stack: Up) -> None:
    printed = stack.output.read_text()
    assert stack.ready["admin_token"] not in printed
    assert str(stack.data_dir / "ready.json") in printed


def test_the_journal_of_the_demo_organizations_is_sealed_and_whole(
    stack: Up,
    quotagate: Command,
    eventually: Eventually,
) -> None:
    dsn = stack.ready["postgres"]
    waiting = "SELECT count(*) FROM audit_unsealed"
    assert eventually(lambda: postgres.execute(dsn, waiting) == "0")
    verified = quotagate("audit", "verify", "--dsn", dsn)
    assert verified.returncode == 0, verified.stderr
    assert int(verified.stdout.removeprefix("head ").partition(":")[0]) >= len(PLANNED)


def test_no_secret_is_in_a_command_line(stack: Up) -> None:
    secrets = json.loads((stack.data_dir / "secrets.json").read_text()).values()
    lines = stack.command_lines().values()
    assert len(lines) >= 5
    assert not [line for line in lines for secret in secrets if secret in line]


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_the_printed_lines_work_when_pasted(stack: Up) -> None:
    lines = re.findall(r"^  ((?:curl|for) .*)$", stack.output.read_text(), re.MULTILINE)
    one_call, until_refused, whats_left, signed_up = lines
    assert pasted(one_call).startswith("HTTP/1.1 200")
    assert sorted(pasted(until_refused).split()) == ["1", "100", "200", "429"]
    assert json.loads(pasted(whats_left))
    assert pasted(signed_up).startswith(("HTTP/1.1 402", "HTTP/1.1 200")), "as somebody has paid, or not yet"


@dataclass(frozen=True)
class TwoRuns:
    """Of `quotagate up` on one data directory, which are over: whole stacks take long to start, so tests share them."""

    first: Up
    second: Up
    logs: Mapping[str, Sequence[Mapping[str, Any]]]
    """By plane: what was logged at the start of the first run."""
    left: Sequence[Mapping[str, str]]
    """The fields of a client's answers, three of the first run and one of the second."""
    exit_code: int
    still_running: Sequence[psutil.Process]
    """When the first one had stopped."""
    announced: bool
    """Whether `ready.json` was there, then."""


@pytest.fixture(scope="module")
def two_runs(stack_directory: Path) -> TwoRuns:
    data_dir = stack_directory / "two-runs"
    first = Up(data_dir)
    try:
        # The gateway says that it listens once it takes connections, of which `up` may have had one by then.
        assert wait_for(lambda: all(listening(data_dir, plane) for plane in PLANES))
        logs = {plane: logged(data_dir, plane) for plane in PLANES}
        processes = first.descendants()
        with first.client("tiny") as client:
            left = [client.get("/get").headers for _ in range(3)]
    finally:
        exit_code = first.stop()
    still_running = [process for process in processes if process.is_running()]
    announced = (data_dir / "ready.json").exists()
    second = Up(data_dir)
    try:
        with second.client("tiny") as client:
            left.append(client.get("/get").headers)
    finally:
        second.stop()
    return TwoRuns(first, second, logs, left, exit_code, still_running, announced)


def logged(data_dir: Path, plane: str) -> list[dict[str, Any]]:
    lines = (data_dir / "logs" / f"{plane}.log").read_text().splitlines(keepends=True)
    entries = [json.loads(line) for line in lines if line.startswith("{") and line.endswith("\n")]
    return [entry for entry in entries if "level" in entry]  # and no line of the access log


def listening(data_dir: Path, plane: str) -> list[str]:
    """Where it says that it listens."""
    return [entry["address"] for entry in logged(data_dir, plane) if entry["message"] == "listening"]


def test_ctrl_c_leaves_no_process_and_a_restart_keeps_what_is_left(two_runs: TwoRuns) -> None:
    first, second = two_runs.first, two_runs.second
    assert (two_runs.exit_code, two_runs.still_running, two_runs.announced) == (0, [], False)
    assert "r=97;" in two_runs.left[2]["RateLimit"]
    assert "r=96;" in two_runs.left[3]["RateLimit"]
    assert first.token("tiny")  # a token of the first run is still good
    assert second.ready["admin_token"] == first.ready["admin_token"]
    assert second.ready["redis"] == first.ready["redis"]


def test_a_start_tells_how_far_it_is_and_keeps_the_logs_of_earlier_ones(two_runs: TwoRuns) -> None:
    second = two_runs.second
    lines = second.output.read_text().splitlines()
    assert lines[0] == f"Starting Valkey and PostgreSQL; logs are in {second.data_dir / 'logs'}"
    assert lines[1:3] == ["Bringing the database to this release", "Starting the control plane and the gateway"]
    kept = {file.name for file in (second.data_dir / "logs").glob("gateway*")}
    assert kept == {"gateway.log", "gateway.1.log"}


def test_a_first_start_warns_of_nothing(two_runs: TwoRuns) -> None:
    for plane, entries in two_runs.logs.items():
        address = two_runs.first.ready[plane].removeprefix("http://")
        assert [each["address"] for each in entries if each["message"] == "listening"] == [address]
        assert [each for each in entries if each["level"] not in ("info", "debug")] == []


def test_a_history_is_not_played_into_a_directory_that_was_used(two_runs: TwoRuns, quotagate: Command) -> None:
    used = str(two_runs.second.data_dir)
    refused = quotagate("up", "--demo-history", "--data-dir", used, "--gateway-port", "0")
    assert refused.returncode == 1
    assert "holds data already" in refused.stderr


@pytest.mark.parametrize("store", ["postgres", "valkey"])
def test_a_data_directory_that_is_damaged_is_told_with_the_log_of_its_store(
    two_runs: TwoRuns, quotagate: Command, store: str
) -> None:
    data = two_runs.second.data_dir
    if store == "postgres":
        clusters = [file.parent for file in (*data.rglob("PG_VERSION"), *_elsewhere(data)) if file.name == "PG_VERSION"]
        files = [clusters[0] / "global" / "pg_control"]
    else:
        files = list((data / "valkey").rglob("*.incr.aof"))
    whole = [file.read_bytes() for file in files]
    for file in files:
        file.write_bytes(b"damaged")
    failure = failed(quotagate, data)
    for file, content in zip(files, whole, strict=True):
        file.write_bytes(content)
    log = data / "logs" / f"{store}.log"
    assert failure[0].startswith(f"quotagate: {store} "), failure
    assert failure[0].endswith(f"; its log is {log}"), failure
    assert len(failure) > 1
    assert log.read_text().strip()


def test_ctrl_c_does_not_wait_for_a_stream_that_goes_on(up: StartUp) -> None:
    running = up("streaming")
    with (
        running.client("acme") as client,
        client.stream("GET", "/sse?count=1000&interval_ms=500") as stream,
    ):
        assert next(stream.iter_lines())
        began = time.monotonic()
        assert running.stop() == 0
        assert time.monotonic() - began < 30, "the stream would go on for 500 seconds"


def test_a_service_that_dies_stops_the_rest_and_is_told_in_one_line(up: StartUp) -> None:
    running = up("dying")
    processes = running.descendants()
    running.child("devstack.sample").kill()
    assert running.wait() == 1
    lines = running.output.read_text().splitlines()
    log = running.data_dir / "logs" / "upstream.log"
    assert f"quotagate: upstream was ended by SIGKILL; its log is {log}" in lines
    assert not [process for process in processes if process.is_running()]


def test_a_killed_supervisor_leaves_nothing_and_the_next_one_starts(up: StartUp) -> None:
    first = up("killed")
    processes = first.descendants()
    with first.client("tiny") as client:
        client.get("/get")
    os.kill(first.process.pid, signal.SIGKILL)
    first.process.wait()
    second = up("killed")
    assert not [process for process in processes if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]
    with second.client("tiny") as client:
        assert "r=98;" in client.get("/get").headers["RateLimit"]


def test_a_second_up_on_the_same_data_directory_is_told_in_one_line(stack: Up, quotagate: Command) -> None:
    arguments = ["--data-dir", str(stack.data_dir), "--gateway-port", "0", "--control-port", "0"]
    second = quotagate("up", *arguments)
    assert second.returncode == 1
    message = f"data directory {stack.data_dir} is in use by another `quotagate up` (process {stack.process.pid})"
    assert second.stderr == f"quotagate: {message}\n"
    assert (stack.data_dir / "ready.json").exists()


def test_a_port_in_use_is_told_in_one_line(stack_directory: Path, quotagate: Command) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        refused = quotagate("up", "--data-dir", str(stack_directory / "busy"), "--gateway-port", port)
    assert refused.returncode == 1
    assert refused.stderr == (
        f"quotagate: port {port} is in use: free it, or choose another with --gateway-port (0 picks a free one)\n"
    )


def failed(quotagate: Command, data: Path, *flags: str) -> list[str]:
    """What a start that fails tells."""
    refused = quotagate("up", "--data-dir", str(data), "--gateway-port", "0", "--control-port", "0", *flags)
    assert refused.returncode == 1, refused.stderr
    assert "Traceback" not in refused.stderr
    assert not (data / "ready.json").exists()
    return refused.stderr.splitlines()


def test_a_plane_that_ends_at_its_start_is_told_with_its_log_and_what_is_wrong(
    stack_directory: Path, tmp_path: Path, quotagate: Command
) -> None:
    elsewhere, data = tmp_path / "control.yaml", stack_directory / "elsewhere"
    packaged = (Path(__file__).parents[2] / "config/control.yaml").read_text()
    elsewhere.write_text(
        packaged.replace("${QUOTAGATE_REDIS_URL:-redis://127.0.0.1:6379/0}", f"redis://127.0.0.1:{free_port()}")
    )
    failure = failed(quotagate, data, "--control-config", str(elsewhere))
    log = data / "logs" / "control.log"
    assert failure[0] == f"quotagate: control ended with exit code 2; its log is {log}"
    assert any("quotagate control: Redis" in line for line in failure[1:])
    assert "quotagate control: Redis" in log.read_text()


def test_a_store_whose_port_is_taken_meanwhile_is_told_at_once_with_its_log(
    stack_directory: Path, quotagate: Command, redis_url: str
) -> None:
    """The one who took it is a server of the same kind, which answers in place of ours."""
    data = stack_directory / "taken"
    child = valkey.start(data / "valkey", int(redis_url.rpartition(":")[2].partition("/")[0]), log=data / "valkey.log")
    with stopping(child), pytest.raises(ServiceDied, match="its log is") as died:
        valkey.wait_ready(child, int(redis_url.rpartition(":")[2].partition("/")[0]))
    assert any("Address already in use" in line for line in died.value.detail)


def _elsewhere(data: Path) -> list[Path]:
    """Where PostgreSQL's account cannot enter the directory."""
    note = data / "postgres.location"
    return list(Path(note.read_text()).rglob("PG_VERSION")) if note.exists() else []


def test_a_data_directory_of_a_newer_version_is_told_in_one_line(tmp_path: Path, quotagate: Command) -> None:
    (tmp_path / "version").write_text("99\n")
    refused = quotagate("up", "--data-dir", str(tmp_path))
    assert refused.returncode == 1
    assert refused.stderr.startswith(f"quotagate: data directory {tmp_path} is of a newer version (layout 99")
    assert len(refused.stderr.splitlines()) == 1


def test_a_wrong_line_in_the_settings_is_told_with_file_and_field(
    stack_directory: Path, tmp_path: Path, quotagate: Command
) -> None:
    wrong = tmp_path / "plans.yaml"
    wrong.write_text("plans:\n  tiny:\n    policy: SOFT_STOP\n")
    refused = quotagate(
        "up",
        "--data-dir",
        str(stack_directory / "wrong"),
        "--plans",
        str(wrong),
        "--gateway-port",
        "0",
        "--control-port",
        "0",
    )
    assert refused.returncode == 2
    assert f"{wrong}:3: plans.tiny.policy" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_the_doctor_finds_nothing_wrong_with_the_stack(stack: Up, quotagate: Command) -> None:
    examined = quotagate("doctor", "--data-dir", str(stack.data_dir))
    assert examined.returncode == 0, examined.stdout


def test_a_catalogue_of_ones_own_starts_without_the_demo_plans(up: StartUp, tmp_path: Path) -> None:
    own = tmp_path / "plans.yaml"
    own.write_text(
        "plans:\n"
        "  solo: {name: Solo, policy: HARD_STOP, currency: usd, demo: true, meters: {api_calls: {allowance: 9}}}\n"
    )
    running = up("own", "--plans", str(own))
    assert {entry["plan"] for entry in running.ready["orgs"]} == {None}
    assert "The catalogue has none of the demo plans" in running.output.read_text()
