"""Redis forgets under load: flushed, killed, or put back to an older state. No unit is given away twice or lost."""

import shutil
import signal
from collections.abc import AsyncIterator, Iterator

import pytest
from redis.asyncio import Redis

from tests.faults.running import Load, Stack, running, used, written
from tests.gateway.store import Store


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, postgres_dsn: str, sample_upstream: str) -> Iterator[Stack]:
    directory = tmp_path_factory.mktemp("recovery")
    store = Store(directory / "valkey")
    store.directory.mkdir()
    store.start()
    try:
        with running(directory, store, store.url, postgres_dsn, sample_upstream) as stack:
            yield stack
    finally:
        store.end()


@pytest.fixture
async def redis(stack: Stack) -> AsyncIterator[Redis]:
    async with Redis.from_url(stack.store.url) as client:
        yield client


async def test_a_redis_that_is_flushed_under_load_gives_no_unit_away_and_loses_none(stack: Stack, redis: Redis) -> None:
    org = stack.entitle(400)
    load = Load(stack, org)

    await load.run(150, redis.flushall)
    assert load.answers[200] == 400
    assert await used(redis, org) == 400
    assert await written(stack, org, 400) == 400


async def test_a_redis_that_is_killed_and_restarted_gives_away_nothing_that_its_last_second_lost(
    stack: Stack, redis: Redis
) -> None:
    org = stack.entitle(400)
    load = Load(stack, org)

    async def restart() -> None:
        stack.store.send(signal.SIGKILL)
        await load.refused_for_now()
        stack.store.start()

    await load.run(150, restart)
    assert load.answers[200] == 400
    assert await used(redis, org) == 400
    assert await written(stack, org, 400) == 400


async def test_a_failover_to_an_older_state_is_recognised_and_gives_nothing_away(stack: Stack, redis: Redis) -> None:
    org, old = stack.entitle(600), stack.store.directory.with_name("older")
    load = Load(stack, org)

    async def older_state() -> None:
        shutil.copytree(stack.store.directory, old)
        await load.admitted(350)
        stack.store.send(signal.SIGKILL)
        shutil.rmtree(stack.store.directory)
        shutil.move(old, stack.store.directory)
        stack.store.start()

    await load.run(100, older_state)
    assert load.answers[200] == 600
    assert await used(redis, org) == 600
    assert await written(stack, org, 600) == 600
