"""Whether a route offers the protocol that a request asks for (RFC 9110 section 7.8). Pure."""

from typing import NamedTuple, Protocol

from common.request_target import TargetRefused
from gateway.http.head import RequestHead
from gateway.metering.tunnel_price import TunnelPrice
from gateway.routing.destinations import Destinations


class AskingRequest(Protocol):
    @property
    def method(self) -> bytes: ...
    @property
    def raw_target(self) -> bytes: ...
    @property
    def head(self) -> RequestHead: ...


class OfferedUpgrade(NamedTuple):
    protocol: bytes
    """The first of the protocols asked for that the route offers."""
    price: TunnelPrice | None


def offered_upgrade(request: AskingRequest, destinations: Destinations) -> OfferedUpgrade | None:
    head = request.head
    plain = request.method == b"GET" and head.is_11 and not head.has_body and not head.transfer_codings
    if not plain or destinations.upgrades.isdisjoint(head.upgrade):
        return None
    try:
        route = destinations.find(request.method, request.raw_target, head).route
    except TargetRefused:  # by the exchange, when it is its turn
        return None
    if route is None:
        return None
    return next((OfferedUpgrade(token, route.tunnel_price) for token in head.upgrade if token in route.upgrades), None)
