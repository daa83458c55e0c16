"""Which Redis server is vouched for: what Postgres says of it, and what the shards' generations say.

A generation names the server (its run id) that a shard's counters were vouched for on, the epoch, and a nonce. One
server holds all shards, or in a Cluster each primary some; a server is vouched for with its shards.
"""

import asyncio
from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, NamedTuple, cast

import structlog
from redis.exceptions import RedisError

from common.redis_cluster.client import ClusterClient
from control import sql
from control.db import Database, StoreUnavailable
from control.ledger.clocks import LedgerClock
from control.ledger.nodes import Node, nodes_of
from quota import generation, keys
from quota.calls.repairs import pop_receipts_call, pop_receipts_of_cluster_call
from quota.generation import REBUILDING
from quota.ledger import ANOTHER, Ledger, LedgerUnavailable, MemoryLost
from quota.scripts import script

log = structlog.get_logger()

KEEP_RECEIPTS_SECONDS = 600  # longer than a recovery takes
ANSWER_SECONDS = 0.5  # a server of a Cluster that hangs holds up the recovery of no other for longer
ASK_AGAIN_SECONDS = 5.0  # of Postgres, whether another control plane has vouched for another server


class Epoch(NamedTuple):
    """What Postgres says was vouched for last, of one shard; number 0: nothing was."""

    number: int
    server: str


NOTHING = Epoch(0, "")

Newest = Sequence[Epoch]
"""Of all shards, in their order."""


@dataclass(frozen=True, slots=True)
class Front:
    """A server that answers, and the generations that it holds."""

    node: Node = field(compare=False)
    server: str
    generations: Mapping[int, str | None]
    """By shard."""
    history: str = field(default="", compare=False)
    """Its replication id: another one once it has been a replica."""

    def only(self, shards: Collection[int]) -> "Front":
        """The same server with some of its shards."""
        held = {shard: text for shard, text in self.generations.items() if shard in shards}
        return replace(self, node=self.node.only(shards), generations=held)

    def outside(self, newest: Newest) -> set[int]:
        """Its shards for which it is not vouched for."""
        return {shard for shard in self.generations if not self.only((shard,)).is_in(newest)}

    def is_in(self, newest: Newest) -> bool:
        return all(
            newest[shard].server == self.server
            and held is not None
            and held.startswith(generation.made(self.server, newest[shard].number, ""))
            for shard, held in self.generations.items()
        )

    def is_from_before_epochs(self, newest: Newest) -> bool:
        """Vouched for by a control plane that knew of none."""
        own = all(held and held.startswith(f"{self.server}:") for held in self.generations.values())
        return own and all(newest[shard] == NOTHING for shard in self.generations) and self.highest == 0

    @property
    def lowest(self) -> int:
        """Of the epochs that it holds."""
        return min((generation.epoch_of(held) for held in self.generations.values() if held), default=0)

    @property
    def highest(self) -> int:
        return max((generation.epoch_of(held) for held in self.generations.values() if held), default=0)

    @property
    def restarted(self) -> bool:
        """Whether it holds something that was vouched for once, so that it lost only a part."""
        return any(held is not None for held in self.generations.values())

    def forked_from(self, newest: Newest) -> bool:
        """Whether it may have had a life of its own: it holds an epoch that is over, or a recovery was cut short."""
        return any(
            held is not None and (held.startswith(REBUILDING) or generation.epoch_of(held) != newest[shard].number)
            for shard, held in self.generations.items()
        )


class Epochs:
    def __init__(self, db: Database, ledger: Ledger, ledger_clock: LedgerClock) -> None:
        """`ledger_clock` is set by each look at Redis."""
        self._db = db
        self._nodes = nodes_of(ledger.redis, ledger.shards)
        self._spread = isinstance(ledger.redis, ClusterClient)
        self._away: set[str] = set()  # why servers of a Cluster did not answer last
        self._ledger = ledger
        self._redis = cast("Any", ledger.redis)
        self._shards = ledger.shards
        self._ledger_clock = ledger_clock
        self._newest: Newest | None = None
        self._agreed: list[Front] | None = None
        """With what Postgres said when it was asked last."""
        self._ask_at = 0.0  # loop time

    @property
    def numbers(self) -> Sequence[int]:
        """Of each shard's newest epoch, as far as this process knows."""
        return [epoch.number for epoch in self._newest] if self._newest is not None else [0] * self._shards

    @property
    def number(self) -> int:
        """Of the newest epoch, as far as this process knows."""
        return max(self.numbers)

    @property
    def complete(self) -> bool:
        """All servers answered at the last look."""
        return not self._away

    async def read_clock(self) -> None:
        """Reads Redis' time, for who needs it before the first look. Raises LedgerUnavailable."""
        try:
            self._ledger_clock.update(await self._redis.time())
        except RedisError as e:
            raise LedgerUnavailable(f"time: {e}") from e

    async def fronts(self) -> list[Front]:
        """The servers that answer; on a Cluster, soon. Raises LedgerUnavailable where none does."""
        patience = ANSWER_SECONDS if self._spread else None
        asked = (asyncio.wait_for(self._front(node), patience) for node in await self._nodes.now())
        found = await asyncio.gather(*asked, return_exceptions=True)
        fronts, reasons, error = list[Front](), set[str](), None
        for each in found:
            if isinstance(each, Front):
                fronts.append(each)
            elif isinstance(each, RedisError | TimeoutError):
                error = each
                reasons.add(str(each) or f"no answer within {patience} s")
            else:
                raise each
        if not fronts:
            raise LedgerUnavailable(f"generations: {error}") from error
        for reason in reasons - self._away:
            log.warning("a server of the redis cluster is away", reason=reason)
        self._away = reasons
        return fronts

    async def fronts_and_receipts(self, items_max: int) -> tuple[list[Front], list[bytes]]:
        """The servers in front, and the receipts that gateways gave unasked. Raises LedgerUnavailable."""
        if self._spread:
            fronts, of_cluster = await self.fronts(), pop_receipts_of_cluster_call(items_max)
            # A server that hangs may be the one with the list, and the next look sees who has taken over.
            if self._away or not await self.are_vouched(fronts):
                return fronts, []
            try:
                return fronts, await self._ledger.run(of_cluster)
            except LedgerUnavailable as e:  # the server with the list may be away, and the others must go on
                log.info("what gateways tell is not read", reason=str(e))
                return fronts, []
        call = pop_receipts_call(items_max, self._shards)
        [node] = await self._nodes.now()
        try:
            async with node.redis.pipeline(transaction=False) as pipeline:
                _ask_who(pipeline, node)
                pipeline.eval(script(call.script).source, len(call.keys), *call.keys, *call.argv)
                *identity, items = await pipeline.execute()
        except RedisError as e:
            raise LedgerUnavailable(f"generations and receipts: {e}") from e
        return [self._front_of(node, *identity)], items or []

    async def are_vouched(self, fronts: Sequence[Front], *, afresh: bool = False) -> bool:
        """Whether each of them is. Raises StoreUnavailable."""
        newest = await self.newest(fronts, afresh=afresh)
        return all(front.is_in(newest) for front in fronts)

    async def newest(self, fronts: Sequence[Front], *, afresh: bool = False) -> Newest:
        """What was vouched for last. Postgres is asked where another server is in front than before, and now and then.

        While Postgres is away nobody vouches for another server, so what agreed then still agrees. Raises
        StoreUnavailable."""
        now = asyncio.get_running_loop().time()
        if self._newest is not None and fronts == self._agreed and now < self._ask_at and not afresh:
            return self._newest
        try:
            newest = await self.read_newest()
        except StoreUnavailable:
            known = self._newest
            if known is None or not all(front.is_in(known) for front in fronts):
                raise
            newest = known
        self._newest, self._ask_at = newest, now + ASK_AGAIN_SECONDS
        self._agreed = list(fronts) if all(front.is_in(newest) for front in fronts) else None
        return newest

    async def read_newest(self) -> Newest:
        """Raises StoreUnavailable."""
        shards = self._db.region.all_stored(range(self._shards))
        async with self._db.connection() as connection:
            rows = await sql.reconcile.last_epochs(connection, shards=shards)
        known = {row.shard: Epoch(row.epoch, row.server) for row in rows}
        return [known.get(shard, NOTHING) for shard in range(self._shards)]

    async def ended_at(self, front: Front) -> datetime | None:
        """When another server was vouched for than in the epochs that this one holds; None: not known, so it may be
        long ago."""
        async with self._db.connection() as connection:
            ended: datetime | None = await sql.reconcile.ended_at(
                connection, epoch=front.lowest, shards=self._db.region.all_stored(sorted(front.generations))
            )
        return ended

    async def begin(self, front: Front, above: int, nonce: str, instead_of: Mapping[int, str | None]) -> int:
        """Vouches for a server with its shards in a new epoch, if these still have the generations `instead_of`; its
        number.

        Raises StoreUnavailable, LedgerUnavailable, MemoryLost."""
        # Committed before Redis has it: no gateway sees an epoch that Postgres could forget.
        shards, region = sorted(front.generations), self._db.region
        of_all = len(shards) == self._shards and not region.several  # as releases before regions say it
        async with self._db.transaction() as connection:
            await sql.reconcile.lock_epochs(connection)
            number: int = await sql.reconcile.vouch(
                connection, server=front.server, above=above, shards=None if of_all else region.all_stored(shards)
            )
        await _set_generations(front.node, generation.made(front.server, number, nonce), instead_of, front.server)
        own = dict.fromkeys(shards, Epoch(number, front.server))
        self._newest = [own.get(shard, known) for shard, known in enumerate(self._newest or [NOTHING] * self._shards)]
        return number

    async def mark_rebuilding(self, front: Front, nonce: str) -> Mapping[int, str]:
        """Has gateways admit nothing of its shards; the generations that these have now. Raises LedgerUnavailable, also
        where another server answers by now: that one waits for the next look."""
        mark = f"{REBUILDING}{nonce}"
        await _set_generations(front.node, mark, server=front.server)
        return dict.fromkeys(front.generations, mark)

    @asynccontextmanager
    async def receipts_kept(self, nonce: str) -> AsyncIterator[None]:
        """Meanwhile whoever looks at Redis leaves the receipts there for the recovery with this nonce. Where one server
        holds all shards, their generations say so. Raises LedgerUnavailable."""
        if not self._spread:
            yield
            return
        try:
            await self._redis.set(keys.RECEIPTS_ASKED, f"{REBUILDING}{nonce}", ex=KEEP_RECEIPTS_SECONDS)
        except RedisError as e:
            raise LedgerUnavailable(f"receipts: {e}") from e
        try:
            yield
        finally:
            try:
                await self._redis.delete(keys.RECEIPTS_ASKED)
            except RedisError as e:  # it expires, and what was recovered stays so
                log.info("what gateways tell waits in redis for a while", seconds=KEEP_RECEIPTS_SECONDS, reason=str(e))

    async def _front(self, node: Node) -> Front:
        async with node.redis.pipeline(transaction=False) as pipeline:  # one connection, so it is one server
            _ask_who(pipeline, node)
            return self._front_of(node, *await pipeline.execute())

    def _front_of(self, node: Node, about: Any, replication: Any, time: Any, *generations: Any) -> Front:
        self._ledger_clock.update(time)
        held = [each and each.decode() for of_group in generations for each in of_group]
        held_by_shard = dict(zip(node.shards, held, strict=True))
        return Front(node, about["run_id"], held_by_shard, str(replication.get("master_replid", "")))


def _ask_who(pipeline: Any, node: Node) -> None:
    pipeline.info("server")
    pipeline.info("replication")
    pipeline.time()
    for group in node.groups:
        pipeline.mget(_keys(group))


def _keys(shards: Iterable[int]) -> list[str]:
    return [keys.generation_key(shard) for shard in shards]


async def _set_generations(
    node: Node, value: str, instead_of: Mapping[int, str | None] | None = None, server: str | None = None
) -> None:
    """With `instead_of`: only if they still are these. With `server`: only there. Raises LedgerUnavailable."""
    lost = False
    try:
        for shards in node.groups:
            names = _keys(shards)
            async with node.redis.pipeline(transaction=True) as pipeline:
                pipeline.info("server")
                pipeline.mget(names)
                pipeline.mset(dict.fromkeys(names, value))
                about, before, _ = await pipeline.execute()
            held = dict(zip(shards, (each and each.decode() for each in before), strict=True))
            elsewhere = server is not None and about["run_id"] != server
            if instead_of is None and elsewhere:
                raise LedgerUnavailable(f"generations: {ANOTHER}")
            if instead_of is not None and (elsewhere or any(instead_of[shard] != text for shard, text in held.items())):
                await node.redis.delete(*names)
                lost = True
    except RedisError as e:
        raise LedgerUnavailable(f"generations: {e}") from e
    if lost:
        raise MemoryLost("Redis lost its memory while it was put back")
