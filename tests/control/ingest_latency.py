"""How long `POST /v1/usage` takes on a running stack: `python -m tests.control.ingest_latency [data dir] [posts]`.

Single records over 8 kept-alive connections, then batches of 1,000 one after the other, for the organization `bulk`.
"""

import asyncio
import json
import sys
import time
from pathlib import Path
from statistics import quantiles
from uuid import uuid4

import httpx
import uvloop

CONNECTIONS = 8
BATCHES = 20
RECORDS = 1000


def records(count: int) -> list[dict[str, object]]:
    return [{"meter": "api_calls", "units": 1, "idempotency_key": uuid4().hex} for _ in range(count)]


async def posted(client: httpx.AsyncClient, content: object) -> float:
    """Milliseconds."""
    body, started = json.dumps(content).encode(), time.perf_counter()
    response = await client.post("/v1/usage", content=body)
    elapsed_ms = (time.perf_counter() - started) * 1000
    told = response.json()
    assert response.status_code == 200, told
    assert not isinstance(content, list) or told["charged"] == len(content), told["refused"]
    return elapsed_ms


def line(name: str, took_ms: list[float]) -> str:
    cuts = quantiles(took_ms, n=100, method="inclusive")
    return f"{name}: p50 {cuts[49]:.1f} ms, p99 {cuts[98]:.1f} ms, longest {max(took_ms):.1f} ms"


async def measure(facts: dict[str, object], posts: int) -> None:
    [token] = [entry["token"] for entry in facts["orgs"] if entry["org"] == "bulk"]  # type: ignore[attr-defined]
    headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
    async with httpx.AsyncClient(base_url=str(facts["control"]), headers=headers, timeout=10) as client:
        for connections in (1, CONNECTIONS):
            await single(client, posts, connections)
        batches_ms = [await posted(client, records(RECORDS)) for _ in range(BATCHES)]
        print(line(f"{BATCHES} batches of {RECORDS}", batches_ms))  # noqa: T201


async def single(client: httpx.AsyncClient, posts: int, connections: int) -> None:
    took_ms: list[float] = []

    async def one_after_the_other() -> None:
        took_ms.extend([await posted(client, content) for content in records(posts // connections)])

    started = time.perf_counter()
    await asyncio.gather(*(one_after_the_other() for _ in range(connections)))
    rate = len(took_ms) / (time.perf_counter() - started)
    print(f"{line(f'{len(took_ms)} single posts, {connections} at once', took_ms)}; {rate:.0f} posts/s")  # noqa: T201


def main() -> None:
    directory = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(".quotagate")
    posts = int(sys.argv[2]) if len(sys.argv) > 2 else 4000
    facts = json.loads((directory / "ready.json").read_text())
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(measure(facts, posts))


if __name__ == "__main__":
    main()
