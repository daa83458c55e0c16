"""Which Redis server is vouched for: what Postgres says of it, and what the shards' generations say.

A generation names the server (its run id) that a shard's counters were vouched for on, the epoch, and a nonce.
"""

import asyncio
from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple, cast

from redis.exceptions import RedisError

from control import sql
from control.db import Database, StoreUnavailable
from control.ledger.clocks import LedgerClock
from quota import generation, keys
from quota.calls.repairs import pop_receipts_call
from quota.generation import REBUILDING
from quota.ledger import Ledger, LedgerUnavailable, MemoryLost
from quota.scripts import script

ASK_AGAIN_SECONDS = 5.0  # of Postgres, whether another control plane has vouched for another server


class Epoch(NamedTuple):
    """What Postgres says was vouched for last; number 0: nothing was."""

    number: int
    server: str


class Front(NamedTuple):
    """The server that answers, and the generations that it holds."""

    server: str
    generations: tuple[str | None, ...]

    def is_in(self, epoch: Epoch) -> bool:
        begins = generation.made(self.server, epoch.number, "")
        return epoch.server == self.server and all(held and held.startswith(begins) for held in self.generations)

    def is_from_before_epochs(self, epoch: Epoch) -> bool:
        """Vouched for by a control plane that knew of none."""
        own = all(held and held.startswith(f"{self.server}:") for held in self.generations)
        return own and epoch.number == 0 and self.epoch == 0

    @property
    def epoch(self) -> int:
        return min((generation.epoch_of(held) for held in self.generations if held), default=0)

    @property
    def restarted(self) -> bool:
        """Whether it holds something that was vouched for once, so that it lost only a part."""
        return any(held is not None for held in self.generations)

    def forked_from(self, newest: Epoch) -> bool:
        """Whether it may have had a life of its own: it holds an epoch that is over, or a recovery was cut short."""
        return any(
            held is not None and (held.startswith(REBUILDING) or generation.epoch_of(held) != newest.number)
            for held in self.generations
        )


class Epochs:
    def __init__(self, db: Database, ledger: Ledger, ledger_clock: LedgerClock) -> None:
        """`ledger_clock` is set by each look at Redis."""
        self._db = db
        self._redis = cast("Any", ledger.redis)
        self._shards = ledger.shards
        self._ledger_clock = ledger_clock
        self._generation_keys = [keys.generation_key(shard) for shard in range(ledger.shards)]
        self._newest: Epoch | None = None
        self._agreed: Front | None = None
        """With what Postgres said when it was asked last."""
        self._ask_at = 0.0  # loop time

    @property
    def number(self) -> int:
        """Of the newest epoch, as far as this process knows."""
        return self._newest.number if self._newest is not None else 0

    async def read_clock(self) -> None:
        """Reads Redis' time, for who needs it before the first look. Raises LedgerUnavailable."""
        try:
            self._ledger_clock.update(await self._redis.time())
        except RedisError as e:
            raise LedgerUnavailable(f"time: {e}") from e

    async def front(self) -> Front:
        """Raises LedgerUnavailable."""
        try:
            async with self._redis.pipeline(transaction=False) as pipeline:  # one connection, so it is one server
                self._ask_who(pipeline)
                identity = await pipeline.execute()
        except RedisError as e:
            raise LedgerUnavailable(f"generations: {e}") from e
        return self._front_of(*identity)

    async def front_and_receipts(self, items_max: int) -> tuple[Front, list[bytes]]:
        """The server in front, and the receipts that gateways gave it unasked. Raises LedgerUnavailable."""
        call = pop_receipts_call(items_max, self._shards)
        try:
            async with self._redis.pipeline(transaction=False) as pipeline:
                self._ask_who(pipeline)
                pipeline.eval(script(call.script).source, len(call.keys), *call.keys, *call.argv)
                *identity, items = await pipeline.execute()
        except RedisError as e:
            raise LedgerUnavailable(f"generations and receipts: {e}") from e
        return self._front_of(*identity), items or []

    async def is_vouched(self, front: Front, *, afresh: bool = False) -> bool:
        """Raises StoreUnavailable."""
        return front.is_in(await self.newest(front, afresh=afresh))

    async def newest(self, front: Front, *, afresh: bool = False) -> Epoch:
        """What was vouched for last. Postgres is asked where another server is in front than before, and now and then.

        While Postgres is away nobody vouches for another server, so what agreed then still agrees. Raises
        StoreUnavailable."""
        now = asyncio.get_running_loop().time()
        if self._newest is not None and front == self._agreed and now < self._ask_at and not afresh:
            return self._newest
        try:
            newest = await self.read_newest()
        except StoreUnavailable:
            if self._newest is None or not front.is_in(self._newest):
                raise
            newest = self._newest
        self._newest, self._ask_at = newest, now + ASK_AGAIN_SECONDS
        self._agreed = front if front.is_in(newest) else None
        return newest

    async def read_newest(self) -> Epoch:
        """Raises StoreUnavailable."""
        async with self._db.connection() as connection:
            row = await sql.reconcile.last_epoch(connection)
        return Epoch(0, "") if row is None else Epoch(row.epoch, row.server)

    async def ended_at(self, epoch: int) -> datetime | None:
        """When another server was vouched for than in this epoch; None: not known, so it may be long ago."""
        async with self._db.connection() as connection:
            ended: datetime | None = await sql.reconcile.ended_at(connection, epoch=epoch)
        return ended

    async def begin(self, server: str, above: int, nonce: str, instead_of: Sequence[str | None]) -> int:
        """Vouches for a server in a new epoch, if its shards still have the generations `instead_of`; its number.

        Raises StoreUnavailable, LedgerUnavailable, MemoryLost."""
        # Committed before Redis has it: no gateway sees an epoch that Postgres could forget.
        async with self._db.connection() as connection:
            epoch: int = await sql.reconcile.vouch(connection, server=server, above=above)
        await self._set_generations(generation.made(server, epoch, nonce), instead_of, server)
        self._newest = Epoch(epoch, server)
        return epoch

    async def mark_rebuilding(self, nonce: str) -> Sequence[str]:
        """Has gateways admit nothing; the generations that the shards have now. Raises LedgerUnavailable."""
        mark = f"{REBUILDING}{nonce}"
        await self._set_generations(mark)
        return (mark,) * self._shards

    async def _set_generations(
        self, value: str, instead_of: Sequence[str | None] | None = None, server: str | None = None
    ) -> None:
        """With `instead_of` and `server`: only there, and if they still are these. Raises LedgerUnavailable."""
        try:
            async with self._redis.pipeline(transaction=True) as pipeline:
                pipeline.info("server")
                pipeline.mget(self._generation_keys)
                pipeline.mset(dict.fromkeys(self._generation_keys, value))
                about, before, _ = await pipeline.execute()
            if instead_of is not None and (
                about["run_id"] != server or [held and held.decode() for held in before] != list(instead_of)
            ):
                await self._redis.delete(*self._generation_keys)
                raise MemoryLost("Redis lost its memory while it was put back")
        except RedisError as e:
            raise LedgerUnavailable(f"generations: {e}") from e

    def _ask_who(self, pipeline: Any) -> None:
        pipeline.info("server")
        pipeline.mget(self._generation_keys)
        pipeline.time()

    def _front_of(self, about: Any, generations: Any, time: Any) -> Front:
        self._ledger_clock.update(time)
        return Front(about["run_id"], tuple(held and held.decode() for held in generations))
