"""Connections to Redis for charging. A connection is used only if this Redis is vouched for.

A restart, a failover or a rollback ends every connection, and leaves generations of another server than the one that
answers, or of an epoch that is over (docs/decisions/0011). So it is enough to check the generations when a connection
is made, as the gateway does. Then a charge costs nothing more, and no charge uses counters that went back unnoticed.
"""

import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import structlog
from hiredis import pack_command
from redis.asyncio import BlockingConnectionPool
from redis.exceptions import RedisError, ResponseError

from common.redis_connections import ask, enter
from control.db import StoreUnavailable
from quota import keys

log = structlog.get_logger()

_RUN_ID = re.compile(r"run_id:([0-9a-f]+)")


class NotVouchedFor(RedisError):
    """Redis may have lost charges, and what is missing is being put back."""


class _HiredisPacking:
    """Packs commands in C: redis-py's own packing takes a third of the time to charge a thousand records."""

    def pack_command(self, *args: Any) -> list[bytes]:
        return [pack_command(args)]


Believed = Callable[[str, Sequence[str | None]], Awaitable[bool]]
"""Whether a server (its run id) that holds these generations may be charged."""


def vouch(pool: BlockingConnectionPool, shards: int, is_believed: Believed) -> None:
    """Makes the pool's connections check the generations of all shards before they are used."""

    async def connected(connection: Any) -> None:
        await enter(connection)
        try:
            about = await ask(connection, "INFO", "server")
        except ResponseError as e:
            log.warning("redis does not tell its run id, so a restart that loses charges is not noticed", reason=str(e))
            return
        server = _RUN_ID.findall(_text(about))[0]
        answer = await ask(connection, "MGET", *map(keys.generation_key, range(shards)))
        try:
            believed = await is_believed(server, [None if held is None else _text(held) for held in answer])
        except StoreUnavailable as e:
            raise NotVouchedFor(f"nobody can tell whether this Redis is the one that was vouched for: {e}") from e
        if not believed:
            raise NotVouchedFor("Redis is another server than the one that was vouched for last")

    pool.connection_kwargs["redis_connect_func"] = connected
    pool.connection_class = type("PackedConnection", (_HiredisPacking, pool.connection_class), {})


def _text(value: Any) -> str:
    return value.decode("ascii", "replace") if isinstance(value, bytes) else str(value)
