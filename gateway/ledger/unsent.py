"""Takes and reads that were not sent, or not applied: they wait for the next server, if it is there in time."""

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

from gateway.ledger.place import Place
from gateway.ledger.takes import Read, Take
from gateway.redis.connection import Callback, Connection, Lost
from gateway.redis.pauses import Pauses

TIMER_SECONDS = 0.002  # by which a timer may be early
APART_SECONDS = 1.0  # refusals of servers that come sooner are one outage, in which takes are parked once


class Parked:
    """They wait for so long after the first of several refusals. What comes later is answered at once."""

    __slots__ = ("_loop", "_reason", "_until", "reads", "takes")

    def __init__(self, loop: asyncio.AbstractEventLoop, reason: Callable[[], str]) -> None:
        """`reason`: what they are told that have waited in vain."""
        self._loop = loop
        self._reason = reason
        self._until = float("-inf")  # loop time
        self.takes: list[Take] = []
        self.reads: list[Read] = []

    @property
    def is_open(self) -> bool:
        """What comes now may wait."""
        return self._loop.time() < self._until

    def begin(self, seconds: float) -> None:
        """A server was left. What comes within so many seconds may wait."""
        now = self._loop.time()
        if now >= self._until + APART_SECONDS:  # else it is the same outage
            self._until = now + seconds
            self._loop.call_at(self._until + TIMER_SECONDS, self.expire)  # none is parked after it

    def release(self) -> list[Take]:
        takes, self.takes = self.takes, []
        return takes

    def release_reads(self) -> list[Read]:
        reads, self.reads = self.reads, []
        return reads

    def expire(self) -> None:
        for take in self.release():
            take[3].on_take_lost(Lost(self._reason(), applied=False))
        for _, _, callback in self.release_reads():
            callback(Lost(self._reason(), applied=False))


class Link(Protocol):
    """Whoever sends them."""

    @property
    def taking(self) -> Connection | None: ...
    @property
    def pauses(self) -> Pauses: ...
    def queue(self, takes: list[Take]) -> None:
        """They are sent with the next takes, before these."""


class Unsent:
    """Those of one link."""

    __slots__ = ("_link", "_loop", "_parked", "_place")

    def __init__(self, link: Link, loop: asyncio.AbstractEventLoop, place: Place | None) -> None:
        self._link = link
        self._loop = loop
        self._place = place
        self._parked = Parked(loop, lambda: link.pauses.reason)

    def begin(self, seconds: float) -> None:
        """The server was left: the next one may be there within so many seconds."""
        self._parked.begin(seconds)

    def turn_away(self, take: Take, reason: str) -> None:
        """A take that was not applied."""
        if self._place is not None and self._place.wait(take, reason):
            return
        if self._parked.is_open:
            self._parked.takes.append(take)
            self.resend()
        else:
            take[3].on_take_lost(Lost(reason, applied=False))

    def read(self, data: bytes, reply_count: int, callback: Callback) -> None:
        """Sends a read, now or with the takes that wait."""
        read, connection = (data, reply_count, callback), self._link.taking
        if connection is None:
            self._wait(read, Lost(self._link.pauses.reason, applied=False))
            return

        def on_replies(replies: Any) -> None:
            if not isinstance(replies, Lost):
                callback(replies)
            elif self._place is None or not self._place.wait_read(read, str(replies)):
                if connection is self._link.taking:  # the error is about the commands, and not about the server
                    callback(replies)
                else:
                    self._wait(read, replies)

        connection.send_several(data, reply_count, on_replies)

    def _wait(self, read: Read, lost: Lost) -> None:
        if not self._parked.is_open:
            read[2](lost)
            return
        self._parked.reads.append(read)
        if self._link.taking is not None:
            self._loop.call_soon(self.resend)

    def resend(self) -> None:
        """Sends what waits, if takes are sent."""
        if self._link.taking is None:
            return
        if self._parked.takes:
            self._link.queue(self._parked.release())
        for read in self._parked.release_reads():
            self.read(*read)

    def expire(self) -> None:
        self._parked.expire()
