"""When a connection that carries nothing may be used again: how long its upstream keeps it, what came unasked."""

import asyncio
import os
import socket
from contextlib import suppress

_IDLE_END = b"HTTP/1.1 408 "


def usable_seconds(promised: float, tick_seconds: float) -> float:
    """For how long a connection is used that the upstream keeps for so long: a second less, or a tenth, since its clock
    may have begun earlier. The sweep's time is up to a tick ahead of the clock."""
    if promised <= 0:
        return 0
    return max(promised - max(1, promised / 10) - tick_seconds, tick_seconds / 2)


def announces_end(data: bytes) -> bool:
    """Whether a server says so that it ends an idle connection (RFC 9110 section 15.5.9). That is no surplus."""
    return data.startswith(_IDLE_END)


def peek(transport: asyncio.Transport) -> bytes:
    """The first bytes that the kernel holds of the connection. They stay there."""
    with suppress(OSError), socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno())) as unread:
        return unread.recv(len(_IDLE_END), socket.MSG_PEEK | socket.MSG_DONTWAIT)
    return b""
