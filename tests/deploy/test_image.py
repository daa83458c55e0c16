"""The Dockerfile: its steps are run, and what they make runs as an engine would run it."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import httpx
import pytest
import yaml

from control.roles import APPLICATION_ROLE
from devstack import postgres
from devstack.ports import free_port
from tests.deploy import engine
from tests.deploy.engine import Container, Image

pytestmark = pytest.mark.skipif(engine.missing() is not None, reason=f"{engine.missing()}")
START_SECONDS, STOP_SECONDS = 120.0, 60.0
ADMIN_TOKEN = "an-admin-token-of-a-test"
JWT_SECRET = "a-secret-of-at-least-32-bytes-for-tests"
SETTINGS = "/etc/quotagate"
COMPOSE = engine.ROOT / "deploy/compose"


@pytest.fixture(scope="module")
def image() -> Iterator[Image]:
    # An overlay refuses a layer that lies below another one, and one of them is all of this machine's disk.
    directory = Path(tempfile.mkdtemp(prefix="quotagate-image-", dir="/dev/shm"))
    try:
        yield engine.build(directory)
    finally:
        shutil.rmtree(directory)


@dataclass(frozen=True)
class Deployed:
    gateway: Container
    control: Container
    gateway_url: str
    control_url: str
    environment: dict[str, str]
    volumes: dict[Path, str]
    image: Image


@pytest.fixture(scope="module")
def deployed(
    image: Image, stack_directory: Path, valkey: str, postgres_server: str, sample_upstream: str
) -> Iterator[Deployed]:
    settings, kept = stack_directory / "settings", stack_directory / "kept"
    kept.mkdir()
    shutil.copytree(COMPOSE, settings)
    ports = {"gateway": free_port(), "control": free_port()}
    for role, port in ports.items():
        written = yaml.safe_load((COMPOSE / f"{role}.yaml").read_text()) | {"listen": {"port": port}}
        if role == "gateway":
            written |= {"management": {"port": 0}, "upstreams": {"api": {"url": sample_upstream}}}
            written["routes"][0]["degraded"] = "allow"  # so that the journal is opened
        (settings / f"{role}.yaml").write_text(json.dumps(written))
    postgres.execute(postgres_server, "CREATE DATABASE of_the_image")
    owner = f"{postgres_server.rpartition('/')[0]}/of_the_image"
    environment = {
        "QUOTAGATE_REDIS_URL": valkey,
        "QUOTAGATE_POSTGRES_DSN": f"postgresql://of_the_image@{owner.partition('@')[2]}",
        "QUOTAGATE_ADMIN_TOKEN": ADMIN_TOKEN,
        "QUOTAGATE_JWT_SECRET": JWT_SECRET,
    }
    volumes = {settings: SETTINGS, kept: "/var/lib/quotagate"}
    migrated = engine.run(
        image, [*image.entrypoint, "migrate"], {"QUOTAGATE_POSTGRES_OWNER_DSN": owner}, {settings: SETTINGS}
    )
    assert migrated.returncode == 0, migrated.stderr
    postgres.execute(postgres_server, f"CREATE ROLE of_the_image LOGIN IN ROLE {APPLICATION_ROLE}")
    user, group = map(int, image.user.split(":"))
    kept.chmod(0o750)
    os.chown(kept, user, group)
    with ExitStack() as stack:
        containers = {}
        for role in ("control", "gateway"):
            words = [role, "--config", f"{SETTINGS}/{role}.yaml"]
            log = stack_directory / "logs" / f"image-{role}.log"
            container = stack.enter_context(engine.running(image, role, words, environment, volumes, log))
            container.child.wait_until(partial(_ready, f"http://127.0.0.1:{ports[role]}"), START_SECONDS)
            containers[role] = container
        urls = {role: f"http://127.0.0.1:{port}" for role, port in ports.items()}
        yield Deployed(
            containers["gateway"], containers["control"], urls["gateway"], urls["control"], environment, volumes, image
        )


def _ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/-/ready", timeout=5).status_code == 200
    except httpx.TransportError:
        return False


def test_both_roles_run_from_one_image_unprivileged_and_on_a_read_only_root_file_system(deployed: Deployed) -> None:
    for container in (deployed.gateway, deployed.control):
        process = container.process
        status = Path(f"/proc/{process.pid}/status").read_text()
        assert f"Uid:\t{os.getuid()}" not in status
        assert process.uids().real == int(deployed.image.user.partition(":")[0])
        assert "CapEff:\t0000000000000000" in status
        assert "CapBnd:\t0000000000000000" in status
        assert "NoNewPrivs:\t1" in status
        mounts = Path(f"/proc/{process.pid}/mounts").read_text().splitlines()
        root = next(line.split() for line in mounts if line.split()[1] == "/")
        assert "ro" in root[3].split(",")


def test_the_healthcheck_of_the_image_finds_whichever_role_runs(deployed: Deployed) -> None:
    for url in (deployed.gateway_url, deployed.control_url):
        words = [*deployed.image.healthcheck, "http://127.0.0.1:1", url]
        assert engine.run(deployed.image, words, {}, {}).stdout == f"{url} runs\n"
    away = engine.run(deployed.image, [*deployed.image.healthcheck, "http://127.0.0.1:1"], {}, {})
    assert away.returncode == 1
    assert "Connection refused" in away.stderr


def test_a_request_is_metered_and_the_signal_of_an_engine_ends_each_process_in_order(deployed: Deployed) -> None:
    environment = {**deployed.environment, "QUOTAGATE_CONTROL_URL": deployed.control_url}

    def quotagate(*words: str) -> str:
        done = engine.run(deployed.image, [*deployed.image.entrypoint, *words], environment, deployed.volumes)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    quotagate("plans", "apply", "--plans", f"{SETTINGS}/plans.yaml")
    quotagate("org", "create", "acme", "--name", "Acme", "--plan", "starter")
    token = quotagate("token", "mint", "acme", "--secret-env", "QUOTAGATE_JWT_SECRET")
    headers = {"authorization": f"Bearer {token}"}
    answer = httpx.get(f"{deployed.gateway_url}/get", headers=headers, timeout=60)
    assert answer.status_code == 200, answer.text
    assert answer.headers["ratelimit"].startswith('"api_calls";r=9999;')
    for container in (deployed.gateway, deployed.control):
        assert container.stop(STOP_SECONDS) == 0
        log = container.child.log.read_text()
        assert "Traceback" not in log
        assert "Read-only file system" not in log
