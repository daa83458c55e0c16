"""What every test may ask for: a real Valkey, a real PostgreSQL with the schema in it, and a sample upstream."""

import functools
import gc
import shutil
import signal
import ssl
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import certifi
import pytest
import redis
import stripe
from hypothesis import HealthCheck, settings

from devstack import postgres, sample_process
from devstack import valkey as valkey_wheel
from tests.authority import Authority

TESTS = Path(__file__).parent

# A shell's background job ignores Ctrl-C, and so would each process that a test starts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A busy machine is no fault of the code: examples have no deadline, and making them may take long.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")


def _share_authorities() -> None:
    """What a client of HTTP believes is read for each client, and takes 50 ms: those of a process share it."""
    bundles, make = {certifi.where(), stripe.ca_bundle_path}, ssl.create_default_context
    read = functools.cache(lambda cafile: make(cafile=cafile))

    def shared(purpose: ssl.Purpose = ssl.Purpose.SERVER_AUTH, **given: Any) -> ssl.SSLContext:
        if list(given) == ["cafile"] and given["cafile"] in bundles:
            return read(given["cafile"])
        return make(purpose, **given)

    ssl.create_default_context = shared


_share_authorities()

LONGEST = (
    "e2e/test_demo_history.py",
    "observability/",
    "production/",
    "browser/",
    "gateway/test_reload.py",
    "gateway/test_processes.py",
    "gateway/test_drain.py",
    "bench/",
    "deploy/",
    "control/test_process.py",
    "control/test_recovery_document.py",
    "control/billing/",
    "devstack/",
    "quotagate/",
)
"""Beginnings of files that go first: what begins late and takes long would leave one worker without work."""


def pytest_collection_finish() -> None:
    """What is loaded stays: the collector of garbage need not walk it again and again."""
    gc.collect()
    gc.freeze()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: not item.path.relative_to(TESTS).as_posix().startswith(LONGEST))


@pytest.fixture(scope="session")
def stack_directory() -> Iterator[Path]:
    # Not tmp_path: pytest makes it for its own user alone, and under root PostgreSQL runs as another.
    directory = Path(tempfile.mkdtemp(prefix="quotagate-tests-"))
    directory.chmod(0o711)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture(scope="session", name="valkey")
def valkey_url(stack_directory: Path) -> Iterator[str]:
    """One Valkey for the session. Most tests want `redis_url`, which is empty at the start of each."""
    with valkey_wheel.running(stack_directory / "valkey") as url:
        yield url


@pytest.fixture
def redis_url(valkey: str) -> str:
    with redis.Redis.from_url(valkey) as client:
        client.flushall()
        client.script_flush()
    return valkey


@pytest.fixture(scope="session")
def postgres_server(stack_directory: Path) -> Iterator[str]:
    with postgres.running(stack_directory) as dsn:
        yield dsn


@pytest.fixture(scope="session")
def postgres_template(postgres_server: str) -> str:
    """The name of a database with every migration applied: copying it takes a twentieth of migrating another."""
    from control import schema

    postgres.execute(postgres_server, "CREATE DATABASE migrated")
    schema.migrate(_database(postgres_server, "migrated"))
    return "migrated"


@pytest.fixture(scope="module")
def postgres_dsn(postgres_server: str, postgres_template: str) -> Iterator[str]:
    """A fresh database with the schema, for the tests of one module; as the superuser, who owns all of it."""
    name = f"test_{uuid4().hex[:12]}"
    postgres.execute(postgres_server, f"CREATE DATABASE {name} TEMPLATE {postgres_template}")
    yield _database(postgres_server, name)
    postgres.execute(postgres_server, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def empty_database(postgres_server: str) -> Iterator[str]:
    """A database without the schema."""
    name = f"empty_{uuid4().hex[:12]}"
    postgres.execute(postgres_server, f"CREATE DATABASE {name}")
    yield _database(postgres_server, name)
    postgres.execute(postgres_server, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="session")
def application_login(postgres_server: str, postgres_template: str) -> str:
    """The login role of control planes, made as docs/audit.md says."""
    from control.roles import APPLICATION_ROLE

    postgres.execute(postgres_server, f"CREATE ROLE control_plane LOGIN IN ROLE {APPLICATION_ROLE}")
    return "control_plane"


@pytest.fixture
def application_dsn(postgres_dsn: str, application_login: str) -> str:
    """The database of `postgres_dsn`, as the control plane has it."""
    return f"postgresql://{application_login}@{postgres_dsn.partition('@')[2]}"


@pytest.fixture(scope="session")
def sample_upstream(stack_directory: Path) -> Iterator[str]:
    with sample_process.running(stack_directory) as url:
        yield url


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Whom a test believes."""
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Whom it does not."""
    return Authority(tmp_path_factory.mktemp("stranger"))


def _database(dsn: str, name: str) -> str:
    return f"{dsn.rpartition('/')[0]}/{name}"
