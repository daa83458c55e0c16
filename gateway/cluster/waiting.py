"""Takes and reads of one shard while no server may take them: it moves, or is not vouched for where it has come to."""

import asyncio
from collections.abc import Callable

from gateway.ledger.takes import Read, Take, TakeWaiter
from gateway.ledger.unsent import Parked
from gateway.redis.connection import Callback, Lost
from quota.calls.encoded import BOOKS_KEYS


class WaitingShard:
    """It stands where the shard's link is otherwise. They wait until so long after the first of them; later ones are
    answered at once."""

    __slots__ = ("_begun", "_parked", "_seconds", "reason")

    def __init__(self, loop: asyncio.AbstractEventLoop, seconds: float, begun: Callable[[], None]) -> None:
        self._seconds = seconds
        self._begun = begun
        self._parked = Parked(loop, lambda: self.reason)
        self.reason = "no server of the cluster is known that holds the shard"

    @property
    def accepts(self) -> bool:
        return False

    @property
    def corrects(self) -> bool:
        return False

    def begin(self, reason: str) -> None:
        """Nobody holds the shard from now on, for all that is known."""
        self.reason = reason
        self._parked.begin(self._seconds)
        self._begun()

    def take(
        self, keys_bulk: bytes, argv_bulk: bytes, argv_count: int, waiter: TakeWaiter, key_count: int = BOOKS_KEYS
    ) -> None:
        self.accept((keys_bulk, argv_bulk, argv_count, waiter, key_count))

    def accept(self, take: Take) -> None:
        if self._parked.is_open:
            self._parked.takes.append(take)
        else:
            take[3].on_take_lost(Lost(self.reason, applied=False))

    def read(self, data: bytes, reply_count: int, callback: Callback) -> None:
        if self._parked.is_open:
            self._parked.reads.append((data, reply_count, callback))
        else:
            callback(Lost(self.reason, applied=False))

    def release(self) -> list[Take]:
        return self._parked.release()

    def release_reads(self) -> list[Read]:
        return self._parked.release_reads()

    def expire(self) -> None:
        self._parked.expire()
