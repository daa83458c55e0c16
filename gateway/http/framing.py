"""How the end of a request's body is found (RFC 9112 section 6). Pure."""

from enum import Enum, auto

from gateway.http.head import RequestHead


class Framing(Enum):
    NONE = auto()
    """There is no body."""
    SIZED = auto()
    CHUNKED = auto()
    UNKNOWN = auto()
    """The fields contradict each other, or name a coding that is not understood: nobody knows where the body ends."""


def request_framing(head: RequestHead) -> Framing:
    if head.transfer_codings:
        understood = head.transfer_codings == 1 and head.chunked and head.content_length is None and head.is_11
        return Framing.CHUNKED if understood else Framing.UNKNOWN
    return Framing.SIZED if head.content_length else Framing.NONE
