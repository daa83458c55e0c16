"""The routes of gateways, as these tell them, and the one that a request would fall under."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import structlog
from redis.asyncio import Redis
from redis.asyncio.cluster import RedisCluster
from redis.exceptions import RedisError

from quota import keys
from quota.ledger import LedgerUnavailable
from quota.routes import KEPT_SECONDS, Route, Routes, RoutesMalformed, Told, decode, seen_at

log = structlog.get_logger()

LOCAL_PREFIX: Final = "/-"  # the gateway's own end points, never routed


@dataclass(frozen=True, slots=True)
class Unrouted:
    """No route holds the request."""

    allow: tuple[str, ...] = ()
    """Methods that some route allows on the path."""


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


def find(routes: Routes, method: str, host: str | None, path: str) -> Route | Unrouted:
    """As gateway/routing/routes.py does; `path` is spelt canonically. A test compares the two."""
    wanted = "" if host is None else _name(host)
    anywhere = [route for route in routes.routes if route.host is None]
    special = [route for route in routes.routes if route.host is not None and route.host == wanted]
    if path != LOCAL_PREFIX and not path.startswith(f"{LOCAL_PREFIX}/"):
        for candidates in (special, anywhere):
            if (route := _longest(candidates, method, path)) is not None:
                return route
    methods = {each for candidates in (special, anywhere) for each in _allowed(candidates, path)}
    return Unrouted(tuple(sorted(methods)))


def _longest(routes: Iterable[Route], method: str, path: str) -> Route | None:
    """Of the same prefix, the last in the file."""
    found: tuple[int, Route] | None = None
    for route in routes:
        prefix = route.path.rstrip("/")
        holds = path == prefix or path.startswith(f"{prefix}/")
        if holds and _fits(route, method) and (found is None or len(prefix) >= found[0]):
            found = len(prefix), route
    return None if found is None else found[1]


def _fits(route: Route, method: str) -> bool:
    return route.methods is None or method in route.methods or (method == "HEAD" and "GET" in route.methods)


def _allowed(routes: Sequence[Route], path: str) -> set[str]:
    named_methods = {method for route in routes for method in route.methods or ()}
    every = named_methods | ({"HEAD"} if "GET" in named_methods else set())
    return {method for method in every if _longest(routes, method, path) is not None}


def _name(authority: str) -> str:
    """`Example.com:8080` as `example.com`, `[::1]:8080` as `[::1]`."""
    name, colon, port = authority.rpartition(":")
    return (name if colon and "]" not in port else authority).lower()
