"""What an API key may be used for: by route, meter and method, and from where. Pure.

Of one kind of scope any fits, of several kinds each must; a key without scopes may send every request. A request that
charges several meters needs all of them.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable
from functools import lru_cache
from typing import Final

from common.addresses import plain_address, plain_network

REMEMBERED_MAX: Final = 4096  # lists of scopes and networks that were read, some 500 bytes each
_ROUTE, _METER, _METHOD = "route", "meter", "method"


class Restrictions:
    """Of one key, or of several that have the same."""

    __slots__ = ("_meters", "_methods", "_networks", "_routes")

    def __init__(self, scopes: Iterable[str], networks: Iterable[str]) -> None:
        named = defaultdict[str, set[str]](set)
        for scope in scopes:
            kind, _, name = scope.partition(":")
            named[kind].add(name)
        self._routes, self._meters, self._methods = named[_ROUTE], named[_METER], named[_METHOD]
        if "GET" in self._methods:
            self._methods.add("HEAD")  # as a route's methods do
        self._networks = tuple(map(plain_network, networks))

    def allow(self, route: str, meters: Collection[str], method: str) -> bool:
        """Whether such a request is within the scopes."""
        if self._routes and route not in self._routes:
            return False
        if self._meters and not self._meters.issuperset(meters):
            return False
        return not self._methods or method in self._methods

    def lacking(self, route: str, meters: Collection[str], method: str) -> str:
        """The scopes that such a request needs and the key has not, separated by blanks."""
        scopes = [f"{_ROUTE}:{route}"] if self._routes and route not in self._routes else []
        if self._meters:
            scopes += [f"{_METER}:{meter}" for meter in meters if meter not in self._meters]
        if self._methods and method not in self._methods:
            scopes.append(f"{_METHOD}:{method}")
        return " ".join(scopes)

    def hold(self, address: bytes) -> bool:
        """Whether the key may be used from there. From what is no address, only a key without networks."""
        if not self._networks:
            return True
        try:
            parsed = plain_address(address.decode("latin-1"))
        except ValueError:
            return False
        return any(parsed in network for network in self._networks)


@lru_cache(REMEMBERED_MAX)
def restrictions_of(scopes: tuple[str, ...], networks: tuple[str, ...]) -> Restrictions:
    return Restrictions(scopes, networks)
