"""Routes and their prices go to Redis, for those who ask what would become of a request: when a worker starts, and once
a minute while it takes new connections. No request waits for it, and none is looked at.
"""

import asyncio
from collections.abc import Callable
from time import time
from typing import Any, Final, Protocol

import structlog

from gateway.settings.metering import HeaderCost, MeterCost, QueryCost, ReportedCost
from gateway.settings.root import GatewaySettings
from gateway.settings.route import RouteSettings
from quota import keys
from quota.calls.encoded import command
from quota.routes import BYTES_MAX, Price, Route, Routes, TellsCost, Tunnel, TunnelUnit, digest_of, encode, value_of

log = structlog.get_logger()

AGAIN_SECONDS: Final = 2.0  # after Redis did not take it


class Sender(Protocol):
    """The link to Redis."""

    def call(self, data: bytes, callback: Callable[[Any], None], /) -> None: ...


class RoutesTeller:
    """Of one worker."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, sender: Sender, settings: GatewaySettings, seconds: float
    ) -> None:
        self._loop = loop
        self._sender = sender
        self._text = encode(routes_of(settings))
        self._digest = digest_of(self._text)
        self._seconds = seconds
        self._started_s = int(time())
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    def start(self) -> None:
        if len(self._text) > BYTES_MAX:
            log.warning("the routes are too many to be told to the control plane", bytes=len(self._text))
            return
        self._tell()

    def close(self) -> None:
        """What was told is out of date in some minutes."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()

    def _tell(self) -> None:
        value = value_of(self._text, self._started_s, int(time()))
        self._sender.call(command("HSET", keys.ROUTES, self._digest, value), self._on_reply)

    def _on_reply(self, reply: Any) -> None:
        if not self._closed:
            seconds = min(AGAIN_SECONDS, self._seconds) if isinstance(reply, Exception) else self._seconds
            self._timer = self._loop.call_later(seconds, self._tell)


def routes_of(settings: GatewaySettings) -> Routes:
    """What is told of them. Pure."""
    accepted = settings.auth.keys
    return Routes(
        tuple(map(_route, settings.routes)),
        accepted.environments if accepted.enabled else (),
        tuple(sorted(settings.shadow.organizations)),
    )


def _route(route: RouteSettings) -> Route:
    required = route.require
    return Route(
        route.label,
        route.host,
        route.methods,
        route.path,
        {} if route.exempt else {meter: _price(cost) for meter, cost in route.meters.items()},
        route.exempt,
        route.shadow,
        () if required is None else required.scopes,
        () if required is None else required.roles,
        required is None or required.keys,
        route.upgrades,
        None if route.tunnel is None else Tunnel(TunnelUnit(route.tunnel.per), dict(route.tunnel.charge)),
        route.encoded_slash == "keep",
        route.merge_slashes,
        None if route.add_prefix else route.strip_prefix or "",
    )


def _price(cost: MeterCost) -> Price:
    if isinstance(cost, HeaderCost):
        return Price(cost.default, TellsCost.HEADER, cost.header, cost.min, cost.max)
    if isinstance(cost, QueryCost):
        return Price(cost.default, TellsCost.QUERY, cost.query, cost.min, cost.max)
    if isinstance(cost, ReportedCost):
        return Price(cost.estimate, TellsCost.ANSWER, "", 0, cost.max)
    return Price(cost)
