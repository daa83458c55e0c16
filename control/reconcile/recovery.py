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
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, cast

import structlog
from redis.exceptions import RedisError

from common.clock import Clock, system_clock
from control import incidents, journal, sql
from control.db import Connection, Database, StoreUnavailable
from control.journal import Action, Author, Change
from control.ledger.clocks import LedgerClock
from control.ledger.streams import Streams
from control.moments import moment
from control.reconcile.epochs import Epoch, Epochs, Front
from control.reconcile.gateway_reports import POPPED_AT_ONCE, GatewayReports, gather, lines_of
from control.reconcile.missing_events import MissingEvents
from control.reconcile.rolled_back import RolledBack
from control.reconcile.scan import Scan
from quota import generation, keys
from quota.generation import REBUILDING
from quota.ledger import Ledger, LedgerUnavailable, MemoryLost

log = structlog.get_logger()

POLL_SECONDS = 0.25
REJOIN_SECONDS = 1.0  # after a restart, until the gateways listen again
LATE_MAX = 100_000  # lines that wait here for Postgres; the others wait in Redis, where gateways put them
LATE_LINES_EACH = 500  # of an item, about: gateway/ledger/receipts.py
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
    ) -> None:
        """`ledger_clock` is set by each look at Redis. `late_max`: where so many lines wait for Postgres, no more are
        taken from Redis' list, which keeps them in their order: none is lost, and this process does not grow."""
        self._db = db
        self._ledger = ledger
        self._redis = cast("Any", ledger.redis)
        self._clock = clock
        self._lock = asyncio.Lock()
        self.epochs = Epochs(db, ledger, ledger_clock or LedgerClock())
        self._missing = MissingEvents(db, ledger, streams)
        self._rolled_back = RolledBack(db, ledger, scan)
        self._late: list[str] = []
        """What gateways reported by themselves, until it is put back."""
        self._late_max = late_max
        self._late_waits = False
        self.units_lost = 0
        """At most, as gateways reported it to this process."""
        self.other_pools: tuple[Any, ...] = ()
        """Other pools of connections to the same Redis."""

    @property
    def epoch(self) -> int:
        """As far as this process knows."""
        return self.epochs.number

    async def run(self) -> None:
        """Until it is cancelled. Raises StoreUnavailable, LedgerUnavailable; whoever runs it starts it again."""
        while True:
            await self.round()
            await asyncio.sleep(POLL_SECONDS)

    async def look(self) -> None:
        """Reads Redis' time, for who needs it before the rounds begin. Raises LedgerUnavailable."""
        await self.epochs.read_clock()

    async def round(self) -> None:
        """Recovers if there is something to recover, and puts back what a gateway reported late."""
        # The server is asked with its lines: after a failover, a kept connection leads elsewhere than a new one.
        front, items = await self.epochs.front_and_receipts(self._room())
        self._late += lines_of(items)
        if not await self.epochs.is_vouched(front):
            await self._forget_connections()
            await self.recover()
        elif self._late:
            async with self._lock, self._db.transaction() as connection:
                await sql.reconcile.lock_recovery(connection)
                late = len(self._late)
                put_back = await self._missing.put_back(GatewayReports.parse(self._late[:late]))
                if put_back:
                    log.error("takes put back late: units may have been given away twice", takes=put_back)
                    await self._record(connection, "usage.put_back_late", {"takes_put_back": put_back})
            del self._late[:late]

    def _room(self) -> int:
        """Items that may be taken from Redis' list."""
        room = max(0, self._late_max - len(self._late)) // LATE_LINES_EACH
        if room == 0 and not self._late_waits:
            log.error("what gateways tell late waits in redis until postgres is back", lines=len(self._late))
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
        holds a name, and the highest epoch that the gateway has seen. Raises LedgerUnavailable."""
        name, _, seen = question.partition(" ")
        above = int(seen) if seen.isdecimal() else 0
        try:
            vouched = await self.epochs.is_vouched(await self.epochs.front(), afresh=True)
            if not vouched or self.epoch < above:
                await self.recover(above)
            answer = str(self.epoch)
        except StoreUnavailable as e:
            log.warning("a gateway asks whom to believe, and Postgres does not tell", reason=str(e))
            answer = DOUBTED
        try:
            await self._redis.set(keys.answer_key(name), answer, ex=ANSWER_SECONDS)
        except RedisError as e:
            raise LedgerUnavailable(f"answering a gateway: {e}") from e

    async def is_believed(self, server: str, generations: Sequence[str | None]) -> bool:
        """Whether this process may charge on that server. Where no shard has a generation, nothing is there to charge.

        Raises StoreUnavailable."""
        held = [each for each in generations if each is not None]
        if not held:
            return True
        newest = await self.epochs.newest(Front(server, tuple(generations)))
        own = all(each.startswith(f"{server}:") for each in held)
        epoch = min(map(generation.epoch_of, held))
        return own and epoch == newest.number and newest.server in (server, "")

    async def recover(self, above: int = 0) -> Recovered | None:
        """Puts back what is missing, and vouches for Redis as it is, in an epoch above `above`; None where another
        control plane has done it.

        Raises StoreUnavailable, LedgerUnavailable."""
        async with self._lock, self._db.transaction() as connection:
            await sql.reconcile.lock_recovery(connection)
            newest, front = await self.epochs.read_newest(), await self.epochs.front()
            if front.is_in(newest) and newest.number >= above:
                return None
            nonce = os.urandom(8).hex()
            if front.is_from_before_epochs(newest):
                await self.epochs.begin(front.server, above, nonce, instead_of=front.generations)
                return None
            self._log_damage(front, newest)
            if front.restarted:
                await self._forget_connections()
            marks = await self.epochs.mark_rebuilding(nonce)
            await self._ledger.check_layout()
            if front.restarted:
                await asyncio.sleep(REJOIN_SECONDS)
            await self._fence_writers()
            late = self._late[:]
            reports = await gather(self._redis, late, f"{keys.FENCE}{nonce}" if front.restarted else nonce)
            restored = await self._restore(front, newest, reports)
            epoch = await self.epochs.begin(front.server, max(above, front.epoch), nonce, instead_of=marks)
            del self._late[: len(late)]
            await self._conclude(connection, front, newest, epoch, restored)
            return restored

    async def _restore(self, front: Front, newest: Epoch, reports: GatewayReports) -> Recovered:
        """Combines what gateways, Postgres and the streams know."""
        forked = front.forked_from(newest)
        ended = await self.epochs.ended_at(front.epoch) if forked else None
        strays = await self._missing.strays(await self._rolled_back.watermarks(), reports.void) if forked else {}
        lacking, since = await self._rolled_back.advance(await self._rolled_back.watermarks())
        await self._missing.append(strays, counted=True)
        put_back = await self._missing.put_back(reports)
        if forked:
            lacking = {*await self._rolled_back.written_since(ended), *(event.org for event in strays.values())}
        moved = await self._rolled_back.rebase(sorted(lacking), AUTHOR)
        outdated = 0
        if front.restarted:
            recent = moment(self._clock()) if since is None else min(since, moment(self._clock()))
            outdated = await self._rolled_back.drop_outdated(ended if forked else recent)
        return Recovered(
            takes_put_back=put_back,
            organizations_moved=moved,
            events_of_old_server=len(strays),
            organizations_outdated=outdated,
            takes_lost_at_most=reports.lost_takes,
            units_lost_at_most=reports.lost_units,
            gateways_silent=reports.silent,
        )

    async def _conclude(
        self, connection: Connection, front: Front, newest: Epoch, epoch: int, recovered: Recovered
    ) -> None:
        """Logs what was done, journals it, and opens an incident."""
        self.units_lost += recovered.units_lost_at_most
        first = newest.number == 0 and not front.restarted
        (log.info if first else log.warning)("redis is vouched for", epoch=epoch, **asdict(recovered))
        if front.restarted or any(asdict(recovered).values()):
            after = asdict(recovered) | {"epoch": epoch}
            if recovered.takes_lost_at_most or recovered.gateways_silent:
                await incidents.open(connection, self._clock(), "usage_lost", f"epoch {epoch}", None, after)
            await self._record(connection, "usage.recovered", after)

    async def _fence_writers(self) -> None:
        """When it returns, what writers have read before is either written, and so not put back, or will never be
        written.

        It waits for each transaction of a writer that is under way; Postgres ends one that hangs. A later transaction
        finds the fence raised. The rows are locked only for a moment, since counters can be corrected only after
        writers have caught up."""
        shards = list(range(self._ledger.shards))
        async with self._db.connection() as connection:
            await sql.usage.create_watermarks(connection, shards=shards)
        async with self._db.transaction() as connection:
            await sql.usage.lock_watermarks(connection, shards=shards)
            await sql.usage.raise_fences(connection, shards=shards)

    def _log_damage(self, front: Front, newest: Epoch) -> None:
        if newest.number == 0 and not front.restarted:
            log.info("redis is vouched for the first time", server=front.server)
        elif not front.restarted:
            log.warning("redis lost its memory", server=front.server)
        elif newest.server == front.server:
            log.warning("redis was put together only in part", server=front.server)
        elif front.epoch < newest.number:
            log.warning("redis is a server from before", server=front.server, epoch=front.epoch, newest=newest.number)
        else:
            log.warning("redis is another server", server=front.server)

    async def _forget_connections(self) -> None:
        """Closes idle connections: they may lead to the server that was in front before."""
        for pool in (self._redis.connection_pool, *self.other_pools):
            try:
                await pool.disconnect(inuse_connections=False)
            except (RedisError, OSError) as e:
                log.info("a connection to the server before could not be ended", reason=str(e))

    async def _record(self, connection: Connection, action: Action, after: Mapping[str, Any]) -> None:
        await incidents.open(connection, self._clock(), action.replace(".", "_"), "redis", None, after)
        await journal.record(connection, AUTHOR, self._clock(), [Change(action, None, None, dict(after))])
