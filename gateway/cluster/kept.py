"""Receipts of takes of all servers of a Cluster, kept until the writer has written their events.

Each server has its own clock, and so have the ids of its events. How far the writer is behind is told by each server's
own clock; what is remembered here goes by the greatest of these delays, counted back from now.
"""

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from time import monotonic
from typing import Any, Protocol

from gateway.ledger.receipts import Receipts
from gateway.ledger.receipts_keeper import LastAsked, WriterWatch, ignore, report_command, time_of, written_of
from gateway.redis.connection import Callback, Lost
from gateway.settings.intervals import Intervals
from quota import keys
from quota.calls.encoded import command
from quota.recovery_message import RecoveryMessage


class Links(Protocol):
    @property
    def nodes(self) -> Sequence[Any]: ...
    @property
    def node_ways(self) -> Mapping[Any, Any]: ...
    def call(self, data: bytes, callback: Callback) -> None: ...


class ClusterReceiptsKeeper(WriterWatch):
    __slots__ = ("_asked", "_links", "_shards")

    def __init__(
        self,
        links: Links,
        loop: asyncio.AbstractEventLoop,
        shards: int,
        receipts: Receipts,
        unwritten_seconds_max: float | None,
        intervals: Intervals,
    ) -> None:
        super().__init__(loop, receipts, unwritten_seconds_max, intervals)
        self._links = links
        self._asked = LastAsked()
        self._shards = shards

    @property
    def worker(self) -> str:
        return self._asked.worker

    @property
    def links(self) -> Sequence[Any]:
        return self._links.nodes

    # How far the writer is

    def ask(self, now: float) -> None:
        asked = {link: list(shards) for link in self.links if (shards := self._links.node_ways[link].shards)}
        if sum(map(len, asked.values())) < self._shards:
            return  # takes of a shard that waits may be lost, however far the writer is with the others
        delays: list[int | None] = []

        def on_delay(delay_ms: int | None) -> None:
            delays.append(delay_ms)
            if len(delays) == len(asked):
                known = [each for each in delays if each is not None]
                now_ms = int(now * 1000)
                self.on_written(now, now_ms, now_ms - max(known) if len(known) == len(asked) else None)

        for link, shards in asked.items():
            if link.connection is None or not link.server.vouched:
                on_delay(None)
            else:
                self._ask_one(link, shards, on_delay)

    def _ask_one(self, link: Any, shards: Sequence[int], on_delay: Callable[[int | None], None]) -> None:
        connection = link.connection
        asked = [command("TIME")]
        for shard in shards:
            asked += [command("GET", keys.written_key(shard)), command("GET", keys.generation_key(shard))]

        def on_replies(replies: Any) -> None:
            if isinstance(replies, Lost) or connection is not link.connection or not link.server.vouched:
                on_delay(None)
                return
            time, *held = replies
            link.server.look_again(dict(zip(shards, held[1::2], strict=True)))
            if not link.server.vouched:
                on_delay(None)
                return
            redis_ms = time_of(time)
            self.receipts.heard(monotonic(), redis_ms)
            written_ms = written_of(dict(zip(shards, held[::2], strict=True)), link.server.epochs)
            delays = [redis_ms - each for each in written_ms]
            # Before the writer's time: that server's clock went back since.
            on_delay(max(delays) if len(delays) == len(shards) and min(delays) >= 0 else None)

        connection.send_several(b"".join(asked), len(asked), on_replies)

    # Reported

    def report(self, asked: RecoveryMessage | None = None) -> None:
        """Reports to the control plane which takes were answered lately; `asked` is what it asked with."""
        self._report(self.receipts.report(), self._asked.end_of(asked))

    def _report(self, portions: Iterator[bytes], end: str | None) -> None:
        def on_reply(reply: Any) -> None:
            if not isinstance(reply, Lost):  # else no `end`: this gateway has not told all that it knows
                self._loop.call_soon(self._report, portions, end)

        portion = next(portions, None)
        if portion:
            self._links.call(report_command(portion), on_reply)
        elif portion is not None:
            self._loop.call_soon(self._report, portions, end)
        elif end is not None:
            self._links.call(report_command(end), ignore)


class SharedKeeper:
    """The same as each of the links has it: it lives as long as they all do."""

    __slots__ = ("_keeper",)

    def __init__(self, keeper: ClusterReceiptsKeeper) -> None:
        self._keeper = keeper

    @property
    def worker(self) -> str:
        return self._keeper.worker

    def start(self) -> None:
        """It is started once, for all of them."""

    def close(self) -> None:
        """It ends with the last one."""

    def report(self, asked: RecoveryMessage | None = None) -> None:
        self._keeper.report(asked)
