"""What becomes of a tunnel. Pure."""

from enum import Enum, auto
from typing import Final


class TunnelState(Enum):
    ASKED = auto()
    """The request was read; the upstream has not switched."""
    OPEN = auto()
    """Bytes go both ways."""
    CLOSING = auto()
    """The gateway ends it. Nothing of the client goes on; a frame of the upstream may still be on its way."""
    OVER = auto()
    """Both connections were handed back."""


class TunnelEvent(Enum):
    SWITCHED = auto()
    """The upstream answered 101."""
    CLOSED = auto()
    """The gateway found a reason to end it."""
    ENDED = auto()
    """One side is gone, or everybody was told."""


TRANSITIONS: Final = {
    (TunnelState.ASKED, TunnelEvent.SWITCHED): TunnelState.OPEN,
    (TunnelState.OPEN, TunnelEvent.CLOSED): TunnelState.CLOSING,
    (TunnelState.OPEN, TunnelEvent.ENDED): TunnelState.OVER,
    (TunnelState.CLOSING, TunnelEvent.ENDED): TunnelState.OVER,
}
