"""How long takes took, for the analytics: what a worker has counted goes to Redis once a minute.

Nothing is measured for it: it is the histogram that is scraped, too. A worker without a take sends nothing.
"""

import asyncio
from collections.abc import Callable, Sequence
from time import time
from typing import Any, Final, Protocol

from quota import keys
from quota.calls.encoded import command
from quota.check_times import BUCKETS, ENTRIES_MAX, FIELD, CheckTimes, encode

_TRIMMED: Final = ("MAXLEN", "~", str(ENTRIES_MAX))


class Sender(Protocol):
    """The link to Redis."""

    def call(self, data: bytes, callback: Callable[[Any], None], /) -> None: ...


class CheckTimesLog:
    """Of one worker."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, sender: Sender, histogram: Sequence[int], seconds: float
    ) -> None:
        """`histogram`: of all takes since the start, by the bit length of their microseconds."""
        self._loop = loop
        self._sender = sender
        self._histogram = histogram
        self._seconds = seconds
        self._sent = [0] * BUCKETS
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        self._timer = self._loop.call_later(self._seconds, self._on_time)

    def _on_time(self) -> None:
        self.start()
        self.flush()

    def flush(self) -> None:
        """Sends what was counted since the last time. What Redis does not take goes with the next."""
        counts = {
            bucket: number - self._sent[bucket]
            for bucket, number in enumerate(self._histogram[:BUCKETS])
            if number > self._sent[bucket]
        }
        if not counts:
            return
        for bucket, number in counts.items():
            self._sent[bucket] += number

        def on_reply(reply: Any) -> None:
            if isinstance(reply, Exception):
                for bucket, number in counts.items():
                    self._sent[bucket] -= number

        minute = int((time() - self._seconds / 2) // 60)  # in which most of it was counted
        text = encode(CheckTimes(minute, counts))
        self._sender.call(command("XADD", keys.CHECK_TIMES, *_TRIMMED, "*", FIELD, text), on_reply)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self.flush()
