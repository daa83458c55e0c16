"""Whether Redis keeps what is charged: when its memory is full, and over a restart (docs/decisions/0054)."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import structlog
from redis.exceptions import RedisError, ResponseError

from common.redis_cluster.client import ClusterClient
from common.redis_server import evicting, forgetting
from quota.ledger import LedgerUnavailable, UnsupportedServer

log = structlog.get_logger()

Persistence = Literal["required", "none"]
"""Of the settings. none: a Redis that forgets all at a restart is wanted."""


@dataclass(frozen=True, slots=True)
class Losses:
    """By which of its settings a server may lose what is charged, as sentences for an operator; None: by none."""

    eviction: str | None = None
    persistence: str | None = None

    def __iter__(self) -> Iterator[str]:
        return filter(None, (self.eviction, self.persistence))


async def ask(redis: Any, persistence: Persistence) -> Losses:
    """What it does not tell is taken for good; of a Cluster's primaries the first that loses. Raises
    LedgerUnavailable."""
    if not isinstance(redis, ClusterClient):
        return await of_server(redis, persistence)
    eviction = of_persistence = None
    try:
        topology = await redis.ask_topology()
    except UnsupportedServer:
        raise
    except RedisError as e:
        raise LedgerUnavailable(f"info: {e}") from e
    for address in topology.primaries:
        losses = await of_server(redis.at(address), persistence)
        eviction = eviction or (losses.eviction and f"{address}: {losses.eviction}")
        of_persistence = of_persistence or (losses.persistence and f"{address}: {losses.persistence}")
    return Losses(eviction, of_persistence)


async def of_server(redis: Any, persistence: Persistence) -> Losses:
    """Of one, primary or replica. Raises LedgerUnavailable."""
    try:
        info = await redis.info("memory", "persistence")
        save = None if persistence == "none" else await save_points(redis)
    except ResponseError as e:
        log.warning("redis does not tell whether it keeps what is charged", reason=str(e))
        return Losses()
    except RedisError as e:
        raise LedgerUnavailable(f"info: {e}") from e
    return Losses(evicting(info), None if persistence == "none" else forgetting(info, save))


async def save_points(redis: Any) -> str | None:
    """When it takes snapshots; empty: never. None: its user may not read settings, as at most who host it. Raises
    RedisError."""
    try:
        return str((await redis.config_get("save")).get("save", ""))
    except ResponseError:
        return None


async def refuse_losses(redis: Any, persistence: Persistence) -> None:
    """Raises UnsupportedServer where it may lose what is charged, LedgerUnavailable."""
    for reason in await ask(redis, persistence):
        raise UnsupportedServer(reason)
