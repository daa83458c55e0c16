"""Receipts of takes of all servers of a Cluster, kept until the writer has written their events.

Each server has its own clock, and so have the ids of its events. How far the writer is behind is told by each server's
own clock; what is remembered here goes by the greatest of these delays, counted back from now.
"""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from time import monotonic
from typing import Any, Protocol

import structlog

from gateway.ledger.receipts import Receipts
from gateway.ledger.receipts_keeper import PACK_SECONDS
from gateway.redis.connection import Callback, Lost
from gateway.redis.pauses import Pause
from gateway.settings.intervals import Intervals
from quota import keys
from quota.calls.encoded import command

log = structlog.get_logger()


class Links(Protocol):
    @property
    def nodes(self) -> Sequence[Any]: ...
    @property
    def node_ways(self) -> Mapping[Any, Any]: ...
    def call(self, data: bytes, callback: Callback) -> None: ...


class ClusterReceiptsKeeper:
    __slots__ = ("_intervals", "_links", "_loop", "_receipts", "_timer", "unwritten_seconds_max")

    def __init__(
        self,
        links: Links,
        loop: asyncio.AbstractEventLoop,
        receipts: Receipts,
        unwritten_seconds_max: float | None,
        intervals: Intervals,
    ) -> None:
        self._links = links
        self._loop = loop
        self._receipts = receipts
        self._intervals = intervals
        self.unwritten_seconds_max = unwritten_seconds_max
        """Takes wait while a take that was answered so long ago is not written; None: they go on."""
        receipts.confirms = unwritten_seconds_max is not None
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        self._timer = self._loop.call_later(self._intervals.receipts_look_seconds, self._look)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    # How far the writer is

    def _look(self) -> None:
        now = monotonic()
        more = self._receipts.tidy(now)
        if self._receipts.held and not more:
            self._ask(now)
        self._pause_while_unwritten(now)
        seconds = PACK_SECONDS if more else self._intervals.receipts_look_seconds
        self._timer = self._loop.call_later(seconds, self._look)

    def _ask(self, now: float) -> None:
        links = [link for link in self._links.nodes if self._links.node_ways[link].shards]
        delays: list[int | None] = []

        def on_delay(delay_ms: int | None) -> None:
            delays.append(delay_ms)
            if len(delays) == len(links):
                known = [each for each in delays if each is not None]
                now_ms = int(now * 1000)
                self._receipts.mark(now, now_ms, now_ms - max(known) if len(known) == len(links) and known else None)

        for link in links:
            if link.connection is None or not link.server.vouched:
                on_delay(None)
            else:
                self._ask_one(link, list(self._links.node_ways[link].shards), on_delay)

    def _ask_one(self, link: Any, shards: Sequence[int], on_delay: Any) -> None:
        connection = link.connection
        asked = [command("TIME")]
        for shard in shards:
            asked += [command("GET", keys.written_key(shard)), command("GET", keys.generation_key(shard))]

        def on_replies(replies: Any) -> None:
            if isinstance(replies, Lost) or connection is not link.connection or not link.server.vouched:
                on_delay(None)
                return
            (seconds, microseconds), *held = replies
            link.server.look_again(dict(zip(shards, held[1::2], strict=True)))
            if not link.server.vouched:
                on_delay(None)
                return
            redis_ms = int(seconds) * 1000 + int(microseconds) // 1000
            delays = [
                redis_ms - int(text.split()[1])
                for shard, text in zip(shards, held[::2], strict=True)
                if text is not None and text.startswith(b"%d " % link.server.epochs.get(shard, 0))
            ]
            on_delay(max(delays) if len(delays) == len(shards) else None)

        connection.send_several(b"".join(asked), len(asked), on_replies)

    def _pause_while_unwritten(self, now: float) -> None:
        if self.unwritten_seconds_max is None:
            return
        late = self._receipts.full or self._receipts.unwritten_seconds(now) > self.unwritten_seconds_max
        for link in self._links.nodes:
            if late == (Pause.UNWRITTEN in link.pauses):
                continue
            if late:
                link.pause(Pause.UNWRITTEN, Pause.UNWRITTEN.value)
                log.error("takes wait until what was charged is written", seconds=self.unwritten_seconds_max)
            else:
                link.resume(Pause.UNWRITTEN)

    # Reported

    def report(self, message: str | None = None) -> None:
        """Reports to the control plane which takes were answered lately; `message` is what it asked with."""
        self._report(self._receipts.report(), message)

    def _report(self, portions: Iterator[bytes], message: str | None) -> None:
        portion = next(portions, None)
        if portion is not None:
            if portion:
                self._links.call(command("RPUSH", keys.RECEIPTS, portion), _ignore)
            self._loop.call_soon(self._report, portions, message)
        elif message is not None:
            self._links.call(command("RPUSH", keys.RECEIPTS, f"end {message}"), _ignore)


class SharedKeeper:
    """The same as each of the links has it: it lives as long as they all do."""

    __slots__ = ("_keeper", "unwritten_seconds_max")

    def __init__(self, keeper: ClusterReceiptsKeeper) -> None:
        self._keeper = keeper
        self.unwritten_seconds_max = keeper.unwritten_seconds_max

    def start(self) -> None:
        """It is started once, for all of them."""

    def close(self) -> None:
        """It ends with the last one."""

    def report(self, nonce: str | None = None) -> None:
        self._keeper.report(nonce)


def _ignore(reply: Any) -> None:
    """What does not arrive is reported again when it is asked for, or with the next connection."""
