"""Receipts are kept until the writer has written their events, and reported to the control plane when it asks.

Where the settings set a bound on it, takes wait while the oldest receipt is unwritten for too long.
"""

import asyncio
import os
from collections.abc import Iterator, Mapping, Sequence
from time import monotonic
from typing import Any, Protocol

import structlog

from gateway.ledger.receipts import Receipts
from gateway.redis.connection import Connection, Lost
from gateway.redis.pauses import PausableLink, Pause
from gateway.redis.way import Generations
from gateway.settings.intervals import Intervals
from quota import keys
from quota.calls.encoded import command
from quota.recovery_message import RecoveryMessage

log = structlog.get_logger()

PACK_SECONDS = 0.05
ASKED_SECONDS = 5.0  # a recovery waits for no report longer


class Server(Protocol):
    """What is known of the server at the other end."""

    @property
    def vouched(self) -> bool: ...
    @property
    def epochs(self) -> Mapping[int, int]: ...
    def look_again(self, generations: Generations) -> None: ...


class Keeper(Protocol):
    """As a link has one, or all links of a Cluster together."""

    @property
    def worker(self) -> str:
        """Under which name it reports."""

    def start(self) -> None: ...
    def close(self) -> None: ...
    def report(self, asked: RecoveryMessage | None = None) -> None: ...


class LastAsked:
    """The recovery that asked last. What a report ends with on another connection, too: the one before may have led to
    a server that is no longer in front, or may have broken."""

    __slots__ = ("_at", "_message", "worker")

    def __init__(self) -> None:
        self.worker = os.urandom(8).hex()
        self._message: RecoveryMessage | None = None
        self._at = 0.0  # monotonic

    def end_of(self, asked: RecoveryMessage | None) -> str | None:
        """How a report ends that `asked`, or nobody, asks for."""
        if asked is not None and not asked.over:
            return asked.end(self.worker)  # twice would be counted twice
        if asked is not None:
            self._message, self._at = asked, monotonic()
        last = self._message if monotonic() - self._at < ASKED_SECONDS else None
        return None if last is None else last.end(self.worker)


class WriterWatch:
    """Looks now and then how far the writer is. Takes wait while it is too far behind."""

    __slots__ = ("_intervals", "_loop", "_timer", "receipts", "unwritten_seconds_max")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        receipts: Receipts,
        unwritten_seconds_max: float | None,
        intervals: Intervals,
    ) -> None:
        self._loop = loop
        self._intervals = intervals
        self._timer: asyncio.TimerHandle | None = None
        self.receipts = receipts
        self.unwritten_seconds_max = unwritten_seconds_max
        """Takes wait while a take that was answered so long ago is not written; None: they go on."""
        receipts.confirms = unwritten_seconds_max is not None

    @property
    def links(self) -> Sequence[PausableLink]:
        """Whose takes wait."""
        raise NotImplementedError

    def ask(self, now: float) -> None:
        """Asks how far the writer is. `now`: monotonic seconds."""
        raise NotImplementedError

    def start(self) -> None:
        self._timer = self._loop.call_later(self._intervals.receipts_look_seconds, self._look)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def on_written(self, now: float, redis_ms: int, written_ms: int | None) -> None:
        """The answer, as `Receipts.mark` takes it."""
        self.receipts.mark(now, redis_ms, written_ms)
        self._pause_while_unwritten()

    def _look(self) -> None:
        """Looks how far the writer is, and keeps what may have to be reported."""
        now = monotonic()
        more = self.receipts.tidy(now)
        self._pause_while_unwritten()
        if not more and self.receipts.held:
            self.ask(now)
        seconds = PACK_SECONDS if more else self._intervals.receipts_look_seconds
        self._timer = self._loop.call_later(seconds, self._look)

    def _pause_while_unwritten(self) -> None:
        if self.unwritten_seconds_max is None:
            return
        late = self.receipts.full or self.receipts.unwritten_seconds(monotonic()) > self.unwritten_seconds_max
        links = [link for link in self.links if late != (Pause.UNWRITTEN in link.pauses)]
        for link in links:
            if late:
                link.pause(Pause.UNWRITTEN, Pause.UNWRITTEN.value)
            else:
                link.resume(Pause.UNWRITTEN)
        if links and late:
            log.error("takes wait until what was charged is written", seconds=self.unwritten_seconds_max)
        elif any(link.connection is not None for link in links):
            log.info("what was charged is written")


class ReceiptsKeeper(WriterWatch):
    """That of one server."""

    __slots__ = ("_ask_written", "_asked", "_link", "_server", "_shards")

    def __init__(
        self,
        link: PausableLink,
        loop: asyncio.AbstractEventLoop,
        shards: int,
        receipts: Receipts,
        server: Server,
        unwritten_seconds_max: float | None,
        intervals: Intervals,
    ) -> None:
        super().__init__(loop, receipts, unwritten_seconds_max, intervals)
        self._link = link
        self._asked = LastAsked()
        self._shards = shards
        self._server = server
        self._ask_written = (
            command("TIME"),
            command("HMGET", keys.WRITTEN, *range(shards)),
            command("MGET", *[keys.generation_key(shard) for shard in range(shards)]),
        )

    @property
    def worker(self) -> str:
        return self._asked.worker

    @property
    def links(self) -> Sequence[PausableLink]:
        return (self._link,)

    # Until they are written

    def ask(self, now: float) -> None:
        connection = self._link.connection
        if connection is None or not self._server.vouched:
            return
        replies: list[Any] = []
        *others, last = self._ask_written
        for question in others:
            connection.send(question, replies.append)
        connection.send(last, lambda reply: self._on_replies(connection, [*replies, reply]))

    def _on_replies(self, connection: Connection, replies: list[Any]) -> None:
        if connection is not self._link.connection or not self._server.vouched:
            return
        if any(isinstance(reply, Lost) for reply in replies):
            return
        time, written, generations = replies
        self._server.look_again(dict(enumerate(generations)))
        if not self._server.vouched:
            return
        now, redis_ms = monotonic(), time_of(time)
        self.receipts.heard(now, redis_ms)
        written_ms = written_of(dict(enumerate(written)), self._server.epochs)
        self.on_written(now, redis_ms, min(written_ms) if len(written_ms) == self._shards else None)

    # Reported

    def report(self, asked: RecoveryMessage | None = None) -> None:
        """Reports to the control plane which takes were answered lately; `asked` is what it asked with. A portion in
        each turn of the loop: a million takes hold up no request."""
        end = self._asked.end_of(asked)  # also without a connection: the next one reports
        if (connection := self._link.connection) is not None:
            self._report_on(connection, self.receipts.report(), end)

    def _report_on(self, connection: Connection, portions: Iterator[bytes], end: str | None) -> None:
        if connection is not self._link.connection:
            return  # no `end`: portions that were on their way may be lost, and the next connection reports anew
        portion = next(portions, None)
        if portion is not None:
            if portion:
                connection.send(report_command(portion), ignore)
            self._loop.call_soon(self._report_on, connection, portions, end)
        elif end is not None:
            connection.send(report_command(end), ignore)


def time_of(reply: Any) -> int:
    """Milliseconds, by the reply to TIME."""
    seconds, microseconds = reply
    return int(seconds) * 1000 + int(microseconds) // 1000


def written_of(told: Mapping[int, bytes | None], epochs: Mapping[int, int]) -> list[int]:
    """How far shards are written, in milliseconds of their server's clock, by what is told of each. Without those that
    tell of another epoch: from a writer that reads another server, or about what is put together since."""
    return [
        int(text.split()[1])
        for shard, text in told.items()
        if text is not None and text.startswith(b"%d " % epochs.get(shard, 0))
    ]


def report_command(lines: bytes | str) -> bytes:
    """A portion of a report, or its end."""
    return command("RPUSH", keys.RECEIPTS, lines)


def ignore(reply: Any) -> None:
    """What does not arrive is reported again when it is asked for, or with the next connection."""
