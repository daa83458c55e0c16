"""Takes of one shard while no server may take them: it moves, or is not vouched for where it has come to."""

import asyncio
from collections.abc import Callable

from gateway.ledger.takes import APART_SECONDS, TIMER_SECONDS, Take, TakeWaiter
from gateway.redis.connection import Connection, Lost
from quota.calls.encoded import BOOKS_KEYS


class WaitingShard:
    """It stands where the shard's link is otherwise. Takes wait until so long after the first of them; later ones are
    answered at once."""

    __slots__ = ("_begun", "_loop", "_seconds", "_until", "reason", "takes")

    def __init__(self, loop: asyncio.AbstractEventLoop, seconds: float, begun: Callable[[], None]) -> None:
        self._loop = loop
        self._seconds = seconds
        self._begun = begun
        self._until = float("-inf")  # loop time
        self.reason = "no server of the cluster is known that holds the shard"
        self.takes: list[Take] = []

    @property
    def accepts(self) -> bool:
        return False

    @property
    def connection(self) -> Connection | None:
        return None

    def begin(self, reason: str) -> None:
        """Nobody holds the shard from now on, for all that is known."""
        now, self.reason = self._loop.time(), reason
        if now >= self._until + APART_SECONDS:  # else the same move goes on
            self._until = now + self._seconds
            self._loop.call_at(self._until + TIMER_SECONDS, self.expire)
        self._begun()

    def take(
        self, keys_bulk: bytes, argv_bulk: bytes, argv_count: int, waiter: TakeWaiter, key_count: int = BOOKS_KEYS
    ) -> None:
        self.accept((keys_bulk, argv_bulk, argv_count, waiter, key_count))

    def accept(self, take: Take) -> None:
        if self._loop.time() < self._until:
            self.takes.append(take)
        else:
            take[3].on_take_lost(Lost(self.reason, applied=False))

    def release(self) -> list[Take]:
        takes, self.takes = self.takes, []
        return takes

    def expire(self) -> None:
        for take in self.release():
            take[3].on_take_lost(Lost(self.reason, applied=False))
