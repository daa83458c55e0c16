"""The control plane as a process: how it starts, refuses to start, and stops."""

import json
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from uuid import uuid4

import pytest
import redis

from control.settings.control_plane import Settings
from devstack import postgres
from devstack.ports import free_port
from quota import keys
from tests.control.plane import ADMIN_TOKEN, JWT_SECRET
from tests.control.running import command, environment, started


def test_it_writes_what_is_left_when_it_is_stopped_and_tells_no_secret(settings: Settings, tmp_path: Path) -> None:
    dsn, log = settings.postgres.dsn.get_secret_value(), tmp_path / "control.log"
    org = f"org-{uuid4().hex[:8]}"
    with (
        started(settings, log) as (process, client),
        redis.Redis.from_url(settings.redis.url.get_secret_value()) as ledger,
    ):
        assert client.put(f"/v1/organizations/{org}", json={"name": org}).status_code == 201
        process.send_signal(signal.SIGSTOP)
        for n in range(50):
            ledger.xadd(keys.events_key(keys.shard_of(org, 32)), {"e": f"t r{n} {org} 0 api_calls:1"})
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGCONT)
        assert process.wait(10) == 0
    assert postgres.execute(dsn, f"SELECT count(*) FROM usage_event WHERE org = '{org}'") == "50"
    logged = log.read_text()
    assert '"message": "request"' in logged
    assert ADMIN_TOKEN not in logged
    assert JWT_SECRET not in logged


@pytest.mark.parametrize("fault", ["another installation", "no redis", "no postgres", "no database", "no schema"])
def test_a_start_that_cannot_work_ends_with_one_plain_line(
    settings: Settings, postgres_server: str, fault: str
) -> None:
    env, expected = environment(settings), ""
    match fault:
        case "another installation":
            expected = "redis.shards is 32, but this Redis was installed with 16"
            with redis.Redis.from_url(settings.redis.url.get_secret_value()) as ledger:
                ledger.set(keys.LAYOUT, 16)
        case "no redis":
            env["QUOTAGATE_REDIS_URL"], expected = f"redis://127.0.0.1:{free_port()}/0", "Redis does not answer"
        case "no postgres":
            env["QUOTAGATE_POSTGRES_DSN"], expected = f"postgresql://x@127.0.0.1:{free_port()}/x", "Postgres: "
        case "no database":
            env["QUOTAGATE_POSTGRES_DSN"], expected = f"{postgres_server}_gone", "Postgres: database "
        case "no schema":
            env["QUOTAGATE_POSTGRES_DSN"], expected = (
                postgres_server,
                "Postgres: the database has no schema of this release",
            )
    done = subprocess.run(command(0), env=env, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert line.startswith(f"quotagate control: {expected}"), line


def test_a_taken_port_is_told_in_one_line_before_the_stores_are_opened(settings: Settings) -> None:
    env = {**environment(settings), "QUOTAGATE_POSTGRES_DSN": f"postgresql://x@127.0.0.1:{free_port()}/x"}
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        argv = [sys.executable, "-m", "quotagate", "control", "--port", str(port)]
        done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == f"cannot listen on 127.0.0.1:{port}: Address already in use"
    assert "Postgres" not in done.stderr


def test_it_tells_where_it_listens_and_goes_on_after_a_sighup_which_it_tells(
    settings: Settings, tmp_path: Path
) -> None:
    log = tmp_path / "control.log"

    def entries() -> list[dict[str, object]]:
        return [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]

    with started(settings, log) as (process, client):
        port = client.base_url.port
        assert [each["address"] for each in entries() if each["message"] == "listening"] == [f"127.0.0.1:{port}"]
        process.send_signal(signal.SIGHUP)
        deadline = time.monotonic() + 30
        while not any(str(each["message"]).startswith("SIGHUP: ") for each in entries()):
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        assert process.poll() is None
        assert client.get("/-/ready").status_code == 200


def test_settings_that_are_wrong_name_file_line_and_field(settings: Settings, tmp_path: Path) -> None:
    file = tmp_path / "control.yaml"
    file.write_text(
        'postgres:\n  dsn: "mysql://x"\nredis:\n  url: "redis://x"\n  shards: 0\nadmin_token: short\nextra: 1\n'
    )
    done = subprocess.run(
        command(0, file), env=environment(settings), capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode != 0
    for named in ("2: postgres.dsn: ", "5: redis.shards: ", "6: admin_token: ", "7: extra: unknown field"):
        assert f"{file}:{named}" in done.stderr
    assert "mysql" not in done.stderr
