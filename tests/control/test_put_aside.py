"""The promise: what is put together is put together on one server, though one that was put aside still answers."""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any, cast

import pytest
from redis.asyncio import Redis

from common import redis_connections
from control.entitlements.restore import exact_counters
from control.http.context import Context
from control.journal import Author
from control.ledger.nodes import nodes_of
from control.ledger.streams import StreamId, Streams
from control.reconcile.gateway_reports import GatewayReports, gather
from control.reconcile.missing_events import MissingEvents
from control.reconcile.rolled_back import RolledBack
from control.reconcile.scan import Scan
from quota import keys
from quota.generation import REBUILDING
from quota.ledger import Ledger, LedgerUnavailable, MemoryLost
from quota.recovery_message import RecoveryMessage
from tests.control.epochs import hold
from tests.control.plane import Entitled
from tests.control.usage import spend, used, write_all, written
from tests.replies import as_text

pytestmark = pytest.mark.usefixtures("vouched_streams")
MARK = f"{REBUILDING}0123"
KEEP_SECONDS = 3600


@dataclass
class Aside:
    """A server that was put aside, and has what the one in front has lost: an organization's take."""

    org: str
    shard: int
    take: str
    ledger: Ledger
    streams: Streams

    @property
    def reports(self) -> GatewayReports:
        """Of the gateway that remembers it."""
        return GatewayReports.parse([self.take])

    async def keys(self) -> dict[str, object]:
        """What it holds of the shard."""
        redis = self.ledger.redis
        return {name: await redis.dump(name) for name in (self.stream, keys.org_key(self.org, self.ledger.shards))}

    @property
    def stream(self) -> str:
        return keys.events_key(self.shard)


@pytest.fixture
async def aside(context: Context, entitled: Entitled, redis: Redis, redis_url: str) -> AsyncIterator[Aside]:
    """The database beside ours stands for it: connections to it are as good as those to another server."""
    org = await entitled("starter")
    shard = keys.shard_of(org, context.ledger.shards)
    await spend(context, org)
    any_redis = cast("Any", redis)
    [(_, fields)] = await any_redis.xrange(keys.events_key(shard))
    [take] = map(as_text, fields.values())
    for name in await any_redis.keys("*"):
        await any_redis.copy(name, name, destination_db=1)
    await redis.xtrim(keys.events_key(shard), maxlen=0, approximate=False)
    await hold(redis, MARK)
    async with redis_connections.client(f"{redis_url.rstrip('/')}/1") as other:
        ledger = Ledger(other, context.ledger.shards)
        yield Aside(org, shard, take, ledger, Streams(other, context.ledger.shards))


async def test_a_take_that_a_server_which_was_put_aside_still_has_is_put_back_at_the_one_in_front(
    context: Context, aside: Aside
) -> None:
    marks = {aside.shard: MARK}
    misled = MissingEvents(context.db, context.ledger, aside.streams)
    with pytest.raises(MemoryLost):
        await misled.put_back(aside.reports, marks)
    led = MissingEvents(context.db, context.ledger, context.streams)
    assert await led.put_back(aside.reports, marks) == 1
    await write_all(context)
    assert len(await written(context, aside.org)) == 1


async def test_events_that_nobody_has_written_are_not_looked_for_at_another_server(
    context: Context, aside: Aside
) -> None:
    misled = MissingEvents(context.db, context.ledger, aside.streams)
    with pytest.raises(MemoryLost):
        await misled.strays({aside.shard: StreamId(2**62, 0)}, frozenset(), {aside.shard: MARK})


STEPS: dict[str, Callable[[RolledBack, Aside], Awaitable[object]]] = {
    "streams": lambda back, at: back.advance({at.shard: StreamId(2**62, 0)}, {at.shard: MARK}),
    "counters": lambda back, at: back.rebase([at.org], Author("tests", "tests"), {at.shard: MARK}),
    "entitlements": lambda back, at: back.drop_outdated(None, {at.shard: MARK}),
    "leases": lambda back, at: back.lapse({at.shard: MARK}),
}


@pytest.mark.parametrize("step", STEPS)
async def test_nothing_of_another_server_is_taken_for_that_of_the_one_in_front_or_changed(
    context: Context, aside: Aside, step: str
) -> None:
    before = await aside.keys()
    scan = Scan(context.db, aside.ledger, aside.streams, KEEP_SECONDS, context.clock)
    with pytest.raises(MemoryLost):
        await STEPS[step](RolledBack(context.db, aside.ledger, scan), aside)
    assert await aside.keys() == before


async def test_drift_that_is_measured_at_another_server_is_not_repaired_at_the_one_in_front(
    context: Context, aside: Aside
) -> None:
    await aside.ledger.redis.hincrby(keys.org_key(aside.org, context.ledger.shards), *await a_counter(aside))
    [mismatch] = await Scan(context.db, aside.ledger, aside.streams, KEEP_SECONDS, context.clock).check([aside.org])
    before = await used(context, aside.org)
    assert not await context.scan.repair(mismatch, Author("tests", "tests"))
    assert await used(context, aside.org) == before


async def a_counter(aside: Aside) -> tuple[str, int]:
    """Of the organization, and by how much it is wrong."""
    fields = await aside.ledger.redis.hkeys(keys.org_key(aside.org, aside.ledger.shards))
    return next(name for name in map(as_text, fields) if name.startswith("used:")), 7


async def test_counters_are_not_computed_from_the_events_of_another_server(context: Context, aside: Aside) -> None:
    with pytest.raises(MemoryLost):
        await exact_counters(context.db, aside.streams, aside.org, KEEP_SECONDS, context.clock(), generation=MARK)


async def test_gateways_are_not_asked_at_another_server(aside: Aside) -> None:
    nodes = nodes_of(aside.ledger.redis, aside.ledger.shards)
    with pytest.raises(MemoryLost):
        await gather(aside.ledger.redis, nodes, [], RecoveryMessage("0123", True, 9), {aside.shard: MARK})


async def test_another_server_than_the_one_that_was_looked_at_is_not_put_together(context: Context) -> None:
    [front] = await context.recovery.epochs.fronts()
    with pytest.raises(LedgerUnavailable):
        await context.recovery.epochs.mark_rebuilding(replace(front, server="another"), "0123")
