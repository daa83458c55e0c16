"""What a tunnel uses of the exchange that it belongs to, of the client's connection and of the worker."""

import asyncio
from typing import Protocol

from gateway.decision.charge import Asker
from gateway.decision.decisions import Decisions
from gateway.http.deadlines import DeadlineSweep
from gateway.observe.refused import RefusedLog
from gateway.routing.destinations import Destination, Unrouted
from gateway.settings.root import GatewaySettings
from gateway.tunnel.charges import ChargingWorker


class TunnelExchange(Asker, Protocol):
    """The request that asks for the upgrade."""

    body_bytes: int

    @property
    def responded(self) -> bool: ...
    @property
    def destination(self) -> Destination | Unrouted | None: ...
    def in_shadow(self, *, of_principal: bool = False) -> bool: ...
    def hand_to_tunnel(self) -> bytes:
        """The upstream's connection is the tunnel's from here on, and so is the permit: the take that got it, empty
        if none did."""
        ...


class TunnelClient(Protocol):
    """The connection that the client asked on."""

    sent_bytes: int
    deadline: float

    @property
    def transport(self) -> asyncio.Transport: ...
    @property
    def writing_paused(self) -> bool: ...
    @property
    def draining(self) -> bool: ...
    def write(self, data: bytes) -> None: ...
    def pause_reading(self) -> None: ...
    def take_back(self) -> None:
        """What the client sends from here on is no longer for the tunnel."""
        ...

    def tunnel_ended(self) -> None: ...
    def connection_lost(self, exc: Exception | None) -> None: ...


class TunnelWorker(ChargingWorker, Protocol):
    @property
    def settings(self) -> GatewaySettings: ...
    @property
    def decisions(self) -> Decisions: ...
    @property
    def refused(self) -> RefusedLog: ...
    @property
    def deadlines(self) -> DeadlineSweep: ...
    @property
    def tunnels_end(self) -> float: ...
