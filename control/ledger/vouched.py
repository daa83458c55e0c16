"""Connections to Redis for charging. A connection is used only if this Redis is vouched for.

A restart, a failover or a rollback leaves generations of another server than the one that answers, or of an epoch that
is over (docs/decisions/0011). The generations are checked when a connection is made, as the gateway does.

A connection may outlive that. A primary becomes a replica and a primary again; in a Cluster a shard comes to a server
to which a connection is there already, or leaves it and comes back. So each connection remembers the generations that
it has checked, and each script that charges compares its shard's in the same step. Where another one is there nothing
is charged, and the connection is made anew.
"""

import re
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from contextlib import suppress
from typing import Any, Final, cast

import structlog
from hiredis import pack_command
from redis.exceptions import AskError, MovedError, RedisError, ResponseError, TryAgainError
from redis.exceptions import ConnectionError as RedisConnectionError

from common.redis_cluster.client import ClusterClient
from common.redis_connections import ask, enter
from control.db import StoreUnavailable
from quota import keys, scripts
from quota.scripts import NOT_VOUCHED, Script

log = structlog.get_logger()

_RUN_ID = re.compile(r"run_id:([0-9a-f]+)")
_CHARGING: Final = ("take", "settle", "recall")
_BY_DIGEST: Final = {scripts.script(name).sha: scripts.vouched(name) for name in _CHARGING}
_BY_TEXT: Final = {scripts.script(name).source.decode(): scripts.vouched(name) for name in _CHARGING}
_BY_COMMAND: Final[Mapping[Any, Mapping[Any, Script]]] = {"EVALSHA": _BY_DIGEST, "EVAL": _BY_TEXT}


class NotVouchedFor(RedisError):
    """Redis may have lost charges, and what is missing is being put back."""


class _HiredisPacking:
    """Packs commands in C: redis-py's own packing takes a third of the time to charge a thousand records."""

    def pack_command(self, *args: Any) -> list[bytes]:
        return [pack_command(args)]


class _NoLongerVouchedFor(RedisConnectionError):
    """Nothing was charged. As for a connection that has ended, the client makes it anew and repeats the command."""


class _Vouched:
    """Before a connection class of redis-py."""

    vouched: Mapping[int, str] | None = None
    """By shard, the generation that was checked when it was connected, empty where there was none; None: the server
    does not tell who it is."""

    async def send_command(self, *args: Any, **options: Any) -> None:
        connection = cast("Any", super())
        if (vouched := _BY_COMMAND.get(args[0], {}).get(args[1] if len(args) > 1 else None)) is not None:
            args = await self._guarded(vouched, *args)
        await connection.send_command(*args, **options)

    async def _guarded(self, vouched: Script, name: str, script: str, key_count: int, *words: Any) -> tuple[Any, ...]:
        """The same call, which compares the generation of its shard."""
        connection, shard = cast("Any", self), keys.shard_in(words[0])
        if not connection.is_connected or not self._is_for(shard):
            await connection.disconnect(nowait=True)
            await connection.connect()
            if not self._is_for(shard):  # it was led here by a topology of before, or a moment too early
                raise TryAgainError("TRYAGAIN the shard is not vouched for where it is looked for")
        if self.vouched is None:
            return name, script, key_count, *words
        argv_at = int(key_count)
        return (
            name,
            vouched.sha if name == "EVALSHA" else vouched.source,
            argv_at + 1,
            *words[:argv_at],
            keys.generation_key(shard),
            *words[argv_at:],
            self.vouched[shard],
        )

    async def read_response(self, *args: Any, **options: Any) -> Any:
        try:
            return await cast("Any", super()).read_response(*args, **options)
        except ResponseError as e:
            if str(e).startswith(NOT_VOUCHED):
                raise _NoLongerVouchedFor(str(e)) from e
            raise

    def pack_commands(self, commands: Iterable[Iterable[Any]]) -> Any:
        words = [tuple(each) for each in commands]
        if words and words[0] == ("ASKING",):
            raise NotVouchedFor("the shard is being moved key by key, and nobody vouches for it where it goes")
        return cast("Any", super()).pack_commands(words)

    def _is_for(self, shard: int) -> bool:
        return self.vouched is None or shard in self.vouched


Believed = Callable[[str, Mapping[int, str | None]], Awaitable[Collection[int]]]
"""Of a server (its run id) that holds these generations, by shard: the shards that may be charged there."""


def vouch(redis: Any, shards: int, believed: Believed) -> None:
    """Makes a client's connections check the generations of the server's shards before they are used, and have each
    script that charges compare that of its shard."""
    if isinstance(redis, ClusterClient):
        redis.prepare(lambda client: _vouch_at(client.connection_pool, shards, believed, of_cluster=True))
    else:
        _vouch_at(redis.connection_pool, shards, believed, of_cluster=False)


def _vouch_at(pool: Any, shards: int, believed: Believed, *, of_cluster: bool) -> None:
    async def connected(connection: Any) -> None:
        connection.vouched = {}
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
            good = await believed(server, held)
        except StoreUnavailable as e:
            raise NotVouchedFor(f"nobody can tell whether this Redis is the one that was vouched for: {e}") from e
        # Of a Cluster's server, some shards may have come a moment ago; of one server, all are put together at once.
        if not good or (not of_cluster and len(good) < len(held)):
            raise NotVouchedFor("Redis is another server than the one that was vouched for last")
        connection.vouched = {shard: held[shard] or "" for shard in good}

    pool.connection_kwargs["redis_connect_func"] = connected
    pool.connection_class = type("PackedConnection", (_Vouched, _HiredisPacking, pool.connection_class), {})


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
