"""What went back with Redis, and is brought to where Postgres knows it to be: streams, counters, entitlements."""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, cast

import structlog
from redis.exceptions import RedisError

from control import sql
from control.db import Database
from control.journal import Author
from control.ledger.streams import StreamId
from control.moments import moment
from control.reconcile.missing_events import RECENT_SECONDS
from control.reconcile.scan import Scan, WriterBehind
from quota import keys
from quota.calls.snapshots import version_of
from quota.ledger import Ledger, LedgerUnavailable

log = structlog.get_logger()

BEHIND_SECONDS = 0.2
BEHIND_ATTEMPTS = 25
MARGIN = timedelta(seconds=2 * RECENT_SECONDS)
PUBLISHED_PAGE = 2_000
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

    async def advance(self, watermarks: Mapping[int, StreamId]) -> tuple[set[str], datetime | None]:
        """Has all streams continue after their watermarks; the organizations with events that Redis does not have, and
        since when it lacks some."""
        lacking, since = set[str](), None
        for shard, watermark in watermarks.items():
            last = await self._ledger.advance(shard, str(watermark))
            if last and (end := StreamId.parse(last.encode())) < watermark:
                async with self._db.connection() as connection:
                    lacking |= set(
                        await sql.reconcile.written_after(
                            connection,
                            shard=self._db.region.stored(shard),
                            stream_ms=end.ms,
                            since=moment(end.ms // 1000),
                        )
                    )
                ended = moment(end.ms / 1000)
                since = ended if since is None else min(since, ended)
        return lacking, since

    async def written_since(self, since: datetime | None) -> set[str]:
        """Organizations with events since then; None: all."""
        if since is None:
            return {org async for page in self._scan.organizations() for org in page}
        async with self._db.connection() as connection:
            return set(
                await sql.reconcile.written_since(connection, region=self._db.region.number, since=since - MARGIN)
            )

    async def rebase(self, orgs: Sequence[str], author: Author) -> int:
        """Moves their counters to where the events say they are; how many organizations that were.

        Raises StoreUnavailable, LedgerUnavailable."""
        if not orgs:
            return 0
        for _ in range(BEHIND_ATTEMPTS):
            try:
                mismatches = await self._scan.check(orgs, rolled_back=True)
                break
            except WriterBehind as e:
                log.info("recovery waits for the writer", reason=str(e))
                await asyncio.sleep(BEHIND_SECONDS)
        else:
            raise LedgerUnavailable("the writer is too far behind to tell what Redis lost")
        for mismatch in mismatches:
            await self._scan.repair(mismatch, author)
        return len(mismatches)

    async def drop_outdated(self, since: datetime | None, shards: Collection[int]) -> int:
        """Organizations of these shards of which Redis holds an older entitlement than was published since then: they
        are forgotten there, and loaded as they are when somebody asks. How many they were."""
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
            page = [(row.org, row.published_version) for row in rows if self._shard(row.org) in shards]
            org_keys = [keys.org_key(org, self._ledger.shards) for org, _ in page]
            try:
                async with self._redis.pipeline(transaction=False) as pipeline:
                    for key in org_keys:
                        pipeline.hget(key, "e")
                    heads = await pipeline.execute()
                outdated = [
                    key
                    for key, head, (_, version) in zip(org_keys, heads, page, strict=True)
                    if head is not None and version_of(head) < version
                ]
                for key in outdated:
                    await self._redis.delete(key)
            except RedisError as e:
                raise LedgerUnavailable(f"looking at entitlements: {e}") from e
            dropped, after = dropped + len(outdated), rows[-1].org

    async def lapse(self, shards: Collection[int]) -> int:
        """Ends the leases of all organizations of these shards, which have lost their memory; how many there were.

        Raises StoreUnavailable, LedgerUnavailable."""
        ended = 0
        async for page in self._scan.organizations():
            by_shard: dict[int, list[str]] = {}
            for org in page:
                if (shard := self._shard(org)) in shards:
                    by_shard.setdefault(shard, []).append(org)
            for orgs in by_shard.values():
                for at in range(0, len(orgs), LAPSED_AT_ONCE):
                    ended += await self._ledger.lapse(orgs[at : at + LAPSED_AT_ONCE])
        return ended

    def _shard(self, org: str) -> int:
        return keys.shard_of(org, self._ledger.shards)
