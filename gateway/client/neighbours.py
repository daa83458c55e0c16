"""What a client's connection uses of the worker that holds it."""

from typing import Protocol

from gateway.exchange.exchange import ExchangeWorker
from gateway.settings.intervals import Intervals


class ClientWorker(ExchangeWorker, Protocol):
    """It is handed on to each exchange."""

    @property
    def intervals(self) -> Intervals: ...
