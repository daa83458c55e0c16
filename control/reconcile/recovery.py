"""What Redis lost is recognised, and put back, before another unit is given away.

Each shard has a generation: the Redis server (its run id) that its counters were vouched for on, in which epoch, and a
nonce. A flush removes it; a restart or a failover leaves one of another server; a server that was put aside and comes
back names itself, in an epoch that is over: the newest is in Postgres. Then gateways admit nothing
(docs/decisions/0011), and this service puts together what is known: the rows in Postgres, the stream as far as Redis
still has it, and the takes that gateways were answered and nobody has confirmed to them. Events that are nowhere else
are appended again, counters that went back are moved to where the events say they are, and the shards get the next
epoch.
"""

import asyncio
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from typing import Any, NamedTuple, cast

import structlog
from redis.exceptions import RedisError

from common.clock import Clock, system_clock
from control import incidents, journal, sql
from control.db import Connection, Database, StoreUnavailable
from control.journal import Action, Author, Change
from control.ledger.clocks import LedgerClock
from control.ledger.streams import START, StreamId, Streams
from control.moments import moment
from control.reconcile.scan import Scan, WriterBehind
from quota import generation, keys
from quota.calls.publication import counter_fields
from quota.calls.repairs import pop_receipts_call
from quota.calls.snapshots import version_of
from quota.events import EventMalformed, Kind, UsageEvent, parse
from quota.generation import REBUILDING
from quota.ledger import Ledger, LedgerUnavailable, MemoryLost
from quota.model import MeterUsage
from quota.scripts import script

log = structlog.get_logger()

POLL_SECONDS = 0.25
ASK_AGAIN_SECONDS = 5.0  # of Postgres, whether another control plane has vouched for another server
REJOIN_SECONDS = 1.0  # after a restart, until the gateways listen again
GATHER_SECONDS = 2.0
QUIET_SECONDS = 0.5  # receipts that still come are waited for
POPPED_AT_ONCE = 1_000
LATE_MAX = 100_000  # lines that wait here for Postgres; the others wait in Redis, where gateways put them
LATE_LINES_EACH = 500  # of an item, about: gateway/ledger/receipts.py
RECENT_SECONDS = 60  # clocks differ, and failovers change them
APPENDED_AT_ONCE = 500
ASKED_AT_ONCE = 5_000
BEHIND_SECONDS = 0.2
BEHIND_ATTEMPTS = 25
ANSWER_SECONDS = 60
DOUBTED = "-"
"""The answer to a gateway that asks while nobody can tell: it waits."""
MARGIN = timedelta(seconds=2 * RECENT_SECONDS)
PUBLISHED_PAGE = 2_000
AUTHOR = Author("recovery", "recovery")
_KEPT = re.compile(r"([0-9]{1,15}) ([0-9]{1,15}) ([0-9]{1,15})")


@dataclass(frozen=True, slots=True)
class Recovered:
    takes_put_back: int
    """Takes that only gateways still knew."""
    organizations_moved: int = 0
    """Whose counters had gone back."""
    events_of_old_server: int = 0
    """That a server which was put aside had, and nobody had written."""
    organizations_outdated: int = 0
    """Whose entitlement had gone back: they are loaded anew."""
    takes_lost_at_most: int = 0
    """That gateways had been answered, remember no more, and do not know to be written."""
    units_lost_at_most: int = 0
    gateways_silent: int = 0
    """Workers that were asked and did not tell."""


class Epoch(NamedTuple):
    """What Postgres says was vouched for last; number 0: nothing was."""

    number: int
    server: str


class Front(NamedTuple):
    """The server that answers, and what it holds."""

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


def _lines(items: Sequence[bytes] | None) -> list[str]:
    return [line for item in items or () for line in item.decode("ascii", "replace").split("\n")]


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
        self._streams = streams
        self._scan = scan
        self._clock = clock
        self._ledger_clock = ledger_clock or LedgerClock()
        self._generation_keys = [keys.generation_key(shard) for shard in range(ledger.shards)]
        self._lock = asyncio.Lock()
        self._last: Epoch | None = None
        self._agreed: Front | None = None
        """With what Postgres said when it was asked last."""
        self._ask_at = 0.0  # loop time
        self._late: list[str] = []
        """What gateways told by themselves, until it is put back."""
        self._late_max = late_max
        self._late_waits = False
        self.units_lost = 0
        """At most, as gateways told it to this process."""
        self.other_pools: tuple[Any, ...] = ()
        """Of connections to the same Redis."""

    @property
    def epoch(self) -> int:
        """As far as this process knows."""
        return self._last.number if self._last is not None else 0

    async def run(self) -> None:
        """Until it is cancelled. Raises StoreUnavailable, LedgerUnavailable; whoever runs it starts it again."""
        while True:
            await self.round()
            await asyncio.sleep(POLL_SECONDS)

    async def look(self) -> None:
        """Reads Redis' time, for who needs it before the rounds begin. Raises LedgerUnavailable."""
        try:
            self._ledger_clock.heard(await self._redis.time())
        except RedisError as e:
            raise LedgerUnavailable(f"time: {e}") from e

    async def round(self) -> None:
        """Recovers if there is something to recover, and puts back what a gateway told late."""
        # Who has the lines is asked with them: after a failover, a kept connection leads elsewhere than a new one.
        front, lines = await self._pop_unasked(self._room())
        self._late += lines
        if not await self._is_vouched(front):
            await self._forget_connections()
            await self.recover()
        elif self._late:
            async with self._lock, self._db.transaction() as connection:
                await sql.reconcile.lock_recovery(connection)
                late = len(self._late)
                put_back = await self._put_back(_Told.of(self._late[:late]))
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
        """Tells a gateway that has just come whether the server in front is the one that was vouched for last. It asks
        with a name, and the highest epoch that it has seen. Raises LedgerUnavailable."""
        name, _, seen = question.partition(" ")
        above = int(seen) if seen.isdecimal() else 0
        try:
            if not await self._is_vouched(await self._front(), afresh=True) or self.epoch < above:
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
        last = await self._ask(Front(server, tuple(generations)))
        own = all(each.startswith(f"{server}:") for each in held)
        epoch = min(map(generation.epoch_of, held))
        return own and epoch == last.number and last.server in (server, "")

    async def recover(self, above: int = 0) -> Recovered | None:
        """Puts back what is missing and vouches for Redis as it is, in an epoch above `above`; None where somebody else
        has done it.

        Raises StoreUnavailable, LedgerUnavailable."""
        async with self._lock, self._db.transaction() as connection:
            await sql.reconcile.lock_recovery(connection)
            last, front = await self._read_last(), await self._front()
            if front.is_in(last) and last.number >= above:
                return None
            nonce = os.urandom(8).hex()
            if front.is_from_before_epochs(last):
                await self._vouch(front.server, above, nonce, instead_of=front.generations)
                return None
            restarted = any(held is not None for held in front.generations)
            # It holds an epoch that is over, or a recovery was cut short: it may have had a life of its own.
            forked = any(
                held is not None and (held.startswith(REBUILDING) or generation.epoch_of(held) != last.number)
                for held in front.generations
            )
            self._tell(front, last, restarted)
            if restarted:
                await self._forget_connections()
            marks = (f"{REBUILDING}{nonce}",) * self._ledger.shards
            await self._set_generations(marks)
            await self._ledger.check_layout()
            if restarted:
                await asyncio.sleep(REJOIN_SECONDS)
            await self._fence_writers()
            late = self._late[:]
            told = await self._gather(late, f"{keys.FENCE}{nonce}" if restarted else nonce)
            ended = await self._ended_at(front.epoch) if forked else None
            strays = await self._strays(told.void) if forked else {}
            lacking, since = await self._advance()
            await self._append(strays, counted=True)
            put_back = await self._put_back(told)
            if forked:
                lacking = {*await self._written_since(ended), *(event.org for event in strays.values())}
            moved = await self._rebase(sorted(lacking))
            outdated = 0
            if restarted:
                recent = moment(self._clock()) if since is None else min(since, moment(self._clock()))
                outdated = await self._drop_outdated(ended if forked else recent)
            epoch = await self._vouch(front.server, max(above, front.epoch), nonce, instead_of=marks)
            del self._late[: len(late)]
            done = Recovered(put_back, moved, len(strays), outdated, *told.lost, told.silent)
            self.units_lost += done.units_lost_at_most
            first = last.number == 0 and not restarted
            (log.info if first else log.warning)("redis is vouched for", epoch=epoch, **asdict(done))
            if restarted or any(asdict(done).values()):
                after = asdict(done) | {"epoch": epoch}
                if done.takes_lost_at_most or done.gateways_silent:
                    await incidents.open(connection, self._clock(), "usage_lost", f"epoch {epoch}", None, after)
                await self._record(connection, "usage.recovered", after)
            return done

    async def _fence_writers(self) -> None:
        """What writers read before this is either written when it returns, and not put back, or never will be.

        It waits for each transaction of a writer that is under way; one that hangs is ended by Postgres. A later one
        finds the fence raised. The rows are locked only for a moment, since counters are put right only when writers
        have come to the end."""
        shards = list(range(self._ledger.shards))
        async with self._db.connection() as connection:
            await sql.usage.create_watermarks(connection, shards=shards)
        async with self._db.transaction() as connection:
            await sql.usage.lock_watermarks(connection, shards=shards)
            await sql.usage.raise_fences(connection, shards=shards)

    def _tell(self, front: Front, last: Epoch, restarted: bool) -> None:
        if last.number == 0 and not restarted:
            log.info("redis is vouched for the first time", server=front.server)
        elif not restarted:
            log.warning("redis lost its memory", server=front.server)
        elif last.server == front.server:
            log.warning("redis was put together only in part", server=front.server)
        elif front.epoch < last.number:
            log.warning("redis is a server from before", server=front.server, epoch=front.epoch, newest=last.number)
        else:
            log.warning("redis is another server", server=front.server)

    async def _forget_connections(self) -> None:
        """Those that were kept may lead to the server that was in front before."""
        for pool in (self._redis.connection_pool, *self.other_pools):
            try:
                await pool.disconnect(inuse_connections=False)
            except (RedisError, OSError) as e:
                log.info("a connection to the server before could not be ended", reason=str(e))

    async def _record(self, connection: Connection, action: Action, after: Mapping[str, Any]) -> None:
        await incidents.open(connection, self._clock(), action.replace(".", "_"), "redis", None, after)
        await journal.record(connection, AUTHOR, self._clock(), [Change(action, None, None, dict(after))])

    # Who is in front, and who was vouched for

    async def _front(self) -> Front:
        try:
            async with self._redis.pipeline(transaction=False) as pipeline:  # one connection, so it is one server
                self._ask_who(pipeline)
                who = await pipeline.execute()
        except RedisError as e:
            raise LedgerUnavailable(f"generations: {e}") from e
        return self._front_of(*who)

    def _ask_who(self, pipeline: Any) -> None:
        pipeline.info("server")
        pipeline.mget(self._generation_keys)
        pipeline.time()

    def _front_of(self, about: Any, generations: Any, time: Any) -> Front:
        self._ledger_clock.heard(time)
        return Front(about["run_id"], tuple(held and held.decode() for held in generations))

    async def _is_vouched(self, front: Front, *, afresh: bool = False) -> bool:
        return front.is_in(await self._ask(front, afresh=afresh))

    async def _ask(self, front: Front, *, afresh: bool = False) -> Epoch:
        """What was vouched for last. Asked of Postgres where somebody else is in front than was, and now and then.

        While Postgres is away nobody vouches for another, so what agreed does so still."""
        now = asyncio.get_running_loop().time()
        if self._last is not None and front == self._agreed and now < self._ask_at and not afresh:
            return self._last
        try:
            last = await self._read_last()
        except StoreUnavailable:
            if self._last is None or not front.is_in(self._last):
                raise
            last = self._last
        self._last, self._ask_at = last, now + ASK_AGAIN_SECONDS
        self._agreed = front if front.is_in(last) else None
        return last

    async def _read_last(self) -> Epoch:
        async with self._db.connection() as connection:
            row = await sql.reconcile.last_epoch(connection)
        return Epoch(0, "") if row is None else Epoch(row.epoch, row.server)

    async def _vouch(self, server: str, above: int, nonce: str, instead_of: Sequence[str | None]) -> int:
        # Committed before Redis has it: no gateway sees an epoch that Postgres could forget.
        async with self._db.connection() as connection:
            epoch: int = await sql.reconcile.vouch(connection, server=server, above=above)
        made = generation.made(server, epoch, nonce)
        await self._set_generations((made,) * self._ledger.shards, instead_of, server)
        self._last = Epoch(epoch, server)
        return epoch

    async def _set_generations(
        self, values: Sequence[str], instead_of: Sequence[str | None] | None = None, server: str | None = None
    ) -> None:
        """With `instead_of` and `server`: only there, and if they still are these. Raises LedgerUnavailable."""
        try:
            async with self._redis.pipeline(transaction=True) as pipeline:
                pipeline.info("server")
                pipeline.mget(self._generation_keys)
                pipeline.mset(dict(zip(self._generation_keys, values, strict=True)))
                about, before, _ = await pipeline.execute()
            if instead_of is not None and (
                about["run_id"] != server or [held and held.decode() for held in before] != list(instead_of)
            ):
                await self._redis.delete(*self._generation_keys)
                raise MemoryLost("Redis lost its memory while it was put back")
        except RedisError as e:
            raise LedgerUnavailable(f"generations: {e}") from e

    # What gateways know

    async def _gather(self, late: list[str], nonce: str) -> "_Told":
        """Of all gateways that listen, and of those that came by themselves, of which `late` is known already."""
        loop = asyncio.get_running_loop()
        try:
            listening = await self._redis.publish(keys.RECOVER, nonce)
        except RedisError as e:
            raise LedgerUnavailable(f"asking the gateways: {e}") from e
        deadline, lines, ended = loop.time() + GATHER_SECONDS, [*late], 0
        while True:
            popped = await self._pop()
            lines += popped
            ended += popped.count(f"end {nonce}")
            if popped:
                deadline = max(deadline, loop.time() + QUIET_SECONDS)
            elif ended >= listening or loop.time() >= deadline:
                break
            else:
                await asyncio.sleep(0.02)
        if ended < listening:
            log.warning("a gateway did not tell what it was answered", listening=listening, told=ended)
        return replace(_Told.of(lines), silent=max(0, listening - ended))

    async def _pop(self) -> list[str]:
        """The lines that gateways told the server in front, for a recovery that asked for them."""
        try:
            return _lines(await self._redis.lpop(keys.RECEIPTS, POPPED_AT_ONCE))
        except RedisError as e:
            raise LedgerUnavailable(f"receipts: {e}") from e

    async def _pop_unasked(self, at_once: int) -> tuple[Front, list[str]]:
        """The server in front, and the lines that gateways told it by themselves."""
        call = pop_receipts_call(at_once, self._ledger.shards)
        try:
            async with self._redis.pipeline(transaction=False) as pipeline:
                self._ask_who(pipeline)
                pipeline.eval(script(call.script).source, len(call.keys), *call.keys, *call.argv)
                *who, items = await pipeline.execute()
        except RedisError as e:
            raise LedgerUnavailable(f"generations and receipts: {e}") from e
        return self._front_of(*who), _lines(items)

    async def _put_back(self, told: "_Told") -> int:
        """Appends the takes among these that are neither in the stream nor in Postgres; how many those were."""
        by_shard: defaultdict[int, dict[str, UsageEvent]] = defaultdict(dict)
        for text, event in told.takes.items():
            by_shard[keys.shard_of(event.org, self._ledger.shards)][text] = event
        since_ms = max(0, await self._streams.now_ms() - int(1000 * (RECENT_SECONDS + told.oldest_seconds)))
        count = 0
        for shard, events in by_shard.items():
            missing = await self._not_written(await self._not_in_stream(shard, events, since_ms), since_ms)
            await self._append(missing, counted=False)
            count += len(missing)
        return count

    async def _append(self, events: Mapping[str, UsageEvent], *, counted: bool) -> None:
        """`counted`: the counters have them."""
        by_org: defaultdict[str, list[str]] = defaultdict(list)
        for text, event in events.items():
            by_org[event.org].append(text)
        for org, texts in by_org.items():
            for at in range(0, len(texts), APPENDED_AT_ONCE):
                part = texts[at : at + APPENDED_AT_ONCE]
                await self._ledger.append(org, part, {} if counted else _moves(events[text] for text in part))

    async def _not_in_stream(
        self, shard: int, events: Mapping[str, UsageEvent], since_ms: int
    ) -> dict[str, UsageEvent]:
        missing = dict(events)
        async for page in self._streams.tail(shard, StreamId(since_ms, 0)):
            for _, fields in page:
                missing.pop(fields[-1].decode("ascii", "replace"), None)
        return missing

    async def _not_written(self, events: Mapping[str, UsageEvent], since_ms: int) -> dict[str, UsageEvent]:
        missing, texts = dict(events), list(events)
        for at in range(0, len(texts), ASKED_AT_ONCE):
            part = {
                (e.kind.value, e.request_id): text for text in texts[at : at + ASKED_AT_ONCE] if (e := events[text])
            }
            async with self._db.connection() as connection:
                written = await sql.reconcile.recorded(
                    connection,
                    orgs=list({events[text].org for text in part.values()}),
                    request_ids=list({request_id for _, request_id in part}),
                    since=moment(since_ms // 1000),
                )
                for row in written:
                    if (text := part.get((row.kind, row.request_id))) is not None:
                        missing.pop(text, None)
        return missing

    # What a server knows that was put aside

    async def _strays(self, void: frozenset[str]) -> dict[str, UsageEvent]:
        """What it was told of and nobody has written, though Postgres has later events: the writer would pass it by.

        Not what `void` names: no gateway had its reply, so nothing was delivered for it."""
        strays: dict[str, UsageEvent] = {}
        for shard, watermark in (await self._watermarks()).items():
            held: dict[str, UsageEvent] = {}
            since_ms: int | None = None
            async for page in self._streams.tail(shard, START):
                for id_, fields in page:
                    at = StreamId.parse(id_)
                    if at > watermark:
                        break
                    since_ms = at.ms if since_ms is None else since_ms
                    text = fields[-1].decode("ascii", "replace")
                    try:
                        held[text] = parse(text)
                    except EventMalformed:
                        log.error("an old server holds what is no usage event", shard=shard, entry=text[:200])
            held = {text: event for text, event in held.items() if event.request_id not in void}
            if held:
                since_ms = max(0, (since_ms or 0) - RECENT_SECONDS * 1000)
                strays |= await self._not_written(held, since_ms)
        return strays

    # What Postgres knows

    async def _advance(self) -> tuple[set[str], datetime | None]:
        """Has all streams continue after their watermarks; the organizations with events that Redis does not have, and
        since when it lacks some."""
        lacking, since = set[str](), None
        for shard, watermark in (await self._watermarks()).items():
            last = await self._ledger.advance(shard, str(watermark))
            if last and (end := StreamId.parse(last.encode())) < watermark:
                async with self._db.connection() as connection:
                    rows = await sql.reconcile.written_after(
                        connection, shard=shard, stream_ms=end.ms, since=moment(end.ms // 1000)
                    )
                    lacking |= set(rows)
                ended = moment(end.ms / 1000)
                since = ended if since is None else min(since, ended)
        return lacking, since

    async def _watermarks(self) -> dict[int, StreamId]:
        async with self._db.connection() as connection:
            rows = await sql.usage.watermarks(connection)
            return {row.shard: StreamId(row.stream_ms, row.stream_seq) for row in rows}

    async def _ended_at(self, epoch: int) -> datetime | None:
        """When another server was vouched for than in this epoch; None: not known, so it may be long ago."""
        async with self._db.connection() as connection:
            ended: datetime | None = await sql.reconcile.ended_at(connection, epoch=epoch)
        return ended

    async def _written_since(self, since: datetime | None) -> set[str]:
        if since is None:
            return {org async for page in self._scan.organizations() for org in page}
        async with self._db.connection() as connection:
            rows = await sql.reconcile.written_since(connection, since=since - MARGIN)
            return set(rows)

    async def _drop_outdated(self, since: datetime | None) -> int:
        """Organizations of which Redis holds an older entitlement than was published since then: they are forgotten
        there, and loaded as they are when somebody asks. How many they were."""
        after, dropped = "", 0
        while True:
            async with self._db.connection() as connection:
                rows = await sql.reconcile.published_since(
                    connection, since=since and since - MARGIN, after=after, limit_rows=PUBLISHED_PAGE
                )
                page = [(row.org, row.published_version) for row in rows]
            if not page:
                return dropped
            org_keys = [keys.org_key(org, self._ledger.shards) for org, _ in page]
            try:
                async with self._redis.pipeline(transaction=False) as pipeline:
                    for key in org_keys:
                        pipeline.hget(key, "e")
                    heads = await pipeline.execute()
                old = [
                    key
                    for key, head, (_, version) in zip(org_keys, heads, page, strict=True)
                    if head is not None and version_of(head) < version
                ]
                for key in old:
                    await self._redis.delete(key)
            except RedisError as e:
                raise LedgerUnavailable(f"looking at entitlements: {e}") from e
            dropped, after = dropped + len(old), page[-1][0]

    async def _rebase(self, orgs: Sequence[str]) -> int:
        if not orgs:
            return 0
        for _ in range(BEHIND_ATTEMPTS):
            try:
                found = await self._scan.check(orgs, rolled_back=True)
                break
            except WriterBehind as e:
                log.info("recovery waits for the writer", reason=str(e))
                await asyncio.sleep(BEHIND_SECONDS)
        else:
            raise LedgerUnavailable("the writer is too far behind to tell what Redis lost")
        for one in found:
            await self._scan.repair(one, AUTHOR)
        return len(found)


@dataclass(frozen=True, slots=True)
class _Told:
    """What gateways told."""

    takes: dict[str, UsageEvent]
    """By their receipts."""
    void: frozenset[str]
    """Requests that were not forwarded, since no reply came to their takes."""
    oldest_seconds: float
    """How long ago the first of the takes was answered."""
    lost: tuple[int, int] = (0, 0)
    """Takes and units that are remembered no more, and may not be written."""
    silent: int = 0
    """Workers that did not tell."""

    @classmethod
    def of(cls, lines: Iterable[str]) -> "_Told":
        takes, void, oldest = dict[str, UsageEvent](), set[str](), 0.0
        lost_takes = lost_units = 0
        for text in lines:
            word, _, rest = text.partition(" ")
            if word == "void":
                void.add(rest)
            elif word == "kept" and (kept := _KEPT.fullmatch(rest)):
                ms, lost, units = map(int, kept.groups())
                oldest = max(oldest, ms / 1000)
                lost_takes, lost_units = lost_takes + lost, lost_units + units
            elif word != "end":
                try:
                    event = parse(text)
                except EventMalformed as e:
                    log.error("a gateway told what is no receipt", receipt=text[:200], reason=str(e))
                    continue
                if event.kind is Kind.TAKE:
                    takes[text] = event
        return cls(takes, frozenset(void), oldest, (lost_takes, lost_units))


def _moves(events: Iterable[UsageEvent]) -> dict[str, int]:
    """What events add to their organization's counters, by field."""
    moves: defaultdict[str, int] = defaultdict(int)
    for event in events:
        for meter, units, overage, burnt in event.charges:
            usage = MeterUsage(event.period_start, meter, units, sum(n for _, n in burnt), overage)
            flat = counter_fields([usage], dict(burnt))
            for field, n in zip(flat[::2], flat[1::2], strict=True):
                moves[str(field)] += int(n)
    return dict(moves)
