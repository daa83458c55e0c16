"""Whether a client's connection is read, and whether the client takes what it is sent."""

import asyncio


class Flow:
    __slots__ = ("_pauses", "_transport", "_unwritten", "holding")

    def __init__(self, transport: asyncio.Transport) -> None:
        self.holding = False
        """No further request is read until the client has taken its answers."""
        self._transport = transport
        self._pauses = 0  # reasons not to read
        self._unwritten = 0

    @property
    def paused(self) -> bool:
        return self._pauses > 0

    def pause(self) -> bool:
        """There is one more reason not to read the client. Returns whether reading stops now."""
        self._pauses += 1
        if self._pauses > 1 or self._transport.is_closing():
            return False
        self._transport.pause_reading()
        return True

    def resume(self) -> bool:
        """One of the reasons is gone. Returns whether reading goes on now."""
        if not self._pauses:
            return False
        self._pauses -= 1
        if self._pauses or self._transport.is_closing():
            return False
        self._transport.resume_reading()
        return True

    def expect_progress(self, unwritten: int | None = None) -> None:
        """`took_some` counts from here on."""
        self._unwritten = self._transport.get_write_buffer_size() if unwritten is None else unwritten

    def took_some(self) -> bool:
        """Whether the client has taken something of what was written since this was asked last."""
        before, self._unwritten = self._unwritten, self._transport.get_write_buffer_size()
        return self._unwritten < before
