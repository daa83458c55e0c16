"""Whom a tunnel tells why it ends, and when. Pure.

A Close frame (RFC 6455 section 5.5.1) may stand between two frames only. Within a frame it would pass for payload.
"""

from dataclasses import dataclass
from enum import Enum, auto

from gateway.http import websocket


class Unpaid(Enum):
    """What was read of the client and waits to be paid when the tunnel ends."""

    NOTHING = auto()
    MESSAGES = auto()
    """None of them went on, so the upstream's stream ends where the first of them begins."""
    BYTES = auto()
    """They may be the rest of a frame that went on in part."""


class Ending(Enum):
    """What follows on the client's side."""

    AT_ONCE = auto()
    """The client cannot be told."""
    CLOSE_FRAME = auto()
    AFTER_FRAME = auto()
    """The upstream's frame that is on its way goes on to its end, and then the client is told."""


@dataclass(frozen=True, slots=True)
class ClosePlan:
    tell_upstream: bool
    client: Ending


SILENT = ClosePlan(False, Ending.AT_ONCE)


def plan_close(
    code: int, unpaid: Unpaid, from_client: websocket.Frames | None, from_upstream: websocket.Frames | None
) -> ClosePlan:
    """`from_client` and `from_upstream`: what was read so far, None where the tunnel does not speak WebSocket."""
    if from_client is None or from_upstream is None:
        return SILENT
    tell_upstream = unpaid is Unpaid.MESSAGES or from_client.between
    if from_upstream.between:
        return ClosePlan(tell_upstream, Ending.CLOSE_FRAME)
    if unpaid is Unpaid.BYTES or code == websocket.PROTOCOL_ERROR:
        return ClosePlan(tell_upstream, Ending.AT_ONCE)  # the rest of the frame is not the client's
    return ClosePlan(tell_upstream, Ending.AFTER_FRAME)
