"""What went back with Redis, and is brought to where Postgres knows it to be: streams, counters, entitlements."""

import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from itertools import chain
from typing import Any, cast

import structlog
from redis.exceptions import RedisError

from control import sql
from control.at_once import at_once
from control.db import Database
from control.journal import Author
from control.ledger.streams import StreamId
from control.moments import moment
from control.reconcile.missing_events import RECENT_SECONDS
from control.reconcile.scan import Scan, WriterBehind
from quota import keys
from quota.calls.snapshots import version_of
from quota.ledger import ANOTHER, Ledger, LedgerUnavailable, MemoryLost
from quota.wire import SETTLED_SECONDS

log = structlog.get_logger()

AT_ONCE = 4  # shards or organizations: requests wait for all of them
BEHIND_SECONDS = 0.2
BEHIND_ATTEMPTS = 25
MARGIN = timedelta(seconds=2 * RECENT_SECONDS)
PUBLISHED_PAGE = 2_000
MARKED_AT_ONCE = 1_000
LAPSED_AT_ONCE = 500  # in one script: about a millisecond


class RolledBack:
    def __init__(self, db: Database, ledger: Ledger, scan: Scan) -> None:
        self._db = db
        self._ledger = ledger
        self._redis = cast("Any", ledger.redis)
        self._scan = scan

    async def watermarks(self) -> dict[int, StreamId]:
        async with self._db.connection() as connection:
            rows = await sql.usage.watermarks(connection, region=self._db.region.number)
        return {row.shard: StreamId(row.stream_ms, row.stream_seq) for row in rows}

    async def advance(
        self, watermarks: Mapping[int, StreamId], generations: Mapping[int, str]
    ) -> tuple[set[str], datetime | None]:
        """Has all streams continue after their watermarks, where the shards have these generations; the organizations
        with events that Redis does not have, and since when it lacks some.

        Raises StoreUnavailable, LedgerUnavailable."""
        each_at = ((shard, at, generations[shard]) for shard, at in watermarks.items())
        found = await at_once(AT_ONCE, (partial(self._advance, *each) for each in each_at))
        lacking = set(chain.from_iterable(orgs for orgs, _ in found))
        return lacking, min((ended for _, ended in found if ended is not None), default=None)

    async def _advance(self, shard: int, watermark: StreamId, generation: str) -> tuple[Sequence[str], datetime | None]:
        last = await self._ledger.advance(shard, str(watermark), generation)
        if not last or (end := StreamId.parse(last.encode())) >= watermark:
            return (), None
        async with self._db.connection() as connection:
            orgs = await sql.reconcile.written_after(
                connection, shard=self._db.region.stored(shard), stream_ms=end.ms, since=moment(end.ms // 1000)
            )
        return list(orgs), moment(end.ms / 1000)

    async def written_since(self, since: datetime | None) -> set[str]:
        """Organizations with events since then; None: all."""
        if since is None:
            return {org async for page in self._scan.organizations() for org in page}
        async with self._db.connection() as connection:
            return set(
                await sql.reconcile.written_since(connection, region=self._db.region.number, since=since - MARGIN)
            )

    async def rebase(self, orgs: Sequence[str], author: Author, generations: Mapping[int, str]) -> int:
        """Moves their counters to where the events say they are, where the shards have these generations; how many
        organizations that were.

        Raises StoreUnavailable, LedgerUnavailable."""
        by_shard = defaultdict[int, list[str]](list)
        for org in orgs:
            by_shard[self._shard(org)].append(org)
        checks = [partial(self._scan.check, each, rebuilding=generations) for each in by_shard.values()]
        for _ in range(BEHIND_ATTEMPTS):
            try:
                mismatches = list(chain.from_iterable(await at_once(AT_ONCE, checks)))
                break
            except WriterBehind as e:
                log.info("recovery waits for the writer", reason=str(e))
                await asyncio.sleep(BEHIND_SECONDS)
        else:
            raise LedgerUnavailable("the writer is too far behind to tell what Redis lost")
        await at_once(AT_ONCE, (partial(self._scan.repair, each, author) for each in mismatches))
        return len(mismatches)

    async def drop_outdated(self, since: datetime | None, generations: Mapping[int, str]) -> int:
        """Organizations of these shards, which have these generations, of which Redis holds an older entitlement than
        was published since then: they are forgotten there, and loaded as they are when somebody asks. How many they
        were.

        Raises StoreUnavailable, LedgerUnavailable."""
        after, dropped = "", 0
        while True:
            async with self._db.connection() as connection:
                rows = await sql.reconcile.published_since(
                    connection,
                    region=self._db.region.number,
                    since=since and since - MARGIN,
                    after=after,
                    limit_rows=PUBLISHED_PAGE,
                )
            if not rows:
                return dropped
            page = [(row.org, row.published_version) for row in rows if self._shard(row.org) in generations]
            heads = await self._where(generations, [("HGET", self._key(org), "e") for org, _ in page])
            outdated = [
                org
                for (org, version), head in zip(page, heads, strict=True)
                if head is not None and version_of(head) < version
            ]
            await self._where(generations, [("DEL", self._key(org)) for org in outdated])
            dropped, after = dropped + len(outdated), rows[-1].org

    async def _where(self, generations: Mapping[int, str], commands: Sequence[Sequence[str]]) -> list[Any]:
        """The replies of these commands, from where the shards have these generations. Raises LedgerUnavailable."""
        if not commands:
            return []
        try:
            async with self._redis.pipeline(transaction=False) as pipeline:
                for shard in generations:
                    pipeline.get(keys.generation_key(shard))
                for words in commands:
                    pipeline.execute_command(*words)
                replies = await pipeline.execute()
        except RedisError as e:
            raise LedgerUnavailable(f"what Redis went back to: {e}") from e
        held: list[Any] = replies[: len(generations)]
        found: list[Any] = replies[len(generations) :]
        if [each and each.decode() for each in held] != list(generations.values()):
            raise MemoryLost(f"what Redis went back to: {ANOTHER}")
        return found

    async def remember_settled(
        self, since: datetime | None, watermarks: Mapping[int, StreamId], generations: Mapping[int, str]
    ) -> None:
        """Marks the receipts of these shards, which have these generations, that Postgres knows to be settled since
        then, or where nobody knows since when Redis lacks some, since shortly before the newest event: a gateway that
        has no answer to its correction repeats it within seconds.

        Raises StoreUnavailable, LedgerUnavailable."""
        written = moment(max((at.ms for shard, at in watermarks.items() if shard in generations), default=0) / 1000)
        since = written if since is None else min(since, written)
        stored, org, request_id = self._db.region.all_stored(sorted(generations)), "", ""
        while True:
            async with self._db.connection() as connection:
                rows = await sql.reconcile.settled_since(
                    connection,
                    shards=stored,
                    since=max(since - MARGIN, moment(0)),
                    org=org,
                    request_id=request_id,
                    limit_rows=MARKED_AT_ONCE,
                )
            if not rows:
                return
            names = [keys.settled_key(row.org, self._ledger.shards, row.request_id) for row in rows]
            await self._where(generations, [("SET", name, "", "NX", "EX", str(SETTLED_SECONDS)) for name in names])
            org, request_id = rows[-1].org, rows[-1].request_id

    async def lapse(self, generations: Mapping[int, str]) -> int:
        """Ends the leases of all organizations of these shards, which have lost their memory and have these
        generations; how many there were.

        Raises StoreUnavailable, LedgerUnavailable."""
        ended = 0
        async for page in self._scan.organizations():
            by_shard: dict[int, list[str]] = {}
            for org in page:
                if (shard := self._shard(org)) in generations:
                    by_shard.setdefault(shard, []).append(org)
            for shard, orgs in by_shard.items():
                for at in range(0, len(orgs), LAPSED_AT_ONCE):
                    ended += await self._ledger.lapse(orgs[at : at + LAPSED_AT_ONCE], generations[shard])
        return ended

    def _key(self, org: str) -> str:
        return keys.org_key(org, self._ledger.shards)

    def _shard(self, org: str) -> int:
        return keys.shard_of(org, self._ledger.shards)
