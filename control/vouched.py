"""Connections to Redis for charging: none is used while nobody vouches for what Redis holds.

A restart, a failover or a rollback ends every connection, and leaves generations of another server than the one that
answers (docs/decisions/0011). So a look at them when a connection is made is enough, as the gateway has it: a charge
costs nothing more, and none is made by counters that went back before recovery has noticed.
"""

import re
from typing import Any

import structlog
from hiredis import pack_command
from redis.asyncio import BlockingConnectionPool
from redis.exceptions import RedisError, ResponseError

from quota import keys
from quota.redis_connections import ask, enter

log = structlog.get_logger()

_RUN_ID = re.compile(r"run_id:([0-9a-f]+)")


class NotVouchedFor(RedisError):
    """Redis may have lost charges, and what is missing is being put back."""


class _Packed:
    """In front of a connection class of redis-py, whose packing takes a third of charging a thousand records."""

    def pack_command(self, *args: Any) -> list[bytes]:
        return [pack_command(args)]


def vouch(pool: BlockingConnectionPool, shards: int) -> None:
    """Has the pool's connections look at the generations of all shards before they are used."""

    async def connected(connection: Any) -> None:
        await enter(connection)
        try:
            about = await ask(connection, "INFO", "server")
        except ResponseError as e:
            log.warning("redis does not tell its run id, so a restart that loses charges is not noticed", reason=str(e))
            return
        server = f"{_RUN_ID.findall(_text(about))[0]}:"
        generations = await ask(connection, "MGET", *map(keys.generation_key, range(shards)))
        if not all(held is None or _text(held).startswith(server) for held in generations):
            raise NotVouchedFor("Redis is another server than the one that was vouched for")

    pool.connection_kwargs["redis_connect_func"] = connected
    pool.connection_class = type("PackedConnection", (_Packed, pool.connection_class), {})


def _text(value: Any) -> str:
    return value.decode("ascii", "replace") if isinstance(value, bytes) else str(value)
