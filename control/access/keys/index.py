"""The index by which gateways find a key's organization: it is filled again wherever Redis has lost it.

A key is indexed before it is published. What is missing in an index that is marked as complete is no key. The marker
holds the shard's generation, so that one of before a flush, a failover or a rollback marks nothing.
"""

import asyncio
from collections.abc import Mapping
from typing import Any, Final, cast

import structlog
from redis.exceptions import RedisError

from control import sql
from control.db import Database
from control.ledger.nodes import groups_of
from quota import keys
from quota.generation import REBUILDING
from quota.ledger import Ledger, LedgerUnavailable

log = structlog.get_logger()

ROUND_SECONDS: Final = 1.0  # a key that is not found is refused with 503 until its shard's index is complete
PAGE: Final = 10_000


class KeyIndex:
    name = "key index"

    def __init__(self, db: Database, ledger: Ledger) -> None:
        self._db = db
        self._ledger = ledger

    async def run(self) -> None:
        """Until it is cancelled. Raises StoreUnavailable, LedgerUnavailable; whoever runs it starts it again."""
        while True:
            await self.round()
            await asyncio.sleep(ROUND_SECONDS)

    async def round(self) -> int:
        """Fills the index of shards where it is not complete; returns how many they were."""
        incomplete = await self._incomplete()
        if not incomplete:
            return 0
        indexed = await self._fill(incomplete)
        marked = [await self._ledger.mark_index(shard, generation) for shard, generation in incomplete.items()]
        log.info("the index of keys is complete", shards=sum(marked), keys=indexed)
        return sum(marked)

    async def _incomplete(self) -> dict[int, str]:
        """Shards and the generations in which they are to be marked. One that is being rebuilt has its turn later."""
        redis, shards = cast("Any", self._ledger.redis), range(self._ledger.shards)
        try:
            async with redis.pipeline(transaction=False) as pipeline:
                for group in groups_of(redis, self._ledger.shards):
                    pipeline.mget([*map(keys.generation_key, group), *map(keys.key_index_marker, group)])
                replies = await pipeline.execute()
        except RedisError as e:
            raise LedgerUnavailable(f"looking at the index of keys: {e}") from e
        generations = [value for reply in replies for value in reply[: len(reply) // 2]]
        markers = [value for reply in replies for value in reply[len(reply) // 2 :]]
        return {
            shard: generation.decode()
            for shard, generation, marker in zip(shards, generations, markers, strict=True)
            if generation is not None and generation != marker and not generation.decode().startswith(REBUILDING)
        }

    async def _fill(self, shards: Mapping[int, str]) -> int:
        after, count = 0, 0
        while True:
            async with self._db.connection() as connection:
                rows = await sql.keys.indexed(connection, after=after, limit_rows=PAGE)
            owners = {
                row.digest: row.org for row in rows if keys.shard_of_digest(row.digest, self._ledger.shards) in shards
            }
            await self._ledger.index(owners)
            count += len(owners)
            if len(rows) < PAGE:
                return count
            after = rows[-1].number
