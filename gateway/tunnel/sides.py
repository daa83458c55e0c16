"""The two connections of an open tunnel: what comes on one is written to the other."""

import asyncio
from typing import Protocol


class SideOwner(Protocol):
    """The tunnel."""

    @property
    def over(self) -> bool: ...
    def on_data(self, side: "Side", data: bytes) -> None: ...
    def on_lost_side(self, side: "Side", error: Exception | None) -> None: ...


class SentBytes(Protocol):
    """Who counts what is sent on this side."""

    sent_bytes: int


class Side(asyncio.Protocol):
    """It reads one of them and writes to it."""

    peer: "Side"

    def __init__(
        self, tunnel: SideOwner, transport: asyncio.Transport, writing_paused: bool, counted: SentBytes | None = None
    ) -> None:
        self.held = False
        """Something that came from here waits to be paid."""
        self.writing_paused = writing_paused
        self._tunnel = tunnel
        self._transport = transport
        self._counted = counted

    def data_received(self, data: bytes) -> None:
        self._tunnel.on_data(self, data)

    def write(self, data: bytes) -> None:
        if self._counted is not None:
            self._counted.sent_bytes += len(data)
        self._transport.write(data)

    def linger(self) -> None:
        """Nothing is passed on any more. What comes until the other side has closed is dropped: with bytes unread the
        kernel would reset the connection, and the Close could be lost."""
        if not self._transport.is_closing():
            if self._transport.can_write_eof():
                self._transport.write_eof()
            self._transport.resume_reading()

    def release(self) -> None:
        """Nothing that came from here waits any more."""
        self.held = False
        self.read_or_not()

    def read_or_not(self) -> None:
        if self._tunnel.over:
            return
        wanted = not self.held and not self.peer.writing_paused
        if not self._transport.is_closing() and wanted is not self._transport.is_reading():
            self._transport.resume_reading() if wanted else self._transport.pause_reading()

    def pause_writing(self) -> None:
        self.writing_paused = True
        self.peer.read_or_not()

    def resume_writing(self) -> None:
        self.writing_paused = False
        self.peer.read_or_not()

    def eof_received(self) -> bool | None:
        return None  # the end of one side is the end of the tunnel

    def connection_lost(self, exc: Exception | None) -> None:
        self._tunnel.on_lost_side(self, exc)
