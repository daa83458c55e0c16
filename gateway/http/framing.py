"""How a body is framed, and how the end of a request's body is found (RFC 9112 section 6). Pure."""

from enum import Enum, auto
from typing import Final

from gateway.http.head import RequestHead


class Framing(Enum):
    NONE = auto()
    """There is no body, whatever the fields say."""
    SIZED = auto()
    CHUNKED = auto()
    UNTIL_CLOSE = auto()
    """The end of the connection is the end of the body: of answers only."""
    UNKNOWN = auto()
    """The fields contradict each other, or name a coding that is not understood: nobody knows where the body ends."""


# Up to Python 3.11 a look-up of a member in its class is a call, so these are for code that runs for each answer.
NONE: Final = Framing.NONE
SIZED: Final = Framing.SIZED
CHUNKED: Final = Framing.CHUNKED
UNTIL_CLOSE: Final = Framing.UNTIL_CLOSE


def request_framing(head: RequestHead) -> Framing:
    if head.transfer_codings:
        understood = head.transfer_codings == 1 and head.chunked and head.content_length is None and head.is_11
        return Framing.CHUNKED if understood else Framing.UNKNOWN
    return Framing.SIZED if head.content_length else Framing.NONE
