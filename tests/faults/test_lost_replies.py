"""Redis hangs under load: what was sent to it and not answered is neither forwarded nor charged, and what is forwarded
without it is charged once it is back."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import jwt
import pytest
from redis.asyncio import Redis

from bench.load import fire
from devstack import sample_process, valkey
from devstack.ports import free_port
from quota.ledger import Ledger
from quota.model import Entitlement, MeterLimit, Status
from quota.periods import CALENDAR_ANCHOR, monthly_periods

SECRET = "a secret for tests of at least 32 bytes"
DEADLINE_SECONDS = 120
CALLS_AT_ONCE = 500


@pytest.fixture
def redis_of_its_own(tmp_path: Path) -> Iterator[str]:
    """A Valkey that a test may stop and continue."""
    with valkey.running(tmp_path / "valkey") as url:
        yield url


@pytest.fixture
async def ledger(redis_of_its_own: str) -> AsyncIterator[Ledger]:
    async with Redis.from_url(redis_of_its_own) as redis:
        ledger = Ledger(redis)
        await ledger.check_layout()
        yield ledger


@pytest.fixture(params=["deny", "allow"])
def gateway(
    request: pytest.FixtureRequest, tmp_path: Path, redis_of_its_own: str, sample_upstream: str
) -> Iterator[str]:
    config, port = tmp_path / "gateway.yaml", free_port()
    config.write_text(
        f'redis: {{url: "{redis_of_its_own}", timeout_ms: 100}}\n'
        f'auth: {{algorithms: [HS256], secret: "{SECRET}", issuer: test}}\n'
        f'upstreams: {{sample: {{url: "{sample_upstream}"}}}}\n'
        f"routes: [{{path: /, upstream: sample, degraded: {request.param}}}]\n"
        f'degraded: {{journal: "{tmp_path}/journal", budget: {{units_per_org: 200}}}}\n'
    )
    command = [sys.executable, "-m", "quotagate", "gateway", "--config", str(config), "--port", str(port)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + DEADLINE_SECONDS
    while True:
        try:
            if httpx.get(f"{url}/-/ready").status_code == 200:
                break
        except httpx.TransportError:
            pass
        assert time.monotonic() < deadline, "the gateway did not start"
        time.sleep(0.05)
    yield url
    process.terminate()
    process.wait(DEADLINE_SECONDS)


async def test_what_was_served_is_charged_to_the_unit_and_nothing_else(
    ledger: Ledger, gateway: str, sample_upstream: str
) -> None:
    meters = (MeterLimit("api_calls", 10**6),)
    periods = monthly_periods(CALENDAR_ANCHOR, time.time())
    await ledger.publish(Entitlement("hanging", 1, Status.ACTIVE, meters=meters, periods=periods))
    token = jwt.encode({"org_id": "hanging", "iss": "test", "exp": int(time.time()) + 600}, SECRET, "HS256")
    sample_process.forget_hits(sample_upstream)
    redis_pid = (await ledger.redis.info())["process_id"]

    over = asyncio.Event()
    statuses: Counter[int | str] = Counter()
    load = asyncio.create_task(_load(f"{gateway}/get", token, over, statuses))
    for _ in range(2):
        await _some_more_calls(ledger)
        os.kill(redis_pid, signal.SIGSTOP)
        await _some_more_refusals(statuses)
        os.kill(redis_pid, signal.SIGCONT)
    await _some_more_calls(ledger)
    over.set()
    await load

    assert set(statuses) == {200, 503}
    served = statuses[200]
    assert sample_process.hits(sample_upstream)["by_org"]["hanging"] == served
    await _used_becomes(ledger, served)


async def _load(url: str, token: str, over: asyncio.Event, statuses: Counter[int | str]) -> None:
    """Calls until it is over, however many are refused at once while Redis hangs; counts them by their status."""
    while not over.is_set():
        statuses.update(await fire(url, token, CALLS_AT_ONCE, 64))


async def _some_more_refusals(statuses: Counter[int | str]) -> None:
    """Until the load has felt the hang."""
    before = statuses[503]
    async with asyncio.timeout(DEADLINE_SECONDS):
        while statuses[503] == before:  # noqa: ASYNC110 - a counter rings no bell
            await asyncio.sleep(0.01)


async def _some_more_calls(ledger: Ledger) -> None:
    before = await _used(ledger)
    deadline = time.monotonic() + DEADLINE_SECONDS
    while await _used(ledger) < before + 500:
        assert time.monotonic() < deadline, "the load did not arrive"
        await asyncio.sleep(0.01)


async def _used(ledger: Ledger) -> int:
    standing = await ledger.peek("hanging")
    assert standing is not None
    return sum(usage.used for usage in standing.usage)


async def _used_becomes(ledger: Ledger, expected: int) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while (used := await _used(ledger)) != expected:
        assert time.monotonic() < deadline, f"{used} used, {expected} served"
        await asyncio.sleep(0.05)
