"""The promise: `POST /v1/usage` charges nothing by counters that went back, however soon after a restart it comes."""

import asyncio
import shutil
import signal
from collections.abc import AsyncIterator, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from common import redis_connections
from control.http.context import Context
from control.ledger.vouched import vouch
from control.settings.control_plane import Settings
from quota import keys
from quota.keys import SHARDS_DEFAULT
from tests.control.plane import Entitled
from tests.control.reporting import Post, record
from tests.control.usage import used
from tests.gateway.store import Store, running_store
from tests.replies import as_bytes


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """A Redis of the test's own, that may be killed."""
    with running_store(tmp_path / "valkey") as store:
        yield store


@pytest.fixture
def settings(settings: Settings, store: Store) -> Settings:
    return Settings.model_validate(settings.model_dump() | {"redis": {"url": store.url}})


@pytest.fixture
async def redis(store: Store) -> AsyncIterator[Redis]:
    async with Redis.from_url(store.url) as client:
        yield client


async def test_usage_in_the_moment_between_a_rollback_and_its_recognition_is_held_back_and_gives_nothing_away(
    context: Context, store: Store, entitled: Entitled, post: Post
) -> None:
    org, old = await entitled("tiny"), store.directory.with_name("older")
    assert (await post(org, record(units=40))).status_code == 200
    shutil.copytree(store.directory, old)
    assert (await post(org, record(units=50))).status_code == 200
    await context.writer.resume()
    await context.writer.write()
    store.send(signal.SIGKILL)
    shutil.rmtree(store.directory)
    shutil.move(old, store.directory)
    store.start()
    assert await used(context, org) == 40, "the counter went back, and recovery has not looked yet"

    for _ in range(3):
        held_back = await post(org, record(units=60))
        assert (held_back.status_code, held_back.headers["retry-after"]) == (503, "1")
        assert held_back.json()["type"] == "urn:quotagate:problem:ledger-unavailable"
    await context.recovery.round()
    assert (await post(org, record(units=60))).status_code == 429
    assert (await post(org, record(units=10))).status_code == 200
    assert await used(context, org) == 100


async def test_usage_is_held_back_while_redis_is_being_put_together_and_where_one_shard_is_not_vouched_for(
    context: Context, redis: Redis, entitled: Entitled, post: Post
) -> None:
    org = await entitled("tiny")
    assert (await post(org, record(units=1))).status_code == 200
    vouched = as_bytes(await redis.get(keys.generation_key(7)))
    for generation in (b"-0123", b"another-server:0123"):
        await redis.set(keys.generation_key(7), generation)
        await redis.client_kill_filter(_type="normal", skipme=True)
        assert (await post(org, record(units=1))).status_code == 503
        await redis.set(keys.generation_key(7), vouched)
        assert (await post(org, record(units=1))).status_code == 200
    assert await used(context, org) == 3


async def test_usage_is_held_back_on_a_connection_whose_server_is_not_vouched_for_any_more(
    context: Context, redis: Redis, entitled: Entitled, post: Post
) -> None:
    """A primary that was a replica meanwhile ends no connection."""
    org = await entitled("tiny")
    assert (await post(org, record(units=1))).status_code == 200
    generation = keys.generation_key(keys.shard_of(org, SHARDS_DEFAULT))
    vouched = as_bytes(await redis.get(generation))
    connections = await received(redis)
    assert (await post(org, record(units=1))).status_code == 200
    assert await received(redis) == connections, "a connection is used again"
    await redis.set(generation, b"another-server:1:0123")
    assert (await post(org, record(units=1))).status_code == 503
    await redis.set(generation, vouched)
    assert (await post(org, record(units=1))).status_code == 200
    assert await used(context, org) == 3


async def received(redis: Redis) -> int:
    return int((await redis.info("stats"))["total_connections_received"])


async def test_a_redis_that_does_not_tell_its_run_id_is_charged_all_the_same(
    context: Context, redis: Redis, entitled: Entitled, post: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    org = await entitled("tiny")
    await redis.execute_command("ACL", "SETUSER", "default", "-info")
    assert (await post(org, record(units=1))).status_code == 200


async def test_a_connection_whose_check_was_cancelled_is_checked_before_it_is_used(store: Store) -> None:
    asked = list[str]()

    async def believed(server: str, held: Mapping[int, str | None]) -> Collection[int]:
        asked.append(server)
        if len(asked) == 1:
            await asyncio.sleep(60)
        return held.keys()

    made: Any = redis_connections.client(store.url, max_connections=1)
    async with made as client:
        vouch(client, 32, believed)
        cut_short = asyncio.create_task(client.ping())
        async with asyncio.timeout(60):
            while not asked:  # noqa: ASYNC110 - it is called by a client that rings no bell
                await asyncio.sleep(0.01)
        cut_short.cancel()
        await asyncio.gather(cut_short, return_exceptions=True)
        await client.ping()
    assert len(asked) == 2
