"""Takes as a gateway makes them, and what it tells of refusals."""

import time
from typing import Any
from uuid import uuid4

from redis.asyncio import Redis

from control.decisions.drain import RefusalDrain
from control.http.context import Context
from quota import keys
from quota.access import Path, version_word
from quota.kept_refusals import FIELD, Batch, Refused, encode, words_of
from quota.model import Admitted, Decision
from tests import charging
from tests.control.plane import MovedClock
from tests.control.usage import write_all


class Gateway:
    """Takes as a gateway does, and tells of refusals as it does."""

    def __init__(self, context: Context, redis: Redis) -> None:
        self.context, self.redis = context, redis
        self.refused: list[Refused] = []
        self.sequence = 0

    async def take(
        self, org: str, charges: dict[str, int], key: dict[str, Any] | None = None, correlation: str | None = None
    ) -> tuple[str, Decision]:
        """Its id, and what the ledger said."""
        ledger, request_id = self.context.ledger, uuid4().hex[:20]
        snapshot = await ledger.peek(org)
        version = 0 if snapshot is None else snapshot.version
        limits, path = "", str(Path(org, None, None if key is None else key["id"]))
        if key is not None:
            async with self.context.db.connection() as connection:
                digest = await connection.fetchval("SELECT digest FROM api_key WHERE id = $1", key["id"])
            record = (await ledger.look(org, digest[:16])).record
            assert record is not None
            limits = record.limits
        word = version_word(version, [limits])
        decision = await charging.take(ledger, org, request_id, charges, path=path, version=word)
        if not isinstance(decision, Admitted):
            now_us = getattr(decision, "now_us", None)
            if now_us is None:
                seconds, microseconds = await self.redis.time()
                now_us = seconds * 1_000_000 + microseconds
            self.refused.append(
                Refused(
                    request_id,
                    correlation,
                    now_us,
                    org,
                    None if key is None else key["id"],
                    None,
                    "api",
                    "GET",
                    429,
                    "refused",
                    False,
                    "It is refused.",
                    charges,
                    version or None,
                    limits,
                    words_of(decision),
                )
            )
        return request_id, decision

    async def tell(self) -> list[Refused]:
        """All that it refused is in the database, and so is what it charged."""
        self.sequence += 1
        told, self.refused = self.refused, []
        batch = Batch("w1", "gw1", self.sequence, 1000, {}, tuple(told))
        await self.redis.xadd(keys.REFUSALS, {FIELD: encode(batch)})
        drain = RefusalDrain(self.context.db, self.context.ledger.redis, 30, self.context.clock)
        while await drain.round():
            pass
        await write_all(self.context)
        return told


async def install(context: Context, clock: MovedClock, org: str) -> None:
    """Publishes at the time of Redis, by which events are dated."""
    clock.now = time.time()
    await context.publisher.install(org)
