"""redis-py's connections are closed in one step: whoever takes one meanwhile finds it open, or closed.

redis-py waits for the other side's end of TLS, and then has the connection forget its socket. By then it may have a new
one, which somebody uses.
"""

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, cast

from redis.asyncio import ConnectionPool
from redis.exceptions import ConnectionError as RedisConnectionError


class ClosedInOneStep:
    """Before a connection class of redis-py."""

    async def disconnect(self, nowait: bool = False, **options: Any) -> None:
        """Without `nowait` it waits until the socket is closed, but not for one whose other side says nothing for as
        long as a connection may take."""
        connection = cast("Any", self)
        writer = connection._writer
        await cast("Any", super()).disconnect(nowait=True, **options)
        if writer is not None and not nowait:
            with suppress(OSError, TimeoutError):
                async with asyncio.timeout(connection.socket_connect_timeout):
                    await writer.wait_closed()

    async def _send_packed_command(self, command: Iterable[bytes]) -> None:
        if cast("Any", self)._writer is None:
            raise RedisConnectionError("the connection was closed when a command came")
        await cast("Any", super())._send_packed_command(command)


async def close_idle(pool: ConnectionPool) -> None:
    """Closes the connections that nobody uses, and waits for no server."""
    idle: list[Any] = cast("Any", pool)._available_connections
    for connection in list(idle):
        await connection.disconnect(nowait=True)


async def close_all(pool: ConnectionPool) -> None:
    """Closes all connections, also those in use, and waits for no server."""
    used: set[Any] = cast("Any", pool)._in_use_connections
    await close_idle(pool)
    for connection in list(used):
        await connection.disconnect(nowait=True)
