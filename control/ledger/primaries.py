"""Whether more than one primary answers at the address of Redis, as where a load balancer leads to each in turns."""

from typing import Any, Final

from redis.exceptions import ReadOnlyError, RedisError

from common import redis_connections
from quota.ledger import LedgerUnavailable

DIALS: Final = 4
TIMEOUT_SECONDS: Final = 2.0


async def several(url: str) -> str | None:
    """Which primaries answer, and that there must be one; None: one does, or Redis does not tell. Raises
    LedgerUnavailable."""
    found = dict[str, str]()
    for _ in range(DIALS):
        try:
            about = await _dialed(url)
        except ReadOnlyError:  # a replica, which nobody takes for a primary
            continue
        except RedisError as e:
            raise LedgerUnavailable(f"info: {e}") from e
        if (run_id := about.get("run_id")) is not None:
            found[run_id] = f"{run_id} (port {about.get('tcp_port')})"
    if len(found) < 2:
        return None
    which = ", ".join(sorted(found.values()))
    return f"{len(found)} primaries answer at the address of Redis in turns: {which}. Let the address lead to one"


async def _dialed(url: str) -> Any:
    """What a server says of itself on a connection of its own."""
    options: dict[str, Any] = {"socket_timeout": TIMEOUT_SECONDS, "socket_connect_timeout": TIMEOUT_SECONDS}
    async with redis_connections.client(url, **options) as client:
        return await client.info("server")
