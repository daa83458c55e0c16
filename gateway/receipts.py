"""The takes of the last seconds, as this worker was answered them: what Redis may lose is remembered here.

A Redis that is flushed, or restarted from an older state, forgets charges of requests that were forwarded. Asked for
it, each worker tells its receipts, and the control plane puts back those that are nowhere else (docs/decisions/0011).
The hot path keeps the replies of each batch as they came; what they say is read only then.
"""

from collections import deque
from collections.abc import Iterator
from time import monotonic
from typing import Any

from quota.events import EventMalformed, parse

SECONDS = 10.0  # the writer is behind by less than that, or it is told that events may be lost
BATCHES_MAX = 65_536
NOT_FOUND_MAX = 10_000
METERS_MAX = 64  # of one request
TOLD_AT_ONCE = 500

_REPLY_BYTES, _BALANCE_BYTES = 34, 24  # lua/README.md
_ADMITTED = (1, 8)


class Receipts:
    def __init__(self) -> None:
        self._batches: deque[tuple[float, list[Any]]] = deque(maxlen=BATCHES_MAX)
        self._given_back: deque[tuple[float, bytes]] = deque(maxlen=BATCHES_MAX)
        self._not_found: deque[bytes] = deque(maxlen=NOT_FOUND_MAX)

    def add(self, now: float, replies: list[Any]) -> None:
        """The replies of one script call, at `now`, monotonic seconds."""
        batches = self._batches
        batches.append((now, replies))
        while batches[0][0] < now - SECONDS:
            batches.popleft()

    def given_back(self, request_id: bytes) -> None:
        """Its charge is void, so it is not told."""
        self._given_back.append((monotonic(), request_id))

    def not_found(self, request_id: bytes) -> None:
        """Its reply was lost, nothing was forwarded, and no event of it is in the Redis that is there now. Another one,
        which took it, may come back."""
        self._not_found.append(request_id)

    def told(self) -> Iterator[bytes]:
        """Receipts, and `void <request id>` of what was not found, with LF between, in portions."""
        since = monotonic() - SECONDS
        void = {request_id for at, request_id in self._given_back if at >= since}
        portion = [b"void %b" % request_id for request_id in self._not_found]
        for at, replies in list(self._batches):
            if at < since:
                continue
            for reply in replies:
                receipt = _receipt_of(reply)
                if receipt is not None and receipt.split(b" ", 2)[1] not in void:
                    portion.append(receipt)
            if len(portion) >= TOLD_AT_ONCE:
                yield b"\n".join(portion)
                portion = []
        if portion:
            yield b"\n".join(portion)


def _receipt_of(reply: Any) -> bytes | None:
    """What follows the balances, of which there is one for each meter; how many they are, the request knew."""
    if type(reply) is not bytes or reply[0] not in _ADMITTED:
        return None
    for meters in range(1, METERS_MAX + 1):
        at = _REPLY_BYTES + meters * _BALANCE_BYTES
        if reply.startswith(b"t ", at):
            try:
                if len(parse(reply[at:].decode("ascii")).charges) == meters:
                    return reply[at:]
            except (EventMalformed, UnicodeDecodeError):
                continue
    return None
