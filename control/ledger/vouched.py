"""Connections to Redis for charging. A connection is used only if this Redis is vouched for.

A restart, a failover or a rollback ends every connection, and leaves generations of another server than the one that
answers, or of an epoch that is over (docs/decisions/0011). So it is enough to check the generations when a connection
is made, as the gateway does. Then a charge costs nothing more, and no charge uses counters that went back unnoticed.

In a Cluster a shard may come to a server to which a connection is there already: handed over, or with a replica that
took over. Each connection knows for which slots it was checked, and is made anew before it charges another one.
"""

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any, Final, cast

import structlog
from hiredis import pack_command
from redis.exceptions import AskError, MovedError, RedisError, ResponseError, TryAgainError

from common.redis_cluster.client import ClusterClient, key_of
from common.redis_cluster.topology import slot_of
from common.redis_connections import ask, enter
from control.db import StoreUnavailable
from quota import keys

log = structlog.get_logger()

_RUN_ID = re.compile(r"run_id:([0-9a-f]+)")
_SCRIPTS: Final = ("EVAL", "EVALSHA")


class NotVouchedFor(RedisError):
    """Redis may have lost charges, and what is missing is being put back."""


class _HiredisPacking:
    """Packs commands in C: redis-py's own packing takes a third of the time to charge a thousand records."""

    def pack_command(self, *args: Any) -> list[bytes]:
        return [pack_command(args)]


class _OfSlots:
    """Before a connection class of redis-py, to a server of a Cluster."""

    vouched: frozenset[int] | None = None
    """The slots whose generations were checked when it was connected; None: the server does not tell who it is."""

    async def send_command(self, *args: Any, **options: Any) -> None:
        connection, key = cast("Any", super()), key_of(args) if args[0] in _SCRIPTS else None
        if key is not None and not self._is_for(slot_of(key)):
            await connection.disconnect()
            await connection.connect()
            if not self._is_for(slot_of(key)):  # it was led here by a topology of before, or a moment too early
                raise TryAgainError("TRYAGAIN the shard is not vouched for where it is looked for")
        await connection.send_command(*args, **options)

    def pack_commands(self, commands: Iterable[Iterable[Any]]) -> Any:
        words = [tuple(each) for each in commands]
        if words and words[0] == ("ASKING",):
            raise NotVouchedFor("the shard is being moved key by key, and nobody vouches for it where it goes")
        return cast("Any", super()).pack_commands(words)

    def _is_for(self, slot: int) -> bool:
        return self.vouched is None or slot in self.vouched


Believed = Callable[[str, Mapping[int, str | None]], Awaitable[bool]]
"""Whether a server (its run id) that holds these generations, by shard, may be charged."""


def vouch(redis: Any, shards: int, is_believed: Believed) -> None:
    """Makes a client's connections check the generations of the server's shards before they are used."""
    if isinstance(redis, ClusterClient):
        redis.prepare(lambda client: _vouch_at(client.connection_pool, shards, is_believed, of_cluster=True))
    else:
        _vouch_at(redis.connection_pool, shards, is_believed, of_cluster=False)


def _vouch_at(pool: Any, shards: int, is_believed: Believed, *, of_cluster: bool) -> None:
    async def connected(connection: Any) -> None:
        connection.vouched = frozenset()
        await enter(connection, of_cluster=of_cluster)
        try:
            about = await ask(connection, "INFO", "server")
        except ResponseError as e:
            connection.vouched = None
            log.warning("redis does not tell its run id, so a restart that loses charges is not noticed", reason=str(e))
            return
        server = _RUN_ID.findall(_text(about))[0]
        held = await (_of_slots if of_cluster else _of_all)(connection, shards)
        try:
            believed = await is_believed(server, held)
        except StoreUnavailable as e:
            raise NotVouchedFor(f"nobody can tell whether this Redis is the one that was vouched for: {e}") from e
        if not believed:
            raise NotVouchedFor("Redis is another server than the one that was vouched for last")
        if of_cluster:
            connection.vouched = frozenset(slot_of(keys.generation_key(shard)) for shard in held)

    classes = (_OfSlots, _HiredisPacking) if of_cluster else (_HiredisPacking,)
    pool.connection_kwargs["redis_connect_func"] = connected
    pool.connection_class = type("PackedConnection", (*classes, pool.connection_class), {})


async def _of_all(connection: Any, shards: int) -> dict[int, str | None]:
    answer = await ask(connection, "MGET", *map(keys.generation_key, range(shards)))
    return dict(enumerate(None if held is None else _text(held) for held in answer))


async def _of_slots(connection: Any, shards: int) -> dict[int, str | None]:
    """Of the shards that this server of a Cluster holds."""
    found: dict[int, str | None] = {}
    for shard in range(shards):
        with suppress(MovedError, AskError, TryAgainError):
            held = await ask(connection, "GET", keys.generation_key(shard))
            found[shard] = None if held is None else _text(held)
    connection.reset_should_reconnect()  # that another server has a shard is no reason to leave this one
    return found


def _text(value: Any) -> str:
    return value.decode("ascii", "replace") if isinstance(value, bytes) else str(value)
