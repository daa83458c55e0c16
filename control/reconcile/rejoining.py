"""Gateways come to the server that is in front now. Nobody vouches for it while one of them may still take at another.

A worker that is asked through the next server, and has told there all that it knows, is connected to that server, and
has put aside what the one before says of itself (quota/recovery_message.py). Where each worker that listened before has
done so, there is nobody to wait for. Else all have REJOIN_SECONDS, in which each leaves the server before that reaches
its Sentinels, or the other servers of its Cluster.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Collection
from typing import Final

import structlog
from redis.exceptions import RedisError

from control.ledger.nodes import Nodes
from quota import keys
from quota.ledger import LedgerError

log = structlog.get_logger()

REJOIN_SECONDS: Final = 1.0
LOOK_SECONDS: Final = 1.0
"""Between two looks at who listens."""
LOOKS: Final = 10
"""So many are remembered: a worker that does not listen just now may still take."""
POLL_SECONDS: Final = 0.02


class Rejoining:
    def __init__(self, nodes: Nodes) -> None:
        self._nodes = nodes
        self._seen: deque[frozenset[str] | None] = deque(maxlen=LOOKS)

    @property
    def known(self) -> frozenset[str] | None:
        """The workers that there were before; None: nobody knows all of them."""
        if not self._seen or self._seen[-1] is None:
            return None
        return frozenset().union(*filter(None, self._seen))

    async def run(self, is_well: Callable[[], bool]) -> None:
        """Looks who listens, while all servers are vouched for; until it is cancelled. No other look waits for it."""
        while True:
            if is_well():
                await self.look()
            await asyncio.sleep(LOOK_SECONDS)

    async def look(self) -> None:
        """Looks who listens now."""
        try:
            listening, workers = await self._nodes.listeners(keys.RECOVER), await self._listening()
        except (RedisError, LedgerError) as e:
            log.debug("redis does not tell who listens", reason=str(e))
        else:
            # Those of the release before listen, and do not say who they are.
            self._seen.append(workers if listening <= len(workers) else None)

    async def wait(self, since: float) -> None:
        """Until all listen that did before, but no longer than there is time from `since` (loop time)."""
        loop, known = asyncio.get_running_loop(), self.known
        while (left := since + REJOIN_SECONDS - loop.time()) > 0:
            if known is not None and await self._are_there(known):
                return
            await asyncio.sleep(min(left, POLL_SECONDS if known is not None else left))

    async def wait_for_others(self, since: float, told: Collection[str]) -> None:
        """These have told all that they know. If others may be elsewhere, they are given the time that is left."""
        known = self.known
        if known is None or not known.issubset(told):
            await asyncio.sleep(max(0.0, since + REJOIN_SECONDS - asyncio.get_running_loop().time()))

    async def _are_there(self, known: frozenset[str]) -> bool:
        try:
            return known <= await self._listening()
        except (RedisError, LedgerError):
            return False

    async def _listening(self) -> frozenset[str]:
        return frozenset(each.removeprefix(keys.WORKERS) for each in await self._nodes.channels(keys.WORKERS))
