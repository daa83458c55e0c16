"""What must be known of a finished exchange to count it and to write its line."""

from collections.abc import Mapping
from typing import Protocol

from gateway.http.head import RequestHead
from gateway.observe.tally import Tally
from identity.claims import Claims


class FinishedRoute(Protocol):
    """The route that it fell under."""

    @property
    def name(self) -> str: ...
    @property
    def charges(self) -> Mapping[str, int]: ...
    @property
    def pricing(self) -> object | None: ...
    @property
    def tallies(self) -> dict[int, Tally]: ...


class FinishedPrice(Protocol):
    """What it was charged, where that is not the route's."""

    @property
    def charges(self) -> Mapping[str, int]: ...


class FinishedDestination(Protocol):
    """What its request line meant."""

    @property
    def method(self) -> bytes: ...
    @property
    def path(self) -> bytes: ...
    @property
    def logged(self) -> bytes: ...


class FinishedClient(Protocol):
    """The connection that it came by."""

    sent_bytes: int

    @property
    def address(self) -> bytes: ...


class Believed(Protocol):
    """Who the client is, by what proxies in front say."""

    def client(self, peer: bytes, forwarded: list[tuple[bytes, bytes]], /) -> bytes: ...


class QueryTokens(Protocol):
    """Whether what was asked for may hold a token: the parameters that do on some route."""

    @property
    def query_tokens(self) -> frozenset[bytes]: ...


class FinishedWorker(Protocol):
    """Who held it."""

    @property
    def trust(self) -> Believed: ...
    @property
    def destinations(self) -> QueryTokens: ...


class Finished(Protocol):
    """An exchange that is over."""

    @property
    def id(self) -> bytes: ...
    @property
    def head(self) -> RequestHead: ...
    @property
    def method(self) -> bytes: ...
    @property
    def raw_target(self) -> bytes: ...
    @property
    def body_bytes(self) -> int: ...
    @property
    def claims(self) -> Claims | None: ...
    @property
    def destination(self) -> FinishedDestination | None: ...
    @property
    def route(self) -> FinishedRoute | None: ...
    @property
    def price(self) -> FinishedPrice | None: ...
    @property
    def client(self) -> FinishedClient: ...
    @property
    def worker(self) -> FinishedWorker: ...
    @property
    def status(self) -> int: ...
    @property
    def verdict(self) -> bytes: ...
    @property
    def given_back(self) -> bool: ...
    @property
    def began(self) -> float: ...
    @property
    def forwarded_at(self) -> float: ...
    @property
    def headed_at(self) -> float: ...
