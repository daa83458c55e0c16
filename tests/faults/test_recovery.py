"""Redis forgets under load: flushed, killed, or put back to an older state. No unit is given away twice or lost."""

import asyncio
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from uuid import uuid4

import asyncpg  # type: ignore[import-untyped]
import httpx
import pytest
from redis.asyncio import Redis

from control.settings import Settings
from devstack import tokens
from devstack.ports import free_port
from quota import keys
from quota.keys import SHARDS_DEFAULT
from tests.control.plane import ADMIN_TOKEN, JWT_SECRET
from tests.control.test_process import started
from tests.gateway.store import Store

DEADLINE_SECONDS = 30
CLIENTS = 8
REFUSED_IN_A_ROW = 3  # then a client has seen its end


@dataclass(frozen=True)
class Stack:
    store: Store
    dsn: str
    control: httpx.Client
    gateway: str

    def entitle(self, allowance: int) -> str:
        org = f"org-{uuid4().hex[:12]}"
        assert self.control.put(f"/v1/organizations/{org}", json={"name": org}).status_code == 201
        content = {"plan": "bulk", "meters": {"api_calls": allowance}, "policy": "HARD_STOP"}
        answer = self.control.put(f"/v1/entitlements/{org}", json=content)
        assert answer.status_code == 200, answer.text
        return org


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, postgres_dsn: str, sample_upstream: str) -> Iterator[Stack]:
    directory = tmp_path_factory.mktemp("recovery")
    store = Store(directory / "valkey")
    store.directory.mkdir()
    store.start()
    settings = Settings.model_validate(
        {"postgres": {"dsn": postgres_dsn}, "redis": {"url": store.url}, "admin_token": ADMIN_TOKEN}
    )
    apply = [sys.executable, "-m", "quotagate", "plans", "apply", "--dsn", postgres_dsn]
    subprocess.run(apply, check=True, stdout=subprocess.DEVNULL)
    config, port = directory / "gateway.yaml", free_port()
    config.write_text(
        f'redis: {{url: "{store.url}"}}\n'
        f'auth: {{algorithms: [HS256], secret: "{JWT_SECRET}", issuer: {tokens.ISSUER}, audience: {tokens.AUDIENCE}}}\n'
        f'upstreams: {{sample: {{url: "{sample_upstream}"}}}}\n'
        "routes: [{path: /, upstream: sample}]\n"
    )
    command = [sys.executable, "-m", "quotagate", "gateway", "--config", str(config), "--port", str(port)]
    with (directory / "gateway.log").open("wb") as log:
        gateway = subprocess.Popen([*command, "--workers", "2"], stdout=log, stderr=log)
    try:
        with started(settings, directory / "control.log") as (_, control):
            url = f"http://127.0.0.1:{port}"
            deadline = time.monotonic() + DEADLINE_SECONDS
            while not ready(url):
                assert time.monotonic() < deadline, (directory / "gateway.log").read_text()
                time.sleep(0.05)
            yield Stack(store, postgres_dsn, control, url)
    finally:
        gateway.terminate()
        gateway.wait(DEADLINE_SECONDS)
        store.end()


def ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/-/ready").status_code == 200
    except httpx.TransportError:
        return False


@pytest.fixture
async def redis(stack: Stack) -> AsyncIterator[Redis]:
    async with Redis.from_url(stack.store.url) as client:
        yield client


class Load:
    """Clients that ask until they are refused for good."""

    def __init__(self, stack: Stack, org: str) -> None:
        self.answers: Counter[int] = Counter()
        token = tokens.mint(org, JWT_SECRET, now=time.time(), ttl=timedelta(hours=1))
        limits = httpx.Limits(max_connections=CLIENTS)
        self._client = httpx.AsyncClient(
            base_url=stack.gateway, headers={"authorization": f"Bearer {token}"}, limits=limits, timeout=10
        )

    async def run(self, at: int, fault: Callable[[], Awaitable[object]]) -> None:
        """`fault` strikes when so many requests were admitted."""
        async with self._client:
            clients = asyncio.gather(*(self._ask() for _ in range(CLIENTS)))
            await self.admitted(at)
            await fault()
            await asyncio.wait_for(clients, DEADLINE_SECONDS)

    async def admitted(self, count: int) -> None:
        while self.answers[200] < count:  # noqa: ASYNC110 - the clients count
            await asyncio.sleep(0.005)

    async def _ask(self) -> None:
        in_a_row = 0
        while in_a_row < REFUSED_IN_A_ROW:
            status = (await self._client.get("/status/200")).status_code
            self.answers[status] += 1
            in_a_row = in_a_row + 1 if status == 429 else 0
            await asyncio.sleep(0.05 if status == 503 else 0.001)


async def written(stack: Stack, org: str, units: int) -> int:
    """Units in Postgres, once the writer is there."""
    connection = await asyncpg.connect(stack.dsn)
    try:
        deadline = time.monotonic() + DEADLINE_SECONDS
        while True:
            found = await connection.fetchval("SELECT coalesce(sum(units), 0) FROM usage_event WHERE org = $1", org)
            if found == units or time.monotonic() > deadline:
                break
            await asyncio.sleep(0.1)
        counted = await connection.fetchval("SELECT sum(used) FROM usage_counter WHERE org = $1", org)
    finally:
        await connection.close()
    assert counted == found
    return int(found)


async def used(redis: Redis, org: str) -> int:
    fields = await redis.hgetall(keys.org_key(org, SHARDS_DEFAULT))  # type: ignore[misc]
    return sum(int(value) for field, value in fields.items() if field.startswith(b"used:"))


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
        await asyncio.sleep(0.2)
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
