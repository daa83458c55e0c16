"""A gateway that may forward without Redis, its journal, and Redis as it goes and comes back."""

import os
import signal
from pathlib import Path
from typing import Any, Protocol

from redis.asyncio import Redis

from gateway.outage import journal_file
from gateway.outage.journal_file import JournalEntry
from tests.gateway.rig import (
    Gateway,
    Until,
)
from tests.gateway.store import Store

ROUTES = [
    {"path": "/", "upstream": "api", "degraded": "allow"},
    {"path": "/strict", "upstream": "api"},
]


class StartDegraded(Protocol):
    async def __call__(self, **terms: Any) -> Gateway: ...


def entries(directory: Path) -> list[JournalEntry]:
    """Those in the files, whoever writes them."""
    lines = [line for file in directory.glob("*.journal") for line in file.read_bytes().splitlines()]
    return [entry for entry in map(journal_file.parse, lines) if entry is not None]


def journaled(directory: Path) -> list[str]:
    return [entry.request_id for entry in entries(directory)]


def orphan(directory: Path, *lines: bytes) -> None:
    """The file of a worker that is dead."""
    directory.mkdir(exist_ok=True)
    (directory / f"1-{os.urandom(6).hex()}.journal").write_bytes(b"".join(lines))


def blocked(directory: Path) -> None:
    directory.rmdir()
    directory.write_text("in the way")


def cleared(directory: Path) -> None:
    directory.unlink()


def entry(request_id: str, org: str = "acme", **charges: int) -> bytes:
    return JournalEntry(request_id, org, 1, tuple(charges.items()) or (("api_calls", 1),)).line()


async def killed(gateway: Gateway, store: Store, until: Until) -> None:
    """Redis is gone, and the gateway knows."""
    store.send(signal.SIGKILL)
    await until(lambda: not gateway.worker.link.open)


async def back(store: Store, redis: Redis) -> None:
    store.end()
    store.start()
    await redis.connection_pool.disconnect()


async def emptied(until: Until, directory: Path) -> None:
    await until(lambda: not list(directory.iterdir()))
