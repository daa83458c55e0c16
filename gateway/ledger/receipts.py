"""The receipts of takes that were answered and are not written yet: what Redis may lose is remembered here.

A Redis that is flushed, or replaced by one in an older state, forgets charges of requests that were forwarded. When
it is asked, each worker reports its receipts, and the control plane puts back those that are nowhere else
(docs/decisions/0011). The hot path keeps the replies of each batch as they came. Those of the last seconds stay as they
are; older ones, which are there while PostgreSQL is away, are packed.

The writer says up to which time of Redis' everything is written. To compare with it, the link asks Redis for its time
now and then: what was answered before that reply is written when the writer has come to that time. No clock of this
machine is compared with one of Redis'.
"""

import zlib
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from time import monotonic
from typing import Any

from gateway.settings.intervals import DEFAULT_INTERVALS, Intervals
from quota.calls.take import find_receipt
from quota.events import UsageEvent

RECEIPTS_MAX = 1_000_000
PACKED_AT_ONCE = 1_000  # some milliseconds
NOT_FOUND_MAX = 10_000
REPORTED_AT_ONCE = 500


@dataclass(slots=True)
class _Packed:
    at: float
    """When the last of them was answered."""
    since: float
    """And the first."""
    takes: int
    units: int
    data: bytes
    """Receipts with LF between, compressed; empty: there was no room for them."""


class Receipts:
    """Times are monotonic seconds, those of Redis milliseconds since 1970."""

    def __init__(self, receipts_max: int = RECEIPTS_MAX, intervals: Intervals = DEFAULT_INTERVALS) -> None:
        self._receipts_max = receipts_max
        self._seconds, self._anew_ms = intervals.receipts_seconds, intervals.receipts_anew_ms
        self._batches: deque[tuple[float, list[Any]]] = deque()
        self._held = 0  # replies in them
        self._packed: deque[_Packed] = deque()
        self._packed_takes = 0
        self._dropped: deque[_Packed] = deque()
        self._given_back: deque[tuple[float, bytes]] = deque()
        self._not_found: deque[bytes] = deque(maxlen=NOT_FOUND_MAX)
        self._marks: deque[tuple[float, int]] = deque()
        self._heard: tuple[float, int] | None = None
        """When Redis told its time last, and that."""
        self._anew = False
        self._confirmed_at = float("-inf")
        """What was answered before is written."""
        self.confirms = False
        """Whether anybody has ever said how far the writer is."""

    def add(self, now: float, replies: list[Any]) -> None:
        """The replies of one script call, at `now`."""
        self._batches.append((now, replies))
        self._held += len(replies)

    def given_back(self, request_id: bytes) -> None:
        """Its charge is void, so it is not reported."""
        self._given_back.append((monotonic(), request_id))

    def not_found(self, request_id: bytes) -> None:
        """Its reply was lost, nothing was forwarded, and no event of it is in the Redis that is there now. Another one,
        which took it, may come back."""
        self._not_found.append(request_id)

    # What is written

    def heard(self, now: float, redis_ms: int) -> None:
        """At `now` came Redis' time; of several servers, that of one."""
        self._heard = now, redis_ms

    def mark(self, now: float, redis_ms: int, written_ms: int | None) -> None:
        """At `now` came Redis' time, and how far the writer is, where it says so."""
        if self._anew:
            self._anew, redis_ms, written_ms = False, redis_ms + self._anew_ms, None
        if written_ms is not None and written_ms <= redis_ms:  # else that clock went back since
            self.confirms = True
            while self._marks and self._marks[0][1] < written_ms:
                self._confirmed_at = self._marks.popleft()[0]
        if self._batches or self._packed:
            self._marks.append((now, redis_ms))

    def anew(self) -> None:
        """What was lost is put together: what is reported has other times in the stream from now on."""
        self._marks.clear()
        self._anew = True

    def unwritten_seconds(self, now: float) -> float:
        """For how long the oldest take waits that is not known to be written."""
        oldest = self._packed[0].since if self._packed else self._batches[0][0] if self._batches else now
        return now - max(oldest, min(self._confirmed_at, now))

    @property
    def held(self) -> bool:
        return bool(self._batches or self._packed or self._dropped)

    @property
    def full(self) -> bool:
        """Further ones would be forgotten before they are written."""
        return self._packed_takes + self._held >= self._receipts_max

    @property
    def lost(self) -> tuple[int, int]:
        """Takes and their units that are neither kept nor known to be written: so many a flush would lose."""
        return sum(each.takes for each in self._dropped), sum(each.units for each in self._dropped)

    def tidy(self, now: float) -> bool:
        """Drops what is written, packs what is old, and keeps to the bound; whether there is more to pack now."""
        until = now - self._seconds
        written = min(self._confirmed_at, until) if self.confirms else until
        while self._given_back and self._given_back[0][0] < written - self._seconds:
            self._given_back.popleft()
        while self._dropped and self._dropped[0].at <= written:
            self._dropped.popleft()
        while self._packed and self._packed[0].at <= written:
            self._packed_takes -= self._packed.popleft().takes
        batches = self._batches
        while batches and batches[0][0] <= written:
            self._held -= len(batches.popleft()[1])
        self._pack(until)
        while self._packed_takes > self._receipts_max:
            dropped = self._packed.popleft()
            self._packed_takes -= dropped.takes
            dropped.data = b""
            self._dropped.append(dropped)
        return bool(batches) and batches[0][0] < until

    def _pack(self, until: float) -> None:
        charged: list[tuple[bytes, UsageEvent]] = []
        batches, count, since, at = self._batches, 0, None, 0.0
        while batches and batches[0][0] < until and count < PACKED_AT_ONCE:
            at, replies = batches.popleft()
            since = at if since is None else since
            count += len(replies)
            charged += filter(None, map(find_receipt, replies))
        self._held -= count
        if charged and since is not None:
            units = sum(charge.units for _, event in charged for charge in event.charges)
            data = zlib.compress(b"\n".join(receipt for receipt, _ in charged), 1)
            self._packed.append(_Packed(at, since, len(charged), units, data))
            self._packed_takes += len(charged)

    # Reported

    def report(self) -> Iterator[bytes]:
        """In portions, with LF between: first `since <ms>`, by Redis' clock, before which none of its takes was
        answered; receipts, `void <request id>` of what was not found, and in the last one `kept <ms> <takes> <units>`:
        for how long, and what is kept no more and may not be written. Each portion is understood without the others,
        whenever it is read.

        All of it is what was known when the first portion was asked for. Each takes some milliseconds, and may be
        empty; in between, receipts may be added, packed and dropped."""
        void = {request_id for _, request_id in self._given_back}
        portion = [b"void %b" % request_id for request_id in self._not_found]
        oldest = self._packed[0].since if self._packed else self._batches[0][0] if self._batches else monotonic()
        since = [] if self._heard is None else [b"since %d" % (self._heard[1] - (self._heard[0] - oldest) * 1000)]
        lost, all_known = self.lost, self._all([packed.data for packed in self._packed], list(self._batches))
        for looked_at, receipt in enumerate(all_known, 1):
            if receipt is not None and receipt.split(b" ", 2)[1] not in void:
                portion.append(receipt)
            if looked_at % REPORTED_AT_ONCE == 0:
                yield b"\n".join(since + portion if portion else ())
                portion = []
        yield b"\n".join((*since, *portion, b"kept %d %d %d" % ((monotonic() - oldest) * 1000, *lost)))

    def _all(self, packed: list[bytes], batches: list[tuple[float, list[Any]]]) -> Iterator[bytes | None]:
        """None: a reply that is no receipt."""
        for data in packed:
            yield from zlib.decompress(data).split(b"\n")
        for _, replies in batches:
            for charge in map(find_receipt, replies):
                yield charge and charge[0]
