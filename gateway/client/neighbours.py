"""What a client's connection uses of the worker that holds it."""

from typing import Protocol

from gateway.client.dates import Dated
from gateway.client.head_reader import HeadReader
from gateway.exchange.exchange import ExchangeWorker
from gateway.routing.forwarded import Trust
from gateway.settings.intervals import Intervals
from gateway.tunnel.neighbours import TunnelWorker


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
