"""Clients of a ledger without the gateway around it: each takes again as soon as it was answered."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from itertools import count
from time import perf_counter

from gateway.link import Link, Lost, bulk
from quota import keys

ADMITTED = 1
LOST_PAUSE_SECONDS = 0.005  # before the next attempt of one that got no answer
METER = "api_calls"


class Takers:
    """So many clients of one link. They go round the organizations, a unit each, until `stop`, or until a refusal."""

    def __init__(self, link: Link, orgs: Sequence[str], clients: int, shards: int = keys.SHARDS_DEFAULT) -> None:
        self.link = link
        self._words = [bulk(keys.org_key(org, shards), keys.events_key(keys.shard_of(org, shards))) for org in orgs]
        self._tails = [bulk(org, 1, METER, 1) for org in orgs]
        self._numbers = count()
        self.clients = [_Taker(self) for _ in range(clients)]
        self.admitted: list[str] = []
        """Request ids, in the order of their answers."""
        self.lost: Counter[str] = Counter()
        """By reason."""
        self.refused = 0
        self.seconds: list[float] = []
        """Of each admitted take."""
        self._stopping = False
        self._busy = 0
        self._done = asyncio.Event()

    def start(self) -> None:
        self._busy = len(self.clients)
        for client in self.clients:
            client.take()

    async def stop(self) -> None:
        """Returns when each client has its last answer."""
        self._stopping = True
        await self._done.wait()

    async def finish(self) -> None:
        """Returns when each client was refused."""
        await self._done.wait()

    def next(self, client: "_Taker") -> None:
        if self._stopping:
            self.leave()
            return
        number = next(self._numbers)
        at = number % len(self._words)
        client.id = f"r{id(self):x}-{number:08x}"
        client.began = perf_counter()
        self.link.take(self._words[at], bulk(client.id) + self._tails[at], 5, client)

    def leave(self) -> None:
        self._busy -= 1
        if not self._busy:
            self._done.set()


class _Taker:
    def __init__(self, of: Takers) -> None:
        self.of = of
        self.id = ""
        self.began = 0.0

    def take(self) -> None:
        self.of.next(self)

    def on_take(self, reply: bytes) -> None:
        if reply[0] == ADMITTED:
            self.of.seconds.append(perf_counter() - self.began)
            self.of.admitted.append(self.id)
            self.take()
        else:
            self.of.refused += 1
            self.of.leave()

    def on_take_lost(self, lost: Lost) -> None:
        self.of.lost[str(lost)] += 1
        asyncio.get_running_loop().call_later(LOST_PAUSE_SECONDS, self.take)
