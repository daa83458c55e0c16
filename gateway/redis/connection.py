"""One connection to Redis: commands go out, and their replies come in, in the same order.

It speaks RESP2 and parses with hiredis. It never waits: a callback gets the reply, or learns that it is lost. A reply
that does not come in time breaks the connection, since what comes after it can no longer be told apart. Everything
under way is then lost together.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol, cast

import hiredis

from quota.calls.encoded import command

READ_GRACE_SECONDS = 0.01


class Lost(Exception):
    """No reply came, or Redis refused: whether the call took effect is unknown unless `applied` is False."""

    def __init__(self, reason: str, *, applied: bool | None = None) -> None:
        super().__init__(reason)
        self.applied = applied


Callback = Callable[[Any], None]
"""Called with the reply, or with Lost."""


@dataclass(frozen=True, slots=True)
class ReplyTimes:
    """How long Redis has for a reply."""

    timeout_seconds: float
    """A connection without a reply for so long is given up."""
    budget_seconds: float
    """Redis owes a reply that takes longer: its owner sends no further takes."""


class RedisConnectionState(Enum):
    """It begins as SERVING. A late reply makes it OWING, the next one SERVING again. ENDING goes to LOST alone."""

    SERVING = "replies come in time"
    OWING = "a reply takes longer than its budget"
    ENDING = "nothing more is sent, and what is under way still gets its replies"
    LOST = "it has ended, and everything under way is lost"


class ConnectionOwner(Protocol):
    """Whoever dials a connection hears what becomes of it."""

    def on_owing(self, connection: "Connection", *, owing: bool) -> None:
        """Redis owes a reply for longer than the budget, or has just answered after that."""

    def on_error(self, connection: "Connection", error: str, callback: Callback) -> None:
        """Redis answers with an error, which the callback gets next."""

    def on_lost(self, connection: "Connection", reason: str) -> None:
        """The connection has ended. The callbacks of what was under way are called next."""


class _Replies:
    """Collects the replies to commands that were sent together."""

    __slots__ = ("_callback", "_left", "_replies")

    def __init__(self, reply_count: int, callback: Callback) -> None:
        self._left = reply_count
        self._callback = callback
        self._replies: list[Any] = []

    def __call__(self, reply: Any) -> None:
        self._left -= 1
        self._replies.append(reply)
        if not self._left:
            lost = next((each for each in self._replies if isinstance(each, Lost)), None)
            self._callback(self._replies if lost is None else lost)


class Connection(asyncio.Protocol):
    __slots__ = (
        "_answered",
        "_budget",
        "_ending_reason",
        "_loop",
        "_owner",
        "_pending",
        "_reader",
        "_state",
        "_timeout",
        "_transport",
        "_watchdog",
        "closed",
        "lost",
        "read_at",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop, owner: ConnectionOwner, timeout_seconds: float) -> None:
        """`timeout_seconds` is for each reply, until `answer_within` says otherwise."""
        self._loop = loop
        self._owner = owner
        self._timeout = self._budget = timeout_seconds
        self._state = RedisConnectionState.SERVING
        self._ending_reason = ""
        self._answered = 0  # replies so far
        self._reader = hiredis.Reader()
        self._pending: deque[tuple[Callback, float]] = deque()
        self._transport: asyncio.Transport
        self._watchdog: asyncio.TimerHandle | None = None
        self.read_at = 0.0
        """Loop time when Redis answered last."""
        self.lost: str | None = None
        """Why it has ended, once it has."""
        self.closed = False
        """The server, or the network, has ended it."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def answer_within(self, times: ReplyTimes) -> None:
        """From now on Redis has these times for a reply, also for the replies that it owes."""
        self._timeout = times.timeout_seconds
        self._budget = min(times.budget_seconds, times.timeout_seconds)
        if self._watchdog is not None:  # it was set for the time before
            self._watchdog.cancel()
            self._watchdog = None
            self._check_oldest()

    def send(self, data: bytes, callback: Callback) -> None:
        if self.lost is not None:
            callback(Lost(self.lost, applied=False))
            return
        now = self._loop.time()
        self._pending.append((callback, now))
        if self._watchdog is None:
            self._watchdog = self._loop.call_at(now + self._budget, self._check_oldest)
        self._transport.write(data)

    def send_each(self, data: bytes, reply_count: int, callback: Callback) -> None:
        """Several commands in one write. The callback gets the reply of each."""
        self.send(data, callback)
        for _ in range(reply_count - 1):
            if self.lost is not None:
                callback(Lost(self.lost, applied=False))
            else:
                self._pending.append(self._pending[-1])

    def send_several(self, data: bytes, reply_count: int, callback: Callback) -> None:
        """Several commands in one write. The callback gets the list of their replies, or Lost if one of them is."""
        self.send_each(data, reply_count, _Replies(reply_count, callback))

    async def ask(self, *words: bytes | str | int) -> Any:
        """One command and its reply, for a handshake. Raises Lost."""
        answer: asyncio.Future[Any] = self._loop.create_future()
        self.send(command(*words), lambda reply: None if answer.done() else answer.set_result(reply))
        reply = await answer
        if isinstance(reply, Lost):
            raise reply
        return reply

    def data_received(self, data: bytes) -> None:
        self.read_at = self._loop.time()
        if self._state is RedisConnectionState.OWING:
            self._serve_again()
        self._reader.feed(data)
        gets, pending = self._reader.gets, self._pending
        try:
            while (reply := gets()) is not False:
                if not pending:
                    self.abort("Redis sent a reply that nobody asked for")
                    return
                callback, _ = pending.popleft()
                self._answered += 1
                if isinstance(reply, hiredis.ReplyError):
                    self._owner.on_error(self, str(reply), callback)
                    callback(Lost(str(reply), applied=False))
                else:
                    callback(reply)
        except hiredis.ProtocolError as e:
            self.abort(f"Redis sent what is no reply: {e}")
        if self._state is RedisConnectionState.ENDING and not pending:
            self.abort(self._ending_reason)

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = self.lost is None
        self._lose(str(exc) if exc else "Redis closed the connection")

    # Transitions

    def end_when_answered(self, reason: str) -> None:
        """Nothing more is sent. What is under way gets its replies first, or its timeout."""
        if self._state is not RedisConnectionState.LOST:
            self._state, self._ending_reason = RedisConnectionState.ENDING, reason

    def abort(self, reason: str) -> None:
        self._transport.abort()
        self._lose(reason)

    def _owe(self) -> None:
        if self._state is RedisConnectionState.SERVING:
            self._state = RedisConnectionState.OWING
            self._owner.on_owing(self, owing=True)

    def _serve_again(self) -> None:
        self._state = RedisConnectionState.SERVING
        self._owner.on_owing(self, owing=False)

    def _lose(self, reason: str) -> None:
        if self._state is RedisConnectionState.LOST:
            return
        self._state, self.lost = RedisConnectionState.LOST, reason
        if self._watchdog is not None:
            self._watchdog.cancel()
        self._owner.on_lost(self, reason)
        pending, self._pending = self._pending, deque()
        for callback, _ in pending:
            callback(Lost(reason))

    # The time of the oldest reply

    def _check_oldest(self) -> None:
        """The oldest command decides: replies come in order, so when it is in time, all are. Its budget begins anew
        with every reply to a command before it: a queue that moves owes nothing."""
        self._watchdog = None
        if not self._pending:
            return
        oldest, now = self._pending[0], self._loop.time()
        overdue_at = oldest[1] + self._timeout
        serving = self._state is RedisConnectionState.SERVING
        owing_at = max(oldest[1], self.read_at) + self._budget if serving else overdue_at
        if now >= overdue_at or now >= owing_at:
            # This loop may have been the late one: what lies in the socket is read before the judgement.
            self._watchdog = self._loop.call_later(READ_GRACE_SECONDS, self._judge, self._answered, now >= overdue_at)
        else:
            self._watchdog = self._loop.call_at(min(owing_at, overdue_at), self._check_oldest)

    def _judge(self, answered: int, overdue: bool) -> None:
        self._watchdog = None
        if self._pending and self._answered == answered:  # the oldest command is the same one
            if overdue:
                self.abort(f"Redis did not answer within {self._timeout * 1000:.0f} ms")
                return
            self._owe()
        self._check_oldest()
