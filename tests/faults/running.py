"""Control plane and gateway as processes, on a Redis that a test may do everything to, and clients that ask."""

import asyncio
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Protocol
from uuid import uuid4

import asyncpg
import httpx
from redis.asyncio import Redis

from control.settings.control_plane import Settings
from devstack import demo, token_mint
from devstack.ports import free_port
from quota import keys
from quota.keys import SHARDS_DEFAULT
from tests.control.plane import ADMIN_TOKEN, JWT_SECRET
from tests.control.running import started
from tests.gateway.store import Store
from tests.replies import as_bytes

DEADLINE_SECONDS = 120.0 * min(8.0, max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1)))
"""A machine that has other work, too, needs longer for the same."""
CLIENTS = 8
REFUSED_IN_A_ROW = 3  # then a client has seen its end


class Served(Protocol):
    """A gateway, and where what it charges is written."""

    @property
    def dsn(self) -> str: ...
    @property
    def gateway(self) -> str:
        """Its address."""


@dataclass(frozen=True)
class Planes:
    """Both, wherever their Redis is."""

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

    async def admitted_now(self, org: str) -> int:
        """What one client is given until it is refused."""
        return await admitted_now(self, org)


async def admitted_now(served: Served, org: str) -> int:
    """What one client is given until it is refused."""
    load = Load(served, org, clients=1)
    await load.run(0, lambda: asyncio.sleep(0))
    return load.answers[200]


@dataclass(frozen=True)
class Stack(Planes):
    store: Store


@contextmanager
def running(directory: Path, store: Store, redis_url: str, dsn: str, upstream: str) -> Iterator[Stack]:
    """`redis_url`: where both planes look for `store`."""
    with planes(directory, redis_url, dsn, upstream) as both:
        yield Stack(both.dsn, both.control, both.gateway, store)


@contextmanager
def planes(directory: Path, redis_url: str, dsn: str, upstream: str) -> Iterator[Planes]:
    apply_plans(dsn)
    config = gateway_config(directory, redis_url, upstream)
    with (
        started(control_settings(redis_url, dsn), directory / "control.log") as (_, control),
        gateway(config, directory / "gateway.log") as url,
    ):
        yield Planes(dsn, control, url)


def control_settings(redis_url: str, dsn: str) -> Settings:
    return Settings.model_validate({"postgres": {"dsn": dsn}, "redis": {"url": redis_url}, "admin_token": ADMIN_TOKEN})


def apply_plans(dsn: str) -> None:
    apply = [sys.executable, "-m", "quotagate", "plans", "apply", "--dsn", dsn, "--plans", str(demo.PLANS)]
    subprocess.run(apply, check=True, stdout=subprocess.DEVNULL)


def gateway_config(directory: Path, redis_url: str, upstream: str) -> Path:
    config = directory / "gateway.yaml"
    config.write_text(
        # With the times of production, a slow machine would be a slow Redis.
        f'redis: {{url: "{redis_url}", timeout_ms: 60000, budget_ms: 60000}}\n'
        f'auth: {{algorithms: [HS256], secret: "{JWT_SECRET}", issuer: {token_mint.ISSUER}, '
        f"audience: {token_mint.AUDIENCE}}}\n"
        f'upstreams: {{sample: {{url: "{upstream}"}}}}\n'
        "routes: [{path: /, upstream: sample}]\n"
    )
    return config


@contextmanager
def gateway(config: Path, log: Path) -> Iterator[str]:
    """Its address, once it is ready."""
    port = free_port()
    command = [sys.executable, "-m", "quotagate", "gateway", "--config", str(config), "--port", str(port)]
    with log.open("wb") as output:
        process = subprocess.Popen([*command, "--workers", "2"], stdout=output, stderr=output)
    try:
        url, deadline = f"http://127.0.0.1:{port}", time.monotonic() + DEADLINE_SECONDS
        while not ready(url):
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        yield url
    finally:
        process.terminate()
        process.wait(DEADLINE_SECONDS)


def ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/-/ready").status_code == 200
    except httpx.TransportError:
        return False


class Load:
    """Clients that ask until they are refused for good."""

    def __init__(self, stack: Served, org: str, clients: int = CLIENTS) -> None:
        self._clients = clients
        self.answers: Counter[int] = Counter()
        token = token_mint.mint(org, JWT_SECRET, now=time.time(), ttl=timedelta(hours=1))
        limits = httpx.Limits(max_connections=CLIENTS)
        self._client = httpx.AsyncClient(
            base_url=stack.gateway,
            headers={"authorization": f"Bearer {token}"},
            limits=limits,
            timeout=DEADLINE_SECONDS,
        )

    async def run(self, at: int, fault: Callable[[], Awaitable[object]]) -> None:
        """`fault` strikes when so many requests were admitted."""
        async with self._client:
            clients = asyncio.gather(*(self._ask() for _ in range(self._clients)))
            await self.admitted(at)
            async with asyncio.timeout(DEADLINE_SECONDS):
                await fault()
            await asyncio.wait_for(clients, DEADLINE_SECONDS)

    async def admitted(self, count: int) -> None:
        while self.answers[200] < count:  # noqa: ASYNC110 - the clients count
            await asyncio.sleep(0.005)

    async def refused_for_now(self) -> None:
        """A client was answered 503: it has seen that Redis is away."""
        while not self.answers[503]:  # noqa: ASYNC110 - the clients count
            await asyncio.sleep(0.005)

    async def _ask(self) -> None:
        in_a_row = 0
        while in_a_row < REFUSED_IN_A_ROW:
            status = (await self._client.get("/status/200")).status_code
            self.answers[status] += 1
            in_a_row = in_a_row + 1 if status == 429 else 0
            await asyncio.sleep(0.05 if status == 503 else 0.001)


async def written(stack: Served, org: str, units: int) -> int:
    """Units in Postgres, once the writer is there."""
    connection = await asyncpg.connect(stack.dsn)
    try:
        deadline = time.monotonic() + DEADLINE_SECONDS
        while True:
            events = await connection.fetchval("SELECT coalesce(sum(units), 0) FROM usage_event WHERE org = $1", org)
            if events == units or time.monotonic() > deadline:
                break
            await asyncio.sleep(0.1)
        counted = await connection.fetchval("SELECT sum(used) FROM usage_counter WHERE org = $1", org)
    finally:
        await connection.close()
    assert counted == events
    return int(events)


async def used(redis: Redis, org: str) -> int:
    fields = await redis.hgetall(keys.org_key(org, SHARDS_DEFAULT))
    return sum(int(value) for field, value in fields.items() if as_bytes(field).startswith(b"used:"))
