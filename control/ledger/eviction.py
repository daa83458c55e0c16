"""Whether Redis throws data away when its memory is full: what it would throw away is what organizations have used."""

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from common.redis_server import evicting
from quota.ledger import LedgerUnavailable, UnsupportedServer

log = structlog.get_logger()


async def refuse_eviction(redis: Redis) -> None:
    """Raises UnsupportedServer where it does, LedgerUnavailable."""
    try:
        info = await redis.info("memory")
    except ResponseError as e:
        log.warning("redis does not tell whether it throws data away when its memory is full", reason=str(e))
        return
    except RedisError as e:
        raise LedgerUnavailable(f"info: {e}") from e
    reason = evicting(info)
    if reason is not None:
        raise UnsupportedServer(reason)
