"""How the body of an answer is framed, by the upstream and for the client, and what follows for the connection. Pure.

RFC 9112 section 6.3 says how a recipient finds the length, RFC 9110 section 8.6 which answers may tell one.
"""

from typing import Final

from gateway.http.framing import CHUNKED, NONE, SIZED, UNTIL_CLOSE, Framing

LONG_BODY_BYTES: Final = 65_536
"""An upstream may answer a longer body without having read it. The end of such a connection says nothing of the
target's health, and after a refusal the connection is not used again."""


class BadFraming(Exception):
    """The fields do not say where the answer ends."""


def read_framing(status: int, method: bytes, length: bytes | None, transfer_codings: bytes | None) -> Framing:
    """How the upstream has framed the answer to `method`; `transfer_codings` are those of all its fields.

    Raises BadFraming."""
    if transfer_codings is not None:
        if transfer_codings.lower() != b"chunked":
            raise BadFraming("the upstream used a transfer coding other than chunked")
        if length is not None:
            raise BadFraming("the upstream's answer has two lengths")
    if method == b"HEAD" or status < 200 or status in (204, 304):
        return NONE
    if transfer_codings is not None:
        return CHUNKED
    return UNTIL_CLOSE if length is None else SIZED


def passed_framing(framing: Framing, is_11: bool) -> Framing:
    """How the client gets a body that the upstream has framed so: one of HTTP/1.0 knows no chunks."""
    if framing is CHUNKED or framing is UNTIL_CLOSE:
        return CHUNKED if is_11 else UNTIL_CLOSE
    return framing


def tells_of_a_body(length: bytes | None, transfer_codings: bytes | None) -> bool:
    """Whether the fields of an answer without a body tell of one all the same."""
    return transfer_codings is not None or (length or b"").strip(b"0") != b""


def read_before_answered(status: int, request_body_bytes: int) -> bool:
    """Whether the upstream has read the request that it answers so.

    One that refuses a long upload may have read none of it, and closes the connection without a word: the kernel resets
    it then, and a request that was sent on it meanwhile would have no answer."""
    return status < 300 or request_body_bytes <= LONG_BODY_BYTES
