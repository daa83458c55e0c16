"""Clients that are silent for seconds, and send their next request on a connection that may just be closed.

Half of them are at a distance: what they send arrives later, and so does what is sent to them, a connection's end, too.
So a connection that is closed while a request is on its way costs that request, as it would on a network. On loopback
alone that moment is too short to be met.
"""

import asyncio
import random
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from bench.soak.traffic import AGAIN_SECONDS, ANSWER_SECONDS, NOT_CONNECTED, asked
from devstack.ports import LOOPBACK

DISTANCE_SECONDS = 0.02  # one way

Note = Callable[[str, float, int | str], None]
"""Of an organization's call: when it was due, and its status."""


class DistantConnection(asyncio.Protocol):
    """Reads like a StreamReader's, and writes like a StreamWriter."""

    def __init__(self, seconds: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._seconds = seconds
        self._transport: asyncio.Transport
        self.reader = asyncio.StreamReader()

    @property
    def ended(self) -> bool:
        """Whether the client has learned of its end."""
        return self.reader.at_eof()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # always a socket

    def data_received(self, data: bytes) -> None:
        self._loop.call_later(self._seconds, self.reader.feed_data, data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._loop.call_later(self._seconds, self.reader.feed_eof)

    def write(self, data: bytes) -> None:
        self._loop.call_later(self._seconds, self._transport.write, data)

    def close(self) -> None:
        self._transport.close()


@dataclass
class Silences:
    """What became of connections that were silent."""

    kept: int = 0
    """They had another request."""
    closed: int = 0
    """The client saw their end before it sent again: no request is lost, and no answer had told of it."""


class SilentClients:
    """`count` of them, in turn at each gateway; each is silent for up to `seconds` between two requests."""

    def __init__(
        self, gateways: Sequence[int], requests: Mapping[str, bytes], note: Note, count: int, seconds: float
    ) -> None:
        """`note` keeps the books."""
        self.silences = Silences()
        self._gateways = gateways
        self._orgs, self._requests = list(requests), requests
        self._note = note
        self._count, self._seconds = count, seconds
        self._tasks: list[asyncio.Task[None]] = []
        self._over = asyncio.Event()

    def start(self) -> None:
        self._tasks = [asyncio.create_task(self._client(at)) for at in range(self._count)]

    async def stop(self) -> None:
        """When each has the answer that it waits for."""
        self._over.set()
        await asyncio.gather(*self._tasks)

    async def _client(self, number: int) -> None:
        # One of each four is near and one far from each of two gateways.
        port = self._gateways[number % len(self._gateways)]
        distance = DISTANCE_SECONDS if number // len(self._gateways) % 2 else 0.0
        connection: DistantConnection | None = None
        asked_before = number
        while not await self._is_over_after(random.uniform(0, self._seconds)):  # noqa: S311 - a silence, no secret
            if connection is not None:
                if connection.ended:
                    self.silences.closed += 1
                    connection = None
                else:
                    self.silences.kept += 1
            asked_before += self._count
            org = self._orgs[asked_before % len(self._orgs)]
            connection = await self._ask(connection, port, distance, org)
        if connection is not None:
            connection.close()

    async def _is_over_after(self, seconds: float) -> bool:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._over.wait(), seconds)
        return self._over.is_set()

    async def _ask(
        self, connection: DistantConnection | None, port: int, distance: float, org: str
    ) -> DistantConnection | None:
        """The connection, if it stays."""
        due = time.perf_counter()
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                connection = connection or await self._connected(port, distance)
        except OSError:
            self._note(org, due, NOT_CONNECTED)
            await asyncio.sleep(AGAIN_SECONDS)
            return None
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                answer = await asked(connection.reader, connection, self._requests[org])
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError):
            self._note(org, due, "silent, cut")
            connection.close()
            return None
        self._note(org, due, answer.status)
        if answer.keep:
            return connection
        connection.close()
        return None

    async def _connected(self, port: int, distance: float) -> DistantConnection:
        """To that gateway, or to another one where it is away. Raises OSError."""
        for each in (port, *(other for other in self._gateways if other != port)):
            with suppress(OSError):
                _, connection = await asyncio.get_running_loop().create_connection(
                    lambda: DistantConnection(distance), LOOPBACK, each
                )
                return connection
        raise ConnectionRefusedError
