"""What Redis lost is recognised, and put back, before another unit is given away.

Each shard has a generation: the Redis server (its run id) that its counters were vouched for on, the epoch, and a
nonce. A flush removes it. A restart or a failover leaves one of another server. A server that was put aside and comes
back names itself, but in an epoch that is over: the newest is in Postgres. In these cases gateways admit nothing
(docs/decisions/0011), and this service puts together what is known: the rows in Postgres, the stream as far as Redis
still has it, and the takes that Redis answered to gateways and that nobody has confirmed to them. Events that are
nowhere else are appended again, counters that went back are moved to where the events say they are, and the shards get
the next epoch.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, cast

import structlog
from redis.exceptions import RedisError

from common.clock import Clock, system_clock
from common.redis_cluster.client import ClusterClient
from control import incidents, journal, sql
from control.db import Connection, Database, StoreUnavailable
from control.journal import Action, Author, Change
from control.ledger.clocks import LedgerClock
from control.ledger.nodes import Node, forget_idle, nodes_of
from control.ledger.streams import StreamId, Streams
from control.moments import moment
from control.reconcile.epochs import Epochs, Front, Newest
from control.reconcile.gateway_reports import POPPED_AT_ONCE, GatewayReports, gather, texts_of
from control.reconcile.handover import Handover
from control.reconcile.missing_events import MissingEvents
from control.reconcile.rejoining import Rejoining
from control.reconcile.rolled_back import RolledBack
from control.reconcile.scan import Scan
from quota import generation, keys
from quota.events import UsageEvent
from quota.generation import REBUILDING
from quota.ledger import Ledger, LedgerUnavailable, MemoryLost
from quota.recovery_message import RecoveryMessage

log = structlog.get_logger()

POLL_SECONDS = 0.25
CLUSTER_POLL_SECONDS = 0.1  # takes of a shard that has moved wait for this look
AWAY_SECONDS = 0.1  # between two looks while a server is away: gateways wait for this after a failover
TURN_SECONDS = 0.1
LATE_MAX = 200  # items that wait here for Postgres; the others wait in Redis, where gateways put them
ANSWER_SECONDS = 60
DOUBTED = "-"
"""The answer to a gateway that asks while nobody can tell: it waits."""
AUTHOR = Author("recovery", "recovery")


@dataclass(frozen=True, slots=True)
class Recovered:
    takes_put_back: int
    """Takes that only gateways still knew."""
    organizations_moved: int = 0
    """Whose counters had gone back."""
    events_of_old_server: int = 0
    """Events that only a server which was put aside had."""
    organizations_outdated: int = 0
    """Whose entitlement had gone back: they are loaded again."""
    takes_lost_at_most: int = 0
    """Takes that Redis had answered, that gateways no longer remember, and that may not be written."""
    units_lost_at_most: int = 0
    gateways_silent: int = 0
    """Workers that were asked and did not report."""


class Recovery:
    name = "recovery"

    def __init__(
        self,
        db: Database,
        ledger: Ledger,
        streams: Streams,
        scan: Scan,
        clock: Clock = system_clock,
        ledger_clock: LedgerClock | None = None,
        late_max: int = LATE_MAX,
        *,
        leased: bool = False,
    ) -> None:
        """`ledger_clock` is set by each look at Redis. `late_max`: where so many items wait for Postgres, no more are
        taken from Redis' list, which keeps them in their order: none is lost, and this process does not grow. `leased`:
        Redis is that of one of several regions."""
        self._db = db
        self._ledger = ledger
        self._redis = cast("Any", ledger.redis)
        self._clock = clock
        self._lock = asyncio.Lock()
        self._nodes = nodes_of(ledger.redis, ledger.shards)
        self._streams = streams
        self._spread = isinstance(ledger.redis, ClusterClient)
        self._poll_seconds = CLUSTER_POLL_SECONDS if self._spread else POLL_SECONDS
        self._handover = Handover()
        self._rejoining = Rejoining(self._nodes)
        self._well = False  # all servers answered, and were vouched for, at the last look
        self.epochs = Epochs(db, ledger, ledger_clock or LedgerClock())
        self._missing = MissingEvents(db, ledger, streams)
        self._rolled_back = RolledBack(db, ledger, scan)
        self._late: list[str] = []
        """What gateways reported by themselves, until it is put back."""
        self._late_max = late_max
        self._leased = leased
        self._late_waits = False
        self.units_lost = 0
        """At most, as gateways reported it to this process."""
        self.other_clients: tuple[Any, ...] = ()
        """Other clients of the same Redis."""

    @property
    def epoch(self) -> int:
        """As far as this process knows."""
        return self.epochs.number

    async def run(self) -> None:
        """Until it is cancelled. Raises StoreUnavailable; whoever runs it starts it again."""
        away = False
        counting = asyncio.create_task(self._rejoining.run(lambda: self._well), name="recovery-listeners")
        try:
            while True:
                try:
                    await self.round()
                    away = False
                except LedgerUnavailable as e:
                    if not away:
                        log.warning("recovery waits for redis", reason=str(e))
                    away = True
                await asyncio.sleep(AWAY_SECONDS if away or not self.epochs.complete else self._poll_seconds)
        finally:
            counting.cancel()
            await asyncio.gather(counting, return_exceptions=True)

    async def look(self) -> None:
        """Reads Redis' time, for who needs it before the rounds begin. Raises LedgerUnavailable."""
        await self.epochs.read_clock()

    async def round(self) -> None:
        """Recovers if there is something to recover, and puts back what a gateway reported late."""
        # The server is asked with its lines: after a failover, a kept connection leads elsewhere than a new one.
        self._well = False
        fronts, items = await self.epochs.fronts_and_receipts(self._room())
        self._late += texts_of(items)
        if not await self.epochs.are_vouched(fronts):
            await self._forget_connections()
            await self.recover()
            return
        self._handover.agreed(fronts)
        self._well = self.epochs.complete
        if self._late:
            async with self._turn() as connection:
                late = len(self._late)
                generations = {shard: held for front in fronts for shard, held in front.generations.items()}
                put_back = await self._missing.put_back(GatewayReports.parse(self._late[:late]), generations)
                if put_back:
                    log.error("takes put back late: units may have been given away twice", takes=put_back)
                    await self._record(connection, "usage.put_back_late", {"takes_put_back": put_back})
            del self._late[:late]

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[Connection]:
        """Control planes of a region take turns, until the transaction ends. Who waits keeps no connection meanwhile:
        behind a pooler, all those who wait could keep those that the one at work needs."""
        async with self._lock:
            while True:
                async with self._db.transaction() as connection:
                    if await sql.reconcile.lock_recovery(connection, region=self._db.region.number):
                        yield connection
                        return
                await asyncio.sleep(TURN_SECONDS)

    def _room(self) -> int:
        """Items that may be taken from Redis' list."""
        room = max(0, self._late_max - len(self._late))
        if room == 0 and not self._late_waits:
            log.error("what gateways tell late waits in redis until postgres is back", items=len(self._late))
        self._late_waits = room == 0
        return min(room, POPPED_AT_ONCE)

    async def generation(self, shard: int) -> str:
        """The shard's generation, made first where it is gone. Raises StoreUnavailable, LedgerUnavailable."""
        held = await self._ledger.generation(shard)
        if held is None or held.startswith(REBUILDING):
            await self.recover()
            held = await self._ledger.generation(shard)
        if held is None:
            raise MemoryLost("Redis lost its memory again")
        return held

    async def answer(self, question: str) -> None:
        """Answers a gateway that has just come: is the server in front the one that was vouched for last? The question
        holds a name, and the highest epochs that the gateway has seen. Raises LedgerUnavailable."""
        name, _, text = question.partition(" ")
        above = generation.epochs_from(text, self._ledger.shards) or [0] * self._ledger.shards
        try:
            vouched = await self.epochs.are_vouched(await self.epochs.fronts(), afresh=True)
            if not vouched or any(number < seen for number, seen in zip(self.epochs.numbers, above, strict=True)):
                await self.recover(above)
            answer = generation.epochs_text(self.epochs.numbers)
        except StoreUnavailable as e:
            log.warning("a gateway asks whom to believe, and Postgres does not tell", reason=str(e))
            answer = DOUBTED
        try:
            await self._redis.set(keys.answer_key(name), answer, ex=ANSWER_SECONDS)
        except RedisError as e:
            raise LedgerUnavailable(f"answering a gateway: {e}") from e

    async def believed(self, server: str, generations: Mapping[int, str | None]) -> frozenset[int]:
        """The shards that this process may charge on that server. Of one that has no generation nothing is there to
        charge.

        Raises StoreUnavailable."""
        held = {shard: each for shard, each in generations.items() if each is not None}
        if not held:
            return frozenset(generations)
        front = Front(Node(None, (tuple(held),)), server, held)
        newest = await self.epochs.newest([front])
        strange = set[int]() if front.is_from_before_epochs(newest) else front.outside(newest)
        return frozenset(generations.keys() - strange)

    async def recover(self, above: Sequence[int] | None = None) -> Recovered | None:
        """Puts back what is missing, and vouches for Redis as it is, each shard in an epoch above that of `above`; None
        where another control plane has done it.

        Raises StoreUnavailable, LedgerUnavailable."""
        async with self._turn() as connection:
            newest = await self.epochs.read_newest()
            fronts = await self.epochs.fronts()
            nonce, seen = os.urandom(8).hex(), max(above or [0])
            damaged = []
            for front in fronts:
                if _stays(front, newest, above):
                    continue
                if front.is_from_before_epochs(newest):
                    await self.epochs.begin(front, seen, nonce, instead_of=front.generations)
                    continue
                if self._spread and (outside := front.outside(newest)):
                    moved = self._handover.moved(front.only(outside), fronts, newest)
                    if moved is not None:
                        epoch = await self.epochs.begin(moved, seen, nonce, instead_of=moved.generations)
                        log.info("shards were handed over", shards=sorted(moved.generations), epoch=epoch)
                        outside -= moved.generations.keys()
                    front = front.only(outside)
                if front.generations:
                    damaged.append(front)
            return await self._put_together(connection, damaged, newest, seen, nonce) if damaged else None

    async def _put_together(
        self, connection: Connection, fronts: Sequence[Front], newest: Newest, above: int, nonce: str
    ) -> Recovered:
        began, restarted = asyncio.get_running_loop().time(), any(front.restarted for front in fronts)
        for front in fronts:
            _log_damage(front, newest)
        if restarted:
            await self._forget_connections()
        marks = [await self.epochs.mark_rebuilding(front, nonce) for front in fronts]
        of_shards = {shard: mark for each in marks for shard, mark in each.items()}
        await self._ledger.check_layout()
        if restarted:
            await self._rejoining.wait(began)
        shards = sorted(shard for front in fronts for shard in front.generations)
        await self._fence_writers(shards)
        late = self._late[:]
        over = max(above, *(max(front.highest, *(newest[s].number for s in front.generations)) for front in fronts))
        message = RecoveryMessage(nonce, restarted, over if restarted else 0, tuple(shards) if self._spread else None)
        async with self.epochs.receipts_kept(nonce):
            reports = await gather(self._redis, self._nodes, late, message, of_shards)
            if restarted:
                await self._rejoining.wait_for_others(began, reports.told)
            restored = await self._restore(fronts, newest, reports, of_shards)
            if self._leased:
                ended = await self._rolled_back.lapse(of_shards)
                log.warning("leases are ended: this region's redis may have forgotten what it returned", leases=ended)
            for front, mark in zip(fronts, marks, strict=True):
                epoch = await self.epochs.begin(front, over, nonce, instead_of=mark)
        del self._late[: len(late)]
        await self._conclude(connection, fronts, newest, epoch, restored)
        return restored

    async def _restore(
        self, fronts: Sequence[Front], newest: Newest, reports: GatewayReports, marks: Mapping[int, str]
    ) -> Recovered:
        """Combines what gateways, Postgres and the streams know. `marks`: the generations of what is put together."""
        watermarks = await self._rolled_back.watermarks()
        lost = [await self._look_for_lost(front, newest, reports, watermarks, marks) for front in fronts]
        put_back = await self._missing.put_back(reports, marks)
        moved = outdated = 0
        for front, (lacking, since, strays) in zip(fronts, lost, strict=True):
            forked = front.forked_from(newest)
            ended = await self.epochs.ended_at(front) if forked else None
            if forked:
                lacking = {*await self._rolled_back.written_since(ended), *(event.org for event in strays)}
            of_front = {org for org in lacking if keys.shard_of(org, self._ledger.shards) in front.generations}
            moved += await self._rolled_back.rebase(sorted(of_front), AUTHOR, marks)
            of_server = {shard: marks[shard] for shard in front.generations}
            if front.restarted:
                now = moment(self._clock())
                recent = now if since is None else min(since, now)
                outdated += await self._rolled_back.drop_outdated(ended if forked else recent, of_server)
            if forked or since is not None or not front.restarted:
                await self._rolled_back.remember_settled(ended if forked else since, watermarks, of_server)
        return Recovered(
            takes_put_back=put_back,
            organizations_moved=moved,
            events_of_old_server=sum(len(strays) for _, _, strays in lost),
            organizations_outdated=outdated,
            takes_lost_at_most=reports.lost_takes,
            units_lost_at_most=reports.lost_units,
            gateways_silent=reports.silent,
        )

    async def _look_for_lost(
        self,
        front: Front,
        newest: Newest,
        reports: GatewayReports,
        watermarks: Mapping[int, StreamId],
        marks: Mapping[int, str],
    ) -> tuple[set[str], datetime | None, Sequence[UsageEvent]]:
        """Has the streams of this server continue after what is written. What it lacks: the organizations with events
        that it does not have, and since when; and the events that it alone has."""
        own = {shard: at for shard, at in watermarks.items() if shard in front.generations}
        forked = front.forked_from(newest)
        strays = await self._missing.strays(own, reports.void, marks) if forked else {}
        lacking, since = await self._rolled_back.advance(own, marks)
        await self._missing.append(strays, marks, counted=True)
        return lacking, since, list(strays.values())

    async def _conclude(
        self, connection: Connection, fronts: Sequence[Front], newest: Newest, epoch: int, recovered: Recovered
    ) -> None:
        """Logs what was done, journals it, and opens an incident."""
        self.units_lost += recovered.units_lost_at_most
        restarted = any(front.restarted for front in fronts)
        first = not restarted and not any(newest[shard].number for front in fronts for shard in front.generations)
        (log.info if first else log.warning)("redis is vouched for", epoch=epoch, **asdict(recovered))
        if restarted or any(asdict(recovered).values()):
            after = asdict(recovered) | {"epoch": epoch}
            if recovered.takes_lost_at_most or recovered.gateways_silent:
                await incidents.open(connection, self._clock(), "usage_lost", f"epoch {epoch}", None, after)
            await self._record(connection, "usage.recovered", after)

    async def _fence_writers(self, shards: Sequence[int]) -> None:
        """When it returns, what writers have read before is either written, and so not put back, or will never be
        written.

        It waits for each transaction of a writer that is under way; Postgres ends one that hangs. A later transaction
        finds the fence raised. The rows are locked only for a moment, since counters can be corrected only after
        writers have caught up."""
        stored = self._db.region.all_stored(shards)
        async with self._db.connection() as connection:
            await sql.usage.create_watermarks(connection, shards=stored)
        async with self._db.transaction() as connection:
            await sql.usage.lock_watermarks(connection, shards=stored)
            await sql.usage.raise_fences(connection, shards=stored)

    async def _forget_connections(self) -> None:
        """Closes idle connections: they may lead to the server that was in front before."""
        await self._nodes.forget_connections()
        await self._streams.forget_connections()
        for client in self.other_clients:
            await forget_idle(client)

    async def _record(self, connection: Connection, action: Action, after: Mapping[str, Any]) -> None:
        key = self._db.region.incident_key("redis")
        await incidents.open(connection, self._clock(), action.replace(".", "_"), key, None, after)
        await journal.record(connection, AUTHOR, self._clock(), [Change(action, None, None, dict(after))])


def _stays(front: Front, newest: Newest, above: Sequence[int] | None) -> bool:
    """Whether nothing must be done: it is vouched for, and gateways have seen no higher epochs than it has."""
    return front.is_in(newest) and (above is None or all(newest[s].number >= above[s] for s in front.generations))


def _log_damage(front: Front, newest: Newest) -> None:
    known = [newest[shard] for shard in front.generations]
    highest = max(epoch.number for epoch in known)
    if highest == 0 and not front.restarted:
        log.info("redis is vouched for the first time", server=front.server)
    elif not front.restarted:
        log.warning("redis lost its memory", server=front.server)
    elif all(epoch.server == front.server for epoch in known):
        log.warning("redis was put together only in part", server=front.server)
    elif front.lowest < highest:
        log.warning("redis is a server from before", server=front.server, epoch=front.lowest, newest=highest)
    else:
        log.warning("redis is another server", server=front.server)
