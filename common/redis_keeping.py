"""Whether Redis keeps what is charged: when its memory is full, and over a restart (docs/decisions/0054)."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import structlog
from redis.exceptions import RedisError, ResponseError

from common.redis_cluster.client import ClusterClient
from common.redis_cluster.topology import Address, Topology
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


async def ask(redis: Any, persistence: Persistence, *, tell: bool = False) -> Mapping[str, Losses | None]:
    """Of each primary of a Cluster, by its address, and of one server by an empty one; None: it does not answer. What a
    server does not tell is taken for good. `tell`: the log has why one of a Cluster does not answer. Raises
    LedgerUnavailable where none answers, UnsupportedServer."""
    if not isinstance(redis, ClusterClient):
        return {"": await of_server(redis, persistence)}
    found: dict[str, Losses | None] = {}
    for address in (await _of(redis)).primaries:
        found[str(address)] = await _of_one(redis, address, persistence, tell=tell)
    if not any(found.values()):
        raise LedgerUnavailable("info: no server of the Redis Cluster answers")
    return found


async def _of(cluster: ClusterClient) -> Topology:
    """Raises LedgerUnavailable, UnsupportedServer."""
    try:
        return await cluster.ask_topology()
    except UnsupportedServer:
        raise
    except RedisError as e:
        raise LedgerUnavailable(f"info: {e}") from e


async def _of_one(cluster: ClusterClient, address: Address, persistence: Persistence, *, tell: bool) -> Losses | None:
    try:
        return await of_server(cluster.at(address), persistence)
    except LedgerUnavailable as e:
        if tell:
            log.warning("a server of the Redis Cluster does not answer", server=str(address), reason=str(e))
        return None


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
    """Raises UnsupportedServer where it may lose what is charged, or a Cluster does not cover all slots;
    LedgerUnavailable."""
    if isinstance(redis, ClusterClient):
        (await _of(redis)).require_all_slots()
    for address, losses in (await ask(redis, persistence, tell=True)).items():
        for reason in losses or ():
            raise UnsupportedServer(f"{address}: {reason}" if address else reason)
