"""What is asked about a client's socket, and done to it."""

import asyncio
import fcntl
import socket
import struct
import termios
from typing import Final

from uvicorn.protocols.utils import get_remote_addr

from common.addresses import spelt_plainly
from gateway.client.neighbours import UNKNOWN_PEER, Introduced, Introduction

_RESET: Final = struct.pack("ii", 1, 0)
"""SO_LINGER: closing sends RST, the only end that nobody takes for the end of a body."""


def introduced(transport: asyncio.Transport, introduction: Introduction | None) -> Introduced:
    """Who is at the other end. `introduction`: of a connection of which the kernel does not tell all."""
    if introduction is not None:
        return introduction.introduce(transport)
    peer = get_remote_addr(transport)
    return Introduced(spelt_plainly(peer[0]).encode(), b"http") if peer else UNKNOWN_PEER


def reset_connection(transport: asyncio.Transport) -> None:
    """Ends the connection so that the client sees that it was cut."""
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    transport.abort()


def has_arrived(transport: asyncio.Transport) -> bool:
    """Whether the kernel holds bytes of the client that were not read yet: closing now would lose a request."""
    waiting = fcntl.ioctl(transport.get_extra_info("socket").fileno(), termios.FIONREAD, b"\0" * 4)
    return any(waiting)


def has_unsent(transport: asyncio.Transport) -> bool:
    """Whether the client has not taken all that a TLS layer was given: what is behind the kernel's own is not seen."""
    if transport.can_write_eof():
        return False  # there is no such layer
    own = transport.get_extra_info("socket")
    if own is None or (number := own.fileno()) < 0:
        return False  # it has just been closed below the layer
    try:
        return any(fcntl.ioctl(number, termios.TIOCOUTQ, b"\0" * 4))
    except OSError:  # a system that does not tell
        return False
