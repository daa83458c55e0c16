"""How soon a change at Stripe is enforced.

    python -m bench.webhooks [--rate 50] [--seconds 20] [--quick]

It runs `quotagate up` on a directory of its own and signs customers up at the Stripe double. Then the double pauses or
resumes `--rate` of their subscriptions a second, and announces each change by a signed webhook. The time of a change
ends when Redis holds what follows from it: the gateways decide by that.
"""

import argparse
import asyncio
import tempfile
import time
from pathlib import Path
from statistics import quantiles
from typing import Any

import httpx
from redis.asyncio import BlockingConnectionPool, Redis

from bench import report
from bench.installation import stack
from bench.report import Bars, Goal, goals_table
from quota import keys
from quota.keys import SHARDS_DEFAULT
from quota.ledger import Ledger
from quota.model import Status

CUSTOMERS = 100
P95_SECONDS, MAX_SECONDS = 1.0, 5.0
GIVEN_UP_SECONDS = 30.0
PAUSED = {"pause_collection[behavior]": "void"}
RESUMED = {"pause_collection": ""}


async def signed_up(facts: dict[str, Any], count: int) -> dict[str, str]:
    """Organization -> its subscription."""
    admin = {"authorization": f"Bearer {facts['admin_token']}"}
    key = {"authorization": f"Bearer {facts['stripe_key']}"}
    subscriptions: dict[str, str] = {}
    free = asyncio.Semaphore(8)
    async with httpx.AsyncClient(timeout=30) as client:

        async def sign_up(number: int) -> None:
            org = f"customer-{number}"
            async with free:
                body = {"org": org, "plan": "starter", "success_url": "https://vendor.example/"}
                made = await client.post(f"{facts['control']}/v1/checkout-sessions", json=body, headers=admin)
                session = made.raise_for_status().json()
                await client.post(session["url"], data={"action": "pay"})
                path = f"{facts['stripe']}/v1/checkout/sessions/{session['id']}"
                subscriptions[org] = (await client.get(path, headers=key)).raise_for_status().json()["subscription"]

        await asyncio.gather(*map(sign_up, range(count)))
    return subscriptions


async def run(facts: dict[str, Any], rate: float, seconds: float) -> list[float]:
    """Seconds until each change was enforced."""
    subscriptions = await signed_up(facts, CUSTOMERS)
    latencies: list[float] = []
    key = {"authorization": f"Bearer {facts['stripe_key']}"}
    pool = BlockingConnectionPool.from_url(facts["redis"], max_connections=16)
    async with Redis.from_pool(pool) as redis, httpx.AsyncClient(timeout=30, headers=key) as client:
        ledger = Ledger(redis, SHARDS_DEFAULT)

        announced: dict[str, asyncio.Event] = {org: asyncio.Event() for org in subscriptions}

        async def listen() -> None:
            async with redis.pubsub() as pubsub:
                await pubsub.subscribe(keys.CHANGED)
                async for message in pubsub.listen():
                    if message["type"] == "message" and (event := announced.get(message["data"].decode())):
                        event.set()

        async def enforced(org: str, status: Status) -> None:
            async with asyncio.timeout(GIVEN_UP_SECONDS):
                while True:
                    announced[org].clear()
                    balance = await ledger.peek(org)
                    if balance is not None and balance.status is status:
                        return
                    await announced[org].wait()

        async def changed(org: str, params: dict[str, str], status: Status) -> None:
            started = time.perf_counter()
            path = f"{facts['stripe']}/v1/subscriptions/{subscriptions[org]}"
            (await client.post(path, data=params)).raise_for_status()
            await enforced(org, status)
            latencies.append(time.perf_counter() - started)

        listening = asyncio.create_task(listen())
        await asyncio.gather(*(enforced(org, Status.ACTIVE) for org in subscriptions))
        tasks: dict[str, asyncio.Task[None]] = {}
        began, orgs = time.perf_counter(), list(subscriptions)
        for number in range(int(rate * seconds)):
            await asyncio.sleep(max(0.0, began + number / rate - time.perf_counter()))
            org, turn = orgs[number % len(orgs)], number // len(orgs) % 2
            if org in tasks:
                await tasks[org]
            what = (RESUMED, Status.ACTIVE) if turn else (PAUSED, Status.SUSPENDED)
            tasks[org] = asyncio.create_task(changed(org, *what))
        await asyncio.gather(*tasks.values())
        took = time.perf_counter() - began
        listening.cancel()
    print(f"{len(latencies):,} changes in {took:.1f} s: {len(latencies) / took:.1f} a second")
    return latencies


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.webhooks", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rate", type=float, default=50, help="changes a second")
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--quick", action="store_true", help="5 seconds, and no report")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="quotagate-bench-") as directory, stack(Path(directory) / "data") as facts:
        latencies = asyncio.run(run(facts, options.rate, 5 if options.quick else options.seconds))
    cuts = quantiles(latencies, n=100, method="inclusive")
    at = f"at {options.rate:g} events/s"
    goals = [
        Goal(f"from Stripe's change to its enforcement {at}, p95", cuts[94], P95_SECONDS, "s"),
        Goal(f"the longest of {len(latencies):,}", max(latencies), MAX_SECONDS, "s"),
    ]
    print(goals_table(goals))
    print(f"p50 {cuts[49]:.3f} s")
    if not options.quick:
        bars = Bars("seconds", {"p50": cuts[49], "p95": cuts[94], "longest": max(latencies)})
        raw = {"options": {"rate": options.rate, "seconds": options.seconds}, "seconds": sorted(latencies)}
        folder = report.write(
            "webhooks", "From a change at Stripe to its enforcement", [], [bars], goals, raw, report.machine()
        )
        print(f"Written to {folder.relative_to(report.ROOT)}/webhooks.json, .md and .svg")
    if not all(goal.met for goal in goals):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
