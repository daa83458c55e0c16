"""Both stores are lost and restored while a gateway lives: it admits what the backup allows, and serves nothing of what
it remembers from after the backup."""

import asyncio
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from redis.asyncio import Redis

from devstack import token_mint
from tests.control.plane import JWT_SECRET
from tests.control.running import environment, started
from tests.faults.running import (
    DEADLINE_SECONDS,
    Stack,
    apply_plans,
    control_settings,
    gateway,
    gateway_config,
    used,
    written,
)
from tests.gateway.store import Store, running_store

ADMITTED = (200, "")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with running_store(tmp_path / "valkey") as store:
        yield store


class Caller:
    """Of one gateway."""

    def __init__(self, url: str) -> None:
        self._client = httpx.AsyncClient(base_url=url, timeout=DEADLINE_SECONDS)

    async def close(self) -> None:
        await self._client.aclose()

    async def ask(self, org: str, key: str | None = None) -> tuple[int, str]:
        """The status, and of a problem its type."""
        token = key or token_mint.mint(org, JWT_SECRET, now=time.time(), ttl=timedelta(hours=1))
        answer = await self._client.get("/status/200", headers={"authorization": f"Bearer {token}"})
        return answer.status_code, "" if answer.status_code == 200 else answer.json()["type"].rpartition(":")[2]

    async def decided(self, org: str, key: str | None = None) -> tuple[int, str]:
        """The same, when the gateway can decide again."""
        async with asyncio.timeout(DEADLINE_SECONDS):
            while (answer := await self.ask(org, key))[0] == 503:  # noqa: ASYNC110 - recovery rings no bell
                await asyncio.sleep(0.05)
        return answer

    async def admitted(self, org: str) -> int:
        """What is given until it is refused."""
        count = 0
        while (await self.decided(org))[0] == 200:
            count += 1
        return count


async def quotagate(dsn: str, store: Store, *words: str) -> None:
    env = environment(control_settings(store.url, dsn))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "quotagate", *words),
        env=env,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await asyncio.wait_for(process.communicate(), DEADLINE_SECONDS)
    assert process.returncode == 0, output.decode()


def done(answer: httpx.Response) -> Any:
    assert answer.is_success, answer.text
    return answer.json()


@dataclass
class Remembered:
    """What the gateway has admitted after the backup, and the backup does not know."""

    small: str
    """It has 5 units in the backup, 3 of which are used, and many afterwards."""
    key: str
    """Of that one, made after the backup."""
    paused: str
    """Suspended in the backup, and not afterwards."""
    later: str
    """Made after the backup."""

    @property
    def callers(self) -> list[tuple[str, str | None]]:
        return [(self.small, None), (self.small, self.key), (self.paused, None), (self.later, None)]


async def backed_up(stack: Stack, caller: Caller, backup: Path) -> Remembered:
    small, paused = stack.entitle(5), stack.entitle(50)
    control = stack.control
    done(control.post(f"/v1/entitlements/{paused}/suspend", json={"reason": "before the backup"}))
    assert [await caller.decided(small) for _ in range(3)] == [ADMITTED] * 3
    assert await written(stack, small, 3) == 3
    await quotagate(stack.dsn, stack.store, "backup", str(backup))
    content = {"plan": "bulk", "meters": {"api_calls": 100}, "policy": "HARD_STOP"}
    done(control.put(f"/v1/entitlements/{small}", json=content))
    done(control.post(f"/v1/entitlements/{paused}/resume", json={"reason": "after the backup"}))
    key = done(control.post(f"/v1/organizations/{small}/keys", json={"name": "later"}))["key"]
    return Remembered(small, key, paused, later=stack.entitle(50))


async def test_a_gateway_lives_through_a_restore_and_admits_what_the_backup_allows_and_nothing_it_remembers(
    store: Store, postgres_dsn: str, empty_database: str, sample_upstream: str, tmp_path: Path
) -> None:
    apply_plans(postgres_dsn)
    config, backup = gateway_config(tmp_path, store.url, sample_upstream), tmp_path / "backup"
    with ExitStack() as living:
        with started(control_settings(store.url, postgres_dsn), tmp_path / "control.log") as (_, control):
            url = living.enter_context(gateway(config, tmp_path / "gateway.log"))
            caller = Caller(url)
            known = await backed_up(Stack(postgres_dsn, control, url, store), caller, backup)
            async with Redis.from_url(store.url) as redis:
                await redis.flushall()  # so that the gateway has seen an epoch that the backup does not know
            assert [await caller.decided(*each) for each in known.callers] == [ADMITTED] * 4
        store.end()
        shutil.rmtree(store.directory)
        store.directory.mkdir()
        store.start()
        answers = await asyncio.gather(*(caller.ask(*each) for each in known.callers))
        assert {status for status, _ in answers} == {503}, "nobody says who may"
        await quotagate(empty_database, store, "restore", str(backup), "--dsn", empty_database)
        with started(control_settings(store.url, empty_database), tmp_path / "restored.log") as (_, control):
            assert await caller.decided(known.later) == (402, "no-entitlement")
            assert await caller.decided(known.paused) == (402, "no-entitlement")
            assert await caller.decided(known.small, known.key) == (401, "token-refused")
            admitted = await caller.admitted(known.small)
            assert admitted <= 2
            async with Redis.from_url(store.url) as redis:
                charged = await used(redis, known.small)
            assert charged == 5, "3 of the backup, what the gateway still told of after it, and what was admitted now"
            assert await written(Stack(empty_database, control, url, store), known.small, charged) == charged
        await caller.close()
