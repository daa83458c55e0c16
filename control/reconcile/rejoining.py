"""Gateways come to the server that is in front now. Nobody vouches for it while one of them may still take at another.

A worker that is asked through the next server, and has told there all that it knows, is connected to that server, and
has put aside what the one before says of itself (quota/recovery_message.py). Where as many have done so as listened
before, there is nobody to wait for. Else all have REJOIN_SECONDS, in which each leaves the server before that reaches
its Sentinels, or the other servers of its Cluster.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

import structlog
from redis.exceptions import RedisError

from control.ledger.nodes import Nodes
from quota import keys
from quota.ledger import LedgerError

log = structlog.get_logger()

REJOIN_SECONDS: Final = 1.0
COUNT_SECONDS: Final = 1.0
"""Between two looks at how many listen."""
REMEMBERED_SECONDS: Final = 60.0
"""A worker that does not listen just now may still take."""
POLL_SECONDS: Final = 0.02


class Rejoining:
    def __init__(self, nodes: Nodes) -> None:
        self._nodes = nodes
        self._counts: deque[tuple[float, int]] = deque()  # loop times, and how many listened then

    async def run(self, is_well: Callable[[], bool]) -> None:
        """Counts who listens, while all servers are vouched for; until it is cancelled. No look waits for it."""
        while True:
            if is_well():
                await self.count()
            await asyncio.sleep(COUNT_SECONDS)

    def known(self) -> int | None:
        """How many workers there were, at most, a while ago; None: nobody knows."""
        since = asyncio.get_running_loop().time() - REMEMBERED_SECONDS
        while self._counts and self._counts[0][0] < since:
            self._counts.popleft()
        return max((count for _, count in self._counts), default=None)

    async def count(self) -> None:
        """Counts who listens now."""
        if (count := await self._listeners()) is not None:
            self._counts.append((asyncio.get_running_loop().time(), count))

    async def wait(self, since: float) -> None:
        """Until as many listen as before, but no longer than there is time from `since` (loop time)."""
        loop, known = asyncio.get_running_loop(), self.known()
        while (left := since + REJOIN_SECONDS - loop.time()) > 0:
            if known is not None and (await self._listeners() or 0) >= known:
                return
            await asyncio.sleep(min(left, POLL_SECONDS if known is not None else left))

    async def wait_for_others(self, since: float, told: int) -> None:
        """So many have told all that they know. If others may be elsewhere, they are given the time that is left."""
        known = self.known()
        if known is None or told < known:
            await asyncio.sleep(max(0.0, since + REJOIN_SECONDS - asyncio.get_running_loop().time()))

    async def _listeners(self) -> int | None:
        try:
            return await self._nodes.listeners(keys.RECOVER)
        except (RedisError, LedgerError) as e:
            log.debug("redis does not tell how many listen", reason=str(e))
            return None
