"""Frames of WebSocket, as far as a tunnel must know them: where messages begin, where frames end. Pure.

RFC 6455 section 5.2; section 5.5 for control frames, 7.4.1 for the codes of a close. Payloads are not looked at, so
extensions that only change these (permessage-deflate) need no care.
"""

import os
from typing import Final

GOING_AWAY: Final = 1001
PROTOCOL_ERROR: Final = 1002
POLICY_VIOLATION: Final = 1008
TRY_AGAIN_LATER: Final = 1013

_CONTROL_BYTES_MAX: Final = 125
_EXTENDED: Final = {126: 2, 127: 8}  # more bytes of length


class BadFrame(Exception):
    """The bytes are no frame of RFC 6455. The text is for the peer."""


class Frames:
    """The frames of one direction, read by pieces as they come."""

    def __init__(self, *, masked: bool) -> None:
        self._masked = masked
        self._head = bytearray()  # of an unfinished frame header
        self._left = 0  # bytes of the payload that are still to come
        self._fragmented = False  # a message began and has not ended

    @property
    def between(self) -> bool:
        """Whether another frame may be put in here."""
        return not self._left and not self._head

    def messages(self, data: bytes) -> list[int]:
        """Reads all of `data`: where in it data messages begin. Raises BadFrame."""
        begin, at = [], 0
        while at < len(data):
            if not self._left and not self._head and self._begins_message(data[at]):
                begin.append(at)
            at = self._step(data, at)
        return begin

    def rest_of_frame(self, data: bytes) -> int:
        """Reads to the end of the frame that is under way: how many bytes of `data` belong to it. Raises BadFrame."""
        at = 0
        while at < len(data) and not self.between:
            at = self._step(data, at)
        return at

    def _begins_message(self, first: int) -> bool:
        opcode = first & 0x0F
        if opcode >= 8:  # a control frame may come between the fragments of a message
            return False
        begins = opcode != 0 or not self._fragmented
        self._fragmented = not first & 0x80
        return begins

    def _step(self, data: bytes, at: int) -> int:
        """Passes some of a payload or of a header; where it stopped."""
        if self._left:
            passed = min(self._left, len(data) - at)
            self._left -= passed
            return at + passed
        head = self._head
        size = 2 if len(head) < 2 else self._head_bytes()
        missing = size - len(head)
        head += data[at : at + missing]
        if len(head) >= 2 and len(head) == self._head_bytes():
            self._left = self._payload_bytes()
            head.clear()
        return min(len(data), at + missing)

    def _head_bytes(self) -> int:
        first, second = self._head[0], self._head[1]
        if bool(second & 0x80) is not self._masked:  # section 5.1
            raise BadFrame("frames of a client are masked" if self._masked else "frames of a server are not masked")
        if first & 0x08 and (second & 0x7F > _CONTROL_BYTES_MAX or not first & 0x80):
            raise BadFrame("a control frame is short and whole")
        return 2 + _EXTENDED.get(second & 0x7F, 0) + (4 if self._masked else 0)

    def _payload_bytes(self) -> int:
        length = self._head[1] & 0x7F
        if length in _EXTENDED:
            length = int.from_bytes(self._head[2 : 2 + _EXTENDED[length]])
        if length >> 63:
            raise BadFrame("a length has 63 bits")
        return length


def close_frame(code: int, reason: str, *, masked: bool) -> bytes:
    """A Close frame; `reason` in at most 123 bytes of UTF-8."""
    payload = code.to_bytes(2) + reason.encode()
    if not masked:
        return bytes((0x88, len(payload))) + payload
    mask = os.urandom(4)
    hidden = bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))
    return bytes((0x88, 0x80 | len(payload))) + mask + hidden
