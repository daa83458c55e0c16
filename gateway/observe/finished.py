"""What must be known of a finished exchange to count it and to write its line."""

from collections.abc import Mapping
from typing import Protocol

from gateway.http.head import RequestHead
from gateway.observe.tally import Tally
from identity.claims import Claims


class FinishedUpstream(Protocol):
    @property
    def name(self) -> str: ...


class FinishedRoute(Protocol):
    """The route that it fell under."""

    @property
    def name(self) -> str: ...
    @property
    def upstream(self) -> FinishedUpstream: ...
    @property
    def charges(self) -> Mapping[str, int]: ...
    @property
    def pricing(self) -> object | None: ...
    @property
    def tallies(self) -> dict[int, Tally]: ...


class FinishedPrice(Protocol):
    @property
    def charges(self) -> Mapping[str, int]: ...


class FinishedCharge(Protocol):
    """What it was charged."""

    @property
    def price(self) -> FinishedPrice: ...
    @property
    def given_back(self) -> bool: ...


class FinishedForwarding(Protocol):
    """When it was forwarded, and when the answer's head came; monotonic nanoseconds, 0 for never."""

    @property
    def forwarded_ns(self) -> int: ...
    @property
    def resent(self) -> bool: ...
    @property
    def headed_ns(self) -> int: ...


class FinishedBody(Protocol):
    """What came of its body."""

    @property
    def received_bytes(self) -> int: ...


class FinishedDestination(Protocol):
    """What its request line meant."""

    @property
    def method(self) -> bytes: ...
    @property
    def path(self) -> bytes: ...
    @property
    def logged(self) -> bytes: ...
    @property
    def route(self) -> FinishedRoute | None: ...


class FinishedClient(Protocol):
    """The connection that it came by."""

    sent_bytes: int

    @property
    def address(self) -> bytes: ...


class Believed(Protocol):
    """Who the client is, by what proxies in front say."""

    def client(self, peer: bytes, forwarded: list[tuple[bytes, bytes]], /) -> bytes: ...


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
    def body(self) -> FinishedBody | None: ...
    @property
    def claims(self) -> Claims | None: ...
    @property
    def destination(self) -> FinishedDestination | None: ...
    @property
    def charge(self) -> FinishedCharge | None: ...
    @property
    def forwarding(self) -> FinishedForwarding | None: ...
    @property
    def client(self) -> FinishedClient: ...
    @property
    def status(self) -> int: ...
    @property
    def verdict(self) -> bytes: ...
    @property
    def began_ns(self) -> int: ...


class Spans(Protocol):
    """Where requests that are recorded become spans."""

    def add(self, exchange: Finished, status: int, now_ns: int, aborted: bool, /) -> None:
        """`now_ns`: monotonic."""
