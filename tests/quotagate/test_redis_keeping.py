"""A start refuses a Redis that would lose what is charged, unless the settings say that it may."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from redis import Redis
from redis.asyncio import Redis as AsyncRedis

from common.redis_keeping import Losses, of_server
from common.redis_server import evicting, forgetting
from common.settings_file import load
from control.settings.control_plane import Settings
from devstack import valkey
from devstack.child import stopping
from devstack.ports import free_port
from gateway.settings.root import GatewaySettings
from tests.quotagate.outcomes import assert_plain, outcomes_of

STARTS = ("gateway --port 0", "control --port 0")
FULL = {"maxmemory": str(1 << 40), "maxmemory-policy": "volatile-lru"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One that keeps an append-only file."""
    directory, port = tmp_path_factory.mktemp("keeping"), free_port()
    with stopping(valkey.start(directory, port, log=directory / "valkey.log")) as child:
        valkey.wait_ready(child, port)
        yield valkey.url(port)


@pytest.fixture
def changed(server: str, request: pytest.FixtureRequest) -> Iterator[str]:
    """It has other settings for one test."""
    with Redis.from_url(server) as redis:
        before = {name: redis.config_get(name)[name] for name in request.param}
        for name, value in request.param.items():
            redis.config_set(name, value)
        yield server
        for name, value in before.items():
            redis.config_set(name, value)


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        (FULL, "Redis may remove counters when its memory is full (volatile-lru)"),
        ({"appendonly": "no"}, "Redis keeps nothing on its disk, so a restart forgets what was charged"),
    ],
    indirect=["changed"],
)
def test_neither_plane_starts_where_redis_may_lose_what_is_charged(
    changed: str, why: str, postgres_dsn: str, tmp_path: Path
) -> None:
    assert_plain(outcomes_of(STARTS, postgres_dsn, changed, tmp_path), why)


@pytest.mark.parametrize(
    ("changed", "persistence", "losses"),
    [
        ({"appendonly": "no"}, "none", []),
        ({"appendonly": "no", "save": "3600 1"}, "required", []),
        ({"maxmemory-policy": "allkeys-lru"}, "required", []),
        ({**FULL, "appendonly": "no"}, "required", ["eviction", "persistence"]),
        ({**FULL, "appendonly": "no"}, "none", ["eviction"]),
    ],
    indirect=["changed"],
)
async def test_what_a_server_may_lose_by_its_settings(changed: str, persistence: str, losses: list[str]) -> None:
    async with AsyncRedis.from_url(changed) as redis:
        found = await of_server(redis, "none" if persistence == "none" else "required")
    assert [name for name in ("eviction", "persistence") if getattr(found, name)] == losses


async def test_a_server_that_hides_its_settings_is_believed(server: str) -> None:
    async with AsyncRedis.from_url(server) as redis:
        await redis.execute_command("ACL", "SETUSER", "plain", "on", ">secret", "~*", "+@all", "-config")
        await redis.execute_command("ACL", "SETUSER", "closed", "on", ">secret", "~*", "+@all", "-config", "-info")
        await redis.config_set("appendonly", "no")
        try:
            for user in ("plain", "closed"):
                async with AsyncRedis.from_url(server.replace("://", f"://{user}:secret@")) as asked:
                    assert await of_server(asked, "required") == Losses()
        finally:
            await redis.config_set("appendonly", "yes")


@pytest.mark.parametrize(
    ("info", "save", "forgets"),
    [
        ({"aof_enabled": 1}, "", False),
        ({"aof_enabled": "0"}, "", True),
        ({"aof_enabled": 0}, "3600 1 300 100", False),
        ({"aof_enabled": 0}, None, False),
        ({}, "", False),
    ],
)
def test_a_server_forgets_only_what_it_says_that_it_keeps_nowhere(
    info: Mapping[str, object], save: str | None, forgets: bool
) -> None:
    assert (forgetting(info, save) is not None) == forgets
    assert evicting(info) is None


def test_both_packaged_settings_require_that_redis_keeps_a_file() -> None:
    environ = {
        "QUOTAGATE_JWT_SECRET": "x" * 32,
        "QUOTAGATE_ADMIN_TOKEN": "x" * 32,
        "QUOTAGATE_POSTGRES_DSN": "postgresql://a",
    }
    assert load(None, "gateway.yaml", GatewaySettings, environ).redis.persistence == "required"
    assert load(None, "control.yaml", Settings, environ).redis.persistence == "required"
