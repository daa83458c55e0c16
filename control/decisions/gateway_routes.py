"""The routes of gateways, as these tell them."""

from typing import Any

import structlog
from redis.asyncio import Redis
from redis.asyncio.cluster import RedisCluster
from redis.exceptions import RedisError

from quota import keys
from quota.ledger import LedgerUnavailable
from quota.routes import KEPT_SECONDS, Route, Routes, RoutesMalformed, Told, decode, seen_at

log = structlog.get_logger()


async def read_told(redis: Redis | RedisCluster, now: float) -> list[Told]:
    """What running gateways tell; those whose workers started last come first. Where none runs, what was told last.

    Raises LedgerUnavailable."""
    values = await _values(redis)
    told = [each for digest, value in values.items() if (each := _read(digest, value)) is not None]
    current = sorted((each for each in told if each.is_current(now)), key=lambda each: each.started_s, reverse=True)
    return current or sorted(told, key=lambda each: each.seen_s)[-1:]


async def forget_old(redis: Redis | RedisCluster, now: float) -> int:
    """Takes out what no gateway tells any more; how many. Raises LedgerUnavailable."""
    old = [digest for digest, value in (await _values(redis)).items() if _is_old(value, now)]
    if old:
        untyped: Any = redis
        try:
            await untyped.hdel(keys.ROUTES, *old)
        except RedisError as e:
            raise LedgerUnavailable(f"taking out routes: {e}") from e
    return len(old)


async def _values(redis: Redis | RedisCluster) -> dict[bytes, bytes]:
    untyped: Any = redis
    try:
        values: dict[bytes, bytes] = await untyped.hgetall(keys.ROUTES)
    except RedisError as e:
        raise LedgerUnavailable(f"reading routes: {e}") from e
    return values


def _read(digest: bytes, value: bytes) -> Told | None:
    try:
        return decode(digest, value)
    except RoutesMalformed as e:
        log.warning("a gateway tells what are no routes", digest=repr(digest), reason=str(e))
        return None


def _is_old(value: bytes, now: float) -> bool:
    try:
        return now - seen_at(value) > KEPT_SECONDS
    except RoutesMalformed:
        return True


def named(routes: Routes, name: str) -> Route | None:
    return next((route for route in routes.routes if route.name == name), None)
