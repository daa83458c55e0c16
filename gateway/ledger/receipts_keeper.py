"""Receipts are kept until the writer has written their events, and reported to the control plane when it asks.

Where the settings set a bound on it, takes wait while the oldest receipt is unwritten for too long.
"""

import asyncio
from collections.abc import Iterator, Mapping
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

log = structlog.get_logger()

PACK_SECONDS = 0.05


class Server(Protocol):
    """What is known of the server at the other end."""

    @property
    def vouched(self) -> bool: ...
    @property
    def epochs(self) -> Mapping[int, int]: ...
    def look_again(self, generations: Generations) -> None: ...


class Keeper(Protocol):
    """As a link has one, or all links of a Cluster together."""

    unwritten_seconds_max: float | None

    def start(self) -> None: ...
    def close(self) -> None: ...
    def report(self, nonce: str | None = None) -> None: ...


class ReceiptsKeeper:
    __slots__ = (
        "_ask_written",
        "_intervals",
        "_link",
        "_loop",
        "_receipts",
        "_server",
        "_shards",
        "_timer",
        "unwritten_seconds_max",
    )

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
        self._link = link
        self._loop = loop
        self._shards = shards
        self._receipts = receipts
        self._server = server
        self._intervals = intervals
        self.unwritten_seconds_max = unwritten_seconds_max
        """Takes wait while a take that was answered so long ago is not written; None: they go on."""
        receipts.confirms = unwritten_seconds_max is not None
        self._ask_written = (
            command("TIME"),
            command("HMGET", keys.WRITTEN, *range(shards)),
            command("MGET", *[keys.generation_key(shard) for shard in range(shards)]),
        )
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        self._timer = self._loop.call_later(self._intervals.receipts_look_seconds, self._look)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    # Until they are written

    def _look(self) -> None:
        """Looks how far the writer is, and keeps what may have to be reported."""
        now = monotonic()
        more = self._receipts.tidy(now)
        self._pause_while_unwritten(now)
        connection = self._link.connection
        if not more and connection is not None and self._server.vouched and self._receipts.held:
            self._ask(connection)
        seconds = PACK_SECONDS if more else self._intervals.receipts_look_seconds
        self._timer = self._loop.call_later(seconds, self._look)

    def _ask(self, connection: Connection) -> None:
        replies: list[Any] = []
        *others, last = self._ask_written
        for question in others:
            connection.send(question, replies.append)
        connection.send(last, lambda reply: self._on_written(connection, [*replies, reply]))

    def _on_written(self, connection: Connection, replies: list[Any]) -> None:
        if connection is not self._link.connection or not self._server.vouched:
            return
        if any(isinstance(reply, Lost) for reply in replies):
            return
        time, written, generations = replies
        self._server.look_again(dict(enumerate(generations)))
        if not self._server.vouched:
            return
        # Of another epoch: from a writer that reads another server, or about what is put together since.
        epochs = self._server.epochs
        written_ms = [
            int(each.split()[1])
            for shard, each in enumerate(written)
            if each is not None and each.startswith(b"%d " % epochs.get(shard, 0))
        ]
        redis_ms = int(time[0]) * 1000 + int(time[1]) // 1000
        now = monotonic()
        self._receipts.mark(now, redis_ms, min(written_ms) if len(written_ms) == self._shards else None)
        self._pause_while_unwritten(now)

    def _pause_while_unwritten(self, now: float) -> None:
        if self.unwritten_seconds_max is None:
            return
        late = self._receipts.full or self._receipts.unwritten_seconds(now) > self.unwritten_seconds_max
        if late == (Pause.UNWRITTEN in self._link.pauses):
            return
        if late:
            self._link.pause(Pause.UNWRITTEN, Pause.UNWRITTEN.value)
            log.error("takes wait until what was charged is written", seconds=self.unwritten_seconds_max)
        else:
            self._link.resume(Pause.UNWRITTEN)
            if self._link.connection is not None:
                log.info("what was charged is written")

    # Reported

    def report(self, nonce: str | None = None) -> None:
        """Reports to the control plane which takes were answered lately; `nonce` is what it asked with. A portion in
        each turn of the loop: a million takes hold up no request."""
        if (connection := self._link.connection) is not None:
            self._report_on(connection, self._receipts.report(), nonce)

    def _report_on(self, connection: Connection, portions: Iterator[bytes], nonce: str | None) -> None:
        if connection is not self._link.connection:
            return  # no `end`: portions that were on their way may be lost, and the next connection reports anew
        portion = next(portions, None)
        if portion is not None:
            if portion:
                connection.send(command("RPUSH", keys.RECEIPTS, portion), _ignore)
            self._loop.call_soon(self._report_on, connection, portions, nonce)
        elif nonce is not None:
            connection.send(command("RPUSH", keys.RECEIPTS, f"end {nonce}"), _ignore)


def _ignore(reply: Any) -> None:
    """What does not arrive is reported again when it is asked for, or with the next connection."""
