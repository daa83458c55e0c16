"""What Redis lost is recognised, and put back, before another unit is given away.

Each shard has a generation: the Redis server (its run id) that its counters were vouched for on, and a nonce. A flush
removes it; a restart or a failover leaves one of another server. Then gateways admit nothing (docs/decisions/0011), and
this service puts together what is known: the rows in Postgres, the stream as far as Redis still has it, and the takes
that gateways were answered in the last seconds. Events that are nowhere else are appended again, counters that went
back are moved to where the events say they are, and the shard gets its next generation.
"""

import asyncio
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import structlog
from redis.exceptions import RedisError

from control import incidents, journal
from control.db import Connection, Database, statements
from control.journal import Author, Change
from control.moments import moment
from control.reconcile.scan import Scan, WriterBehind
from control.usage.streams import StreamId, Streams
from quota import keys
from quota.clock import Clock, system_clock
from quota.events import EventMalformed, Kind, UsageEvent, parse
from quota.ledger import Ledger, LedgerUnavailable, MemoryLost, counter_fields
from quota.model import MeterUsage

log = structlog.get_logger()

POLL_SECONDS = 0.25
REJOIN_SECONDS = 1.0  # after a restart, until the gateways listen again
GATHER_SECONDS = 2.0
POPPED_AT_ONCE = 1_000
RECENT_SECONDS = 60  # receipts are at most ten seconds old; clocks differ, and failovers change them
APPENDED_AT_ONCE = 500
ASKED_AT_ONCE = 5_000
BEHIND_SECONDS = 0.2
BEHIND_ATTEMPTS = 25
REBUILDING = "-"
"""Begins a generation while it is being made: of no server, so gateways wait."""
AUTHOR = Author("recovery", "recovery")


@dataclass(frozen=True, slots=True)
class Recovered:
    put_back: int
    """Takes that only gateways still knew."""
    organizations: int
    """Whose counters had gone back."""


class Recovery:
    name = "recovery"

    def __init__(self, db: Database, ledger: Ledger, streams: Streams, scan: Scan, clock: Clock = system_clock) -> None:
        self._db = db
        self._ledger = ledger
        self._redis = cast("Any", ledger.redis)
        self._streams = streams
        self._scan = scan
        self._clock = clock
        self._lock = asyncio.Lock()

    async def run(self) -> None:
        """Until it is cancelled. Raises StoreUnavailable, LedgerUnavailable; whoever runs it starts it again."""
        while True:
            await self.round()
            await asyncio.sleep(POLL_SECONDS)

    async def round(self) -> None:
        """Recovers if there is something to recover, and puts back what a gateway told late."""
        server, generations = await self._state()
        if not _vouched(server, generations):
            await self.recover()
        elif late := await self._pop():
            async with self._lock, self._db.transaction() as connection:
                await statements("reconcile").lock_recovery(connection)
                put_back = await self._put_back(late)
                if put_back:
                    log.error("takes put back late: units may have been given away twice", takes=put_back)
                    await self._record(connection, "usage.put_back_late", Recovered(put_back, 0))

    async def generation(self, shard: int) -> str:
        """The shard's generation, made first where it is gone. Raises StoreUnavailable, LedgerUnavailable."""
        held = await self._ledger.generation(shard)
        if held is None or held.startswith(REBUILDING):
            await self.recover()
            held = await self._ledger.generation(shard)
        if held is None:
            raise MemoryLost("Redis lost its memory again")
        return held

    async def recover(self) -> Recovered | None:
        """Puts back what is missing and vouches for Redis as it is; None where somebody else has done it.

        Raises StoreUnavailable, LedgerUnavailable."""
        async with self._lock, self._db.transaction() as connection:
            await statements("reconcile").lock_recovery(connection)
            server, generations = await self._state()
            if _vouched(server, generations):
                return None
            nonce = os.urandom(8).hex()
            restarted = any(held is not None for held in generations)
            log.warning("redis lost its memory" if not restarted else "redis is another server", server=server)
            await self._set_generations(f"{REBUILDING}{nonce}")
            await self._ledger.check_layout()
            if restarted:
                await asyncio.sleep(REJOIN_SECONDS)
            receipts = await self._gather(nonce)
            gone_back = await self._advance()
            put_back = await self._put_back(receipts)
            organizations = await self._rebase(gone_back)
            await self._set_generations(f"{server}:{nonce}", instead_of=f"{REBUILDING}{nonce}")
            done = Recovered(put_back, organizations)
            log.warning("redis has its memory back", put_back=put_back, organizations=organizations)
            if restarted or put_back or organizations:
                await self._record(connection, "usage.recovered", done)
            return done

    async def _record(self, connection: Connection, action: str, done: Recovered) -> None:
        after = {"takes_put_back": done.put_back, "organizations_moved": done.organizations}
        await incidents.open(connection, self._clock(), action.replace(".", "_"), "redis", None, after)
        await journal.record(connection, AUTHOR, self._clock(), [Change(action, None, None, after)])

    async def _state(self) -> tuple[str, list[str | None]]:
        try:
            server = (await self._redis.info("server"))["run_id"]
            generations = [await self._ledger.generation(shard) for shard in range(self._ledger.shards)]
        except RedisError as e:
            raise LedgerUnavailable(f"generations: {e}") from e
        return server, generations

    async def _set_generations(self, value: str, instead_of: str | None = None) -> None:
        try:
            for shard in range(self._ledger.shards):
                key = keys.generation_key(shard)
                before = await self._redis.set(key, value, get=True)
                if instead_of is not None and (before is None or before.decode() != instead_of):
                    await self._redis.delete(key)
                    raise MemoryLost("Redis lost its memory while it was put back")
        except RedisError as e:
            raise LedgerUnavailable(f"generations: {e}") from e

    # What gateways know

    async def _gather(self, nonce: str) -> list[str]:
        """Receipts of all gateways that listen, and of those that came by themselves."""
        loop = asyncio.get_running_loop()
        try:
            listening = await self._redis.publish(keys.RECOVER, nonce)
        except RedisError as e:
            raise LedgerUnavailable(f"asking the gateways: {e}") from e
        deadline, receipts, ended = loop.time() + GATHER_SECONDS, list[str](), 0
        while True:
            told = await self._pop()
            receipts += [line for line in told if not line.startswith("end ")]
            ended += told.count(f"end {nonce}")
            if not told and (ended >= listening or loop.time() >= deadline):
                break
            if not told:
                await asyncio.sleep(0.02)
        if ended < listening:
            log.warning("a gateway did not tell what it was answered", listening=listening, told=ended)
        return receipts

    async def _pop(self) -> list[str]:
        try:
            items = await self._redis.lpop(keys.RECEIPTS, POPPED_AT_ONCE) or []
        except RedisError as e:
            raise LedgerUnavailable(f"reading receipts: {e}") from e
        return [line for item in items for line in item.decode("ascii", "replace").split("\n")]

    async def _put_back(self, receipts: Iterable[str]) -> int:
        """Appends the takes among these that are neither in the stream nor in Postgres; how many those were."""
        by_shard: defaultdict[int, dict[str, UsageEvent]] = defaultdict(dict)
        for text in receipts:
            try:
                event = parse(text)
            except EventMalformed as e:
                if not text.startswith("end "):
                    log.error("a gateway told what is no receipt", receipt=text[:200], reason=str(e))
                continue
            if event.kind is Kind.TAKE:
                by_shard[keys.shard_of(event.org, self._ledger.shards)][text] = event
        count = 0
        for shard, events in by_shard.items():
            missing = await self._not_written(await self._not_in_stream(shard, events))
            by_org: defaultdict[str, list[str]] = defaultdict(list)
            for text, event in missing.items():
                by_org[event.org].append(text)
            for org, texts in by_org.items():
                for at in range(0, len(texts), APPENDED_AT_ONCE):
                    part = texts[at : at + APPENDED_AT_ONCE]
                    await self._ledger.append(org, part, _moves(missing[text] for text in part))
            count += len(missing)
        return count

    async def _not_in_stream(self, shard: int, events: Mapping[str, UsageEvent]) -> dict[str, UsageEvent]:
        since = StreamId(max(0, await self._streams.now_ms() - RECENT_SECONDS * 1000), 0)
        missing = dict(events)
        async for page in self._streams.tail(shard, since):
            for _, fields in page:
                missing.pop(fields[-1].decode("ascii", "replace"), None)
        return missing

    async def _not_written(self, events: Mapping[str, UsageEvent]) -> dict[str, UsageEvent]:
        missing, texts = dict(events), list(events)
        since = moment(max(0, await self._streams.now_ms() / 1000 - RECENT_SECONDS))
        for at in range(0, len(texts), ASKED_AT_ONCE):
            part = {events[text].request_id: text for text in texts[at : at + ASKED_AT_ONCE]}
            async with self._db.connection() as connection:
                written = statements("reconcile").written(
                    connection,
                    orgs=list({events[text].org for text in part.values()}),
                    request_ids=list(part),
                    since=since,
                )
                for request_id in [row["request_id"] async for row in written]:
                    missing.pop(part[request_id], None)
        return missing

    # What Postgres knows

    async def _advance(self) -> list[str]:
        """Has all streams continue after their watermarks; the organizations with events that Redis does not have."""
        gone_back: list[str] = []
        async with self._db.connection() as connection:
            rows = statements("usage").watermarks(connection)
            watermarks = {row["shard"]: StreamId(row["stream_ms"], row["stream_seq"]) async for row in rows}
        for shard, watermark in watermarks.items():
            last = await self._ledger.advance(shard, str(watermark))
            if last and (end := StreamId.parse(last.encode())) < watermark:
                async with self._db.connection() as connection:
                    rows = statements("reconcile").written_after(
                        connection, shard=shard, stream_ms=end.ms, since=moment(end.ms // 1000)
                    )
                    gone_back += [row["org"] async for row in rows]
        return gone_back

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


def _vouched(server: str, generations: Iterable[str | None]) -> bool:
    return all(held is not None and held.startswith(f"{server}:") for held in generations)


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
