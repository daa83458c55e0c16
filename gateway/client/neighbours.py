"""What a client's connection uses of the worker that holds it."""

import asyncio
from typing import Final, NamedTuple, Protocol

from gateway.client.dates import Dated
from gateway.client.head_reader import HeadReader
from gateway.exchange.exchange import ExchangeWorker
from gateway.routing.forwarded import Trust
from gateway.settings.intervals import Intervals
from gateway.tunnel.neighbours import TunnelWorker


class Introduced(NamedTuple):
    """Whose connection it is."""

    address: bytes
    proto: bytes
    """The scheme that the client speaks."""
    certificate_fields: bytes = b""
    """Header lines for upstreams, of the certificate that the client has shown."""


UNKNOWN_PEER: Final = Introduced(b"unknown", b"http")


class Introduction(Protocol):
    """What has happened on a connection before it is read."""

    def introduce(self, transport: asyncio.Transport) -> Introduced: ...


class ClientWorker(ExchangeWorker, TunnelWorker, Dated, Protocol):
    """It is handed on to each exchange, and to a tunnel."""

    @property
    def intervals(self) -> Intervals: ...
    @property
    def head_reader(self) -> HeadReader: ...
    @property
    def idle_seconds(self) -> float: ...
    @property
    def trust(self) -> Trust: ...
    @property
    def draining(self) -> bool: ...
    @property
    def idle_end(self) -> float: ...
