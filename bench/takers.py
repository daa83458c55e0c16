"""Clients of a ledger without the gateway around it: each takes again as soon as it was answered, or after a pause."""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import count
from time import perf_counter

from gateway.ledger.link import Link
from gateway.redis.connection import Lost
from quota import keys
from quota.calls.encoded import books_bulk, bulk, encode_charges, principal_bulk
from quota.wire import Verdict

LOST_PAUSE_SECONDS = 0.005  # before the next attempt of one that got no answer
METER = "api_calls"


class Takers:
    """Clients of one link. They go round the organizations, a unit each, until `stop`, or until nothing is left."""

    def __init__(
        self,
        link: Link,
        orgs: Sequence[str],
        clients: int,
        shards: int = keys.SHARDS_DEFAULT,
        hydrate: Callable[[str, Callable[[bool], None]], None] | None = None,
    ) -> None:
        """`hydrate`: has an organization loaded that Redis does not know, and calls back."""
        self.link = link
        self.orgs = orgs
        self.hydrate = hydrate
        self.pause_seconds = 0.0
        """Of each client, between an answer and its next take."""
        self._words = [books_bulk(org, shards) for org in orgs]
        charges = encode_charges({METER: 1})
        self._argv_count = charges.argv_count
        self._tails = [principal_bulk(org) + charges.bulk for org in orgs]
        self._numbers = count()
        self.clients = [_Taker(self) for _ in range(clients)]
        self.admitted: list[str] = []
        """Request ids, in the order of their answers."""
        self.by_org: Counter[str] = Counter()
        """Admitted."""
        self.used_up: set[int] = set()
        """Places in `orgs` of those that were refused."""
        self.lost: Counter[str] = Counter()
        """By reason."""
        self.seconds: list[float] = []
        """Of each admitted take."""
        self.answered_at = 0.0
        """When the newest was admitted."""
        self._loop = asyncio.get_running_loop()
        self._stopping = False
        self._busy = 0
        self._done = asyncio.Event()

    def start(self) -> None:
        self._busy = len(self.clients)
        for client in self.clients:
            self.next(client)

    async def stop(self) -> None:
        """Returns when each client has its last answer."""
        self._stopping = True
        await self._done.wait()

    async def finish(self, seconds: float = 600) -> None:
        """Returns when nothing is left. Raises TimeoutError."""
        self.pause_seconds = 0.0
        await asyncio.wait_for(self._done.wait(), seconds)

    def next(self, client: "_Taker") -> None:
        if self._stopping or len(self.used_up) == len(self.orgs):
            self._busy -= 1
            if not self._busy:
                self._done.set()
            return
        number = next(self._numbers)
        while (at := number % len(self.orgs)) in self.used_up:
            number = next(self._numbers)
        client.at = at
        client.id = f"r{id(self):x}-{number:08x}"
        client.began = perf_counter()
        self.link.take(self._words[at], bulk(client.id) + self._tails[at], self._argv_count, client)

    def later(self, client: "_Taker", seconds: float) -> None:
        if seconds:
            self._loop.call_later(seconds, self.next, client)
        else:
            self.next(client)


class _Taker:
    def __init__(self, of: Takers) -> None:
        self.of = of
        self.id = ""
        self.at = 0
        self.began = 0.0

    def on_take(self, reply: bytes) -> None:
        of = self.of
        if reply[0] == Verdict.ADMITTED:
            of.answered_at = perf_counter()
            of.seconds.append(of.answered_at - self.began)
            of.admitted.append(self.id)
            of.by_org[of.orgs[self.at]] += 1
        elif reply[0] == Verdict.UNKNOWN and of.hydrate is not None:
            of.hydrate(of.orgs[self.at], lambda published: of.later(self, LOST_PAUSE_SECONDS))
            return
        else:
            of.used_up.add(self.at)
        of.later(self, of.pause_seconds)

    def on_take_lost(self, lost: Lost) -> None:
        self.of.lost[str(lost)] += 1
        self.of.later(self, LOST_PAUSE_SECONDS)
