"""The route that a request would fall under, found as a gateway finds it. Pure. A test compares the two."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from common.request_target import ENCODED_SLASH, Target, TargetRefused, canonical
from quota.routes import Route, Routes

LOCAL_PREFIX: Final = "/-/"  # the gateway's own end points, never routed
_PARAMETERS: Final = re.compile(r";[^/]*")
_SLASHES: Final = re.compile(r"//+")


@dataclass(frozen=True, slots=True)
class Unrouted:
    """No route holds the request."""

    allow: tuple[str, ...] = ()
    """Methods that some route allows on the path."""


@dataclass(frozen=True, slots=True)
class Unreadable:
    """The path or the host has more than one reading."""

    reason: str
    """As the gateway tells it to the client."""


class Found(NamedTuple):
    route: Route | Unrouted | Unreadable | None = None
    """None: no route was asked for, or none has the name."""
    path: str | None = None
    """In the one spelling that is matched and sent; None: it has none, or the route was named."""


def find(routes: Routes, method: str, host: str | None, path: str) -> Found:
    """As `gateway/routing/destinations.py` does; `path` is spelt as a client may spell it, without query."""
    try:
        target = canonical(path.encode(), None if host is None else host.encode(), method.encode())
        found = _match(routes, method, target.authority.decode(), target.path.decode())
        spelt = _spelt(routes, method, target, found)
    except TargetRefused as e:
        return Found(Unreadable(e.reason))
    return Found(found, spelt)


def _spelt(routes: Routes, method: str, target: Target, found: Route | Unrouted) -> str:
    """The path in the spelling that the route keeps. Raises TargetRefused."""
    route = found if isinstance(found, Route) else None
    path = target.path.decode()
    if target.encoded_slash and (route is None or not route.encoded_slash):
        raise TargetRefused(ENCODED_SLASH)
    if target.unmerged is None or route is None or route.merge_slashes:
        return path
    if not target.unmerged:
        raise TargetRefused("the path holds dot segments beside empty ones")
    unmerged = target.unmerged.decode()
    if _match(routes, method, target.authority.decode(), unmerged) is not route:
        raise TargetRefused("the path falls under another route where its slashes are merged")
    if route.bared is not None and unmerged.removeprefix(route.bared).startswith("//"):
        raise TargetRefused("the path begins with two slashes, which some read as a host")
    return unmerged


def _match(routes: Routes, method: str, authority: str, path: str) -> Route | Unrouted:
    if path.startswith(LOCAL_PREFIX):
        return Unrouted()
    wanted = _name(authority)
    anywhere = [route for route in routes.routes if route.host is None]
    special = [route for route in routes.routes if route.host is not None and route.host == wanted]
    places = (special, anywhere)
    route = _first(places, method, path)
    if (";" in path or "%2F" in path) and any(route is not _first(places, method, each) for each in _others(path)):
        return Unrouted()
    if route is not None:
        return route
    return Unrouted(tuple(sorted({each for place in places for each in _allowed(place, path)})))


def _others(path: str) -> Iterator[str]:
    """Other readings of it: by upstreams that decode `%2F`, and by those that strip parameters."""
    decoded = path.replace("%2F", "/")
    for reading in (decoded, _PARAMETERS.sub("", path), _PARAMETERS.sub("", decoded)):
        yield _SLASHES.sub("/", reading)


def _first(places: Iterable[Sequence[Route]], method: str, path: str) -> Route | None:
    return next((route for place in places if (route := _longest(place, method, path)) is not None), None)


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
