"""What is asked about a client's socket, and done to it."""

import asyncio
import fcntl
import socket
import struct
import termios
from typing import Final

from uvicorn.protocols.utils import get_remote_addr, is_ssl

from common.addresses import spelt_plainly

_RESET: Final = struct.pack("ii", 1, 0)
"""SO_LINGER: closing sends RST, the only end that nobody takes for the end of a body."""


def peer_of(transport: asyncio.Transport) -> tuple[bytes, bytes]:
    """The address of the other end, and the scheme that it speaks."""
    peer = get_remote_addr(transport)
    return spelt_plainly(peer[0]).encode() if peer else b"unknown", b"https" if is_ssl(transport) else b"http"


def reset_connection(transport: asyncio.Transport) -> None:
    """Ends the connection so that the client sees that it was cut."""
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    transport.abort()


def has_arrived(transport: asyncio.Transport) -> bool:
    """Whether the kernel holds bytes of the client that were not read yet: closing now would lose a request."""
    waiting = fcntl.ioctl(transport.get_extra_info("socket").fileno(), termios.FIONREAD, b"\0" * 4)
    return any(waiting)
