"""The addresses of a target's name. DNS is asked anew now and then, never by a request that could do without.

An address is its own, and so is the path of a socket.
"""

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable

import structlog

from gateway.http.deadlines import NEVER, DeadlineSweep

log = structlog.get_logger()

LookUp = Callable[[str, int], Awaitable[list[str]]]
"""Host and port to addresses. Raises OSError."""


def system_look_up(loop: asyncio.AbstractEventLoop) -> LookUp:
    async def look_up(host: str, port: int) -> list[str]:
        infos = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)  # in a thread
        return list(dict.fromkeys(str(address[0]) for *_, address in infos))

    return look_up


class Addresses:
    """Of one name, in one worker. While DNS is away the last answer holds."""

    def __init__(
        self,
        deadlines: DeadlineSweep,
        host: str,
        port: int,
        seconds: float,
        look_up: LookUp,
        on_change: Callable[[frozenset[str]], None],
    ) -> None:
        self._deadlines = deadlines
        self._host = host
        self._port = port
        self._seconds = seconds
        self._look_up = look_up
        self._on_change = on_change
        self._addresses: list[str] = []
        self._failed: set[str] = set()
        self._turn = 0
        self._error = OSError("no address")
        self._looking: asyncio.Task[None] | None = None
        self.deadline = NEVER
        try:
            self._addresses = [host if host.startswith("/") else str(ipaddress.ip_address(host))]
        except ValueError:
            deadlines.add(self)

    async def in_turn(self) -> list[str]:
        """All of them, another one first each time, and last those that refused since DNS was asked. Raises OSError."""
        if not self._addresses:
            await asyncio.shield(self.refresh())
        if not self._addresses:
            raise self._error
        self._turn += 1
        first = self._turn % len(self._addresses)
        return sorted(self._addresses[first:] + self._addresses[:first], key=self._failed.__contains__)

    def refused(self, address: str) -> None:
        self._failed.add(address)

    def refresh(self) -> asyncio.Task[None]:
        if self._looking is None or self._looking.done():
            self._looking = asyncio.get_running_loop().create_task(self._ask())
        return self._looking

    def on_deadline(self) -> None:
        self.refresh()

    async def _ask(self) -> None:
        try:
            addresses = await self._look_up(self._host, self._port)
        except OSError as e:
            self._error = e
            if self._addresses:
                log.warning("name not resolved, the addresses known last are used", host=self._host, reason=str(e))
        else:
            changed = bool(self._addresses) and set(addresses) != set(self._addresses)
            self._addresses = addresses or self._addresses
            self._failed.clear()
            if changed and addresses:
                log.info("name resolves to other addresses", host=self._host, count=len(addresses))
                self._on_change(frozenset(addresses))
        if self._addresses:
            self.deadline = self._deadlines.now + self._seconds

    async def close(self) -> None:
        self._deadlines.discard(self)
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)
