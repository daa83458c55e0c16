"""The link as the settings have it."""

import asyncio
from functools import partial

from gateway.ledger.durability import Confirmed, InMemory, Level, MakeDurability
from gateway.ledger.link import Link
from gateway.ledger.receipts import Receipts
from gateway.redis.connection import ReplyTimes
from gateway.redis.vouching import SeenEpochs
from gateway.settings.intervals import DEFAULT_INTERVALS, Intervals
from gateway.settings.redis import Redis


def link_of(
    loop: asyncio.AbstractEventLoop,
    settings: Redis,
    seen: SeenEpochs | None = None,
    intervals: Intervals = DEFAULT_INTERVALS,
) -> Link:
    """Keeps the durability level of the settings. `seen` is shared by the workers of one gateway."""
    return Link(
        loop,
        settings.url.get_secret_value(),
        settings.shards,
        ReplyTimes(settings.timeout_ms / 1000, settings.budget_ms / 1000),
        seen=seen,
        receipts=Receipts(settings.receipts_max, intervals),
        unwritten_seconds_max=settings.unwritten_seconds_max,
        durability=durability_of(loop, settings, intervals),
        intervals=intervals,
    )


def durability_of(loop: asyncio.AbstractEventLoop, settings: Redis, intervals: Intervals) -> MakeDurability:
    """The level of the settings."""
    if settings.durability == "memory":
        return InMemory
    copies = settings.replicas if settings.durability == "replica" else 1
    level = Level(settings.durability, copies, settings.durability_ms)
    return partial(Confirmed, loop=loop, level=level, intervals=intervals)
