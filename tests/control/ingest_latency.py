"""How long `POST /v1/usage` takes on a running stack: `python -m tests.control.ingest_latency [data dir] [posts]`.

Single records over 8 kept-alive connections, then batches of 1,000 one after the other, for the organization `bulk`.
"""

import asyncio
import json
import sys
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from statistics import quantiles
from typing import Any, Self
from urllib.parse import urlsplit
from uuid import uuid4

import uvloop

CONNECTIONS = 8
BATCHES = 20
RECORDS = 1000


def records(count: int) -> list[dict[str, object]]:
    return [{"meter": "api_calls", "units": 1, "idempotency_key": uuid4().hex} for _ in range(count)]


class Client:
    """One kept-alive connection, without more than it needs: a client library takes as long as the answer does."""

    def __init__(self, url: str, token: str) -> None:
        self._address = urlsplit(url)
        self._head = f"POST /v1/usage HTTP/1.1\r\nHost: {self._address.netloc}\r\nAuthorization: Bearer {token}\r\n"

    async def __aenter__(self) -> Self:
        self._reader, self._writer = await asyncio.open_connection(self._address.hostname, self._address.port)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._writer.close()

    async def post(self, content: object) -> float:
        """Milliseconds until the answer was there."""
        body = json.dumps(content).encode()
        head = f"{self._head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        started = time.perf_counter()
        self._writer.write(head.encode() + body)
        answer = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        length = int(answer.partition(b"content-length:")[2].partition(b"\r\n")[0])
        answer_body = await self._reader.readexactly(length)
        elapsed_ms = (time.perf_counter() - started) * 1000
        assert answer.startswith(b"http/1.1 200"), answer_body
        assert not isinstance(content, list) or json.loads(answer_body)["charged"] == len(content), answer_body
        return elapsed_ms


def line(name: str, took_ms: list[float]) -> str:
    cuts = quantiles(took_ms, n=100, method="inclusive")
    return f"{name}: p50 {cuts[49]:.1f} ms, p99 {cuts[98]:.1f} ms, longest {max(took_ms):.1f} ms"


async def measure(facts: dict[str, Any], posts: int) -> None:
    [token] = [entry["token"] for entry in facts["orgs"] if entry["org"] == "bulk"]
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(Client(str(facts["control"]), token)) for _ in range(CONNECTIONS)]
        for some in (clients[:1], clients):
            await single(some, posts)
        batches_ms = [await clients[0].post(records(RECORDS)) for _ in range(BATCHES)]
        print(line(f"{BATCHES} batches of {RECORDS}", batches_ms))  # noqa: T201 - a measurement prints


async def single(clients: Sequence[Client], posts: int) -> None:
    took_ms: list[float] = []

    async def one_after_the_other(client: Client) -> None:
        took_ms.extend([await client.post(content) for content in records(posts // len(clients))])

    started = time.perf_counter()
    await asyncio.gather(*map(one_after_the_other, clients))
    rate = len(took_ms) / (time.perf_counter() - started)
    print(f"{line(f'{len(took_ms)} single posts, {len(clients)} at once', took_ms)}; {rate:.0f} posts/s")  # noqa: T201 - a measurement prints


def main() -> None:
    directory = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(".quotagate")
    posts = int(sys.argv[2]) if len(sys.argv) > 2 else 4000
    facts = json.loads((directory / "ready.json").read_text())
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(measure(facts, posts))


if __name__ == "__main__":
    main()
