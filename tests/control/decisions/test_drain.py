"""What gateways tell of refusals is in the database once, whatever dies in between, and what is not kept is counted."""

from typing import Any

import pytest
from httpx import AsyncClient
from redis.asyncio import Redis

from control.app import opened
from control.db import StoreUnavailable
from control.decisions.drain import RefusalDrain
from control.http.context import Context
from control.settings.control_plane import Settings
from quota import keys
from quota.kept_refusals import FIELD, Batch, Refused, encode, words_of
from quota.model import NotInPlan
from tests.control.plane import Entitled, MovedClock

DAYS = 30


def refused(number: int, at: float, org: str | None = "acme", **fields: Any) -> Refused:
    whole = Refused(
        f"a1b2c3d4e5{number:010d}",
        None,
        int(at * 1_000_000),
        org,
        None,
        None,
        "api",
        "GET",
        403,
        "not_in_plan",
        False,
        "The plan does not include the meter t.",
        {"t": 1, "api_calls": 2},
        7,
        "",
        words_of(NotInPlan("t")),
    )
    return whole._replace(**fields)


@pytest.fixture(autouse=True)
async def none_of_the_test_before(context: Context) -> None:
    async with context.db.connection() as connection:
        for table in ("refusal", "refusal_count", "refusal_source"):
            await connection.execute(f"DELETE FROM {table}")


@pytest.fixture
def drained(context: Context, clock: MovedClock) -> RefusalDrain:
    return RefusalDrain(context.db, context.ledger.redis, DAYS, clock)


async def tell(redis: Redis, *batches: Batch) -> None:
    for batch in batches:
        await redis.xadd(keys.REFUSALS, {FIELD: encode(batch)})


async def rows(context: Context, what: str) -> list[tuple[Any, ...]]:
    async with context.db.connection() as connection:
        return [tuple(row) for row in await connection.fetch(what)]


COUNTS = "SELECT org, refused, kept FROM refusal_count ORDER BY org"
IDS = "SELECT request_id FROM refusal ORDER BY request_id"


async def test_a_batch_becomes_rows_and_counts_and_leaves_the_stream(
    context: Context, drained: RefusalDrain, redis: Redis, clock: MovedClock
) -> None:
    some = (refused(1, clock.now), refused(2, clock.now, None, key_id=None))
    await tell(redis, Batch("w1", "gw", 1, 12, {"acme": 10, "": 2}, some))
    assert await drained.round() == 1
    assert await drained.round() == 0
    assert await rows(context, "SELECT request_id, org, charges, said->>'is', gateway FROM refusal ORDER BY 1") == [
        (some[0].request_id, "acme", [["t", 1], ["api_calls", 2]], "not_in_plan", "gw"),
        (some[1].request_id, None, [["t", 1], ["api_calls", 2]], "not_in_plan", "gw"),
    ]
    assert await rows(context, COUNTS) == [("", 2, 1), ("acme", 10, 1)]
    assert await redis.xlen(keys.REFUSALS) == 0


async def test_what_dies_between_the_commit_and_the_stream_is_written_once(
    context: Context, drained: RefusalDrain, redis: Redis, clock: MovedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = Batch("w1", "gw", 1, 1, {"acme": 1}, (refused(1, clock.now),))
    await tell(redis, batch)

    with monkeypatch.context() as patched:
        patched.setattr(drained, "_redis", _Reading(redis))
        with pytest.raises(StoreUnavailable):
            await drained.round()
    assert await rows(context, COUNTS) == [("acme", 1, 1)]
    other = RefusalDrain(context.db, context.ledger.redis, DAYS, clock)
    assert await other.round() == 1
    assert await rows(context, COUNTS) == [("acme", 1, 1)]
    assert len(await rows(context, IDS)) == 1


class _Reading:
    """A Redis that is gone before anything is taken out."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    def __getattr__(self, name: str) -> Any:
        if name == "xdel":
            raise StoreUnavailable("the power is gone")
        return getattr(self._redis, name)


async def test_what_was_lost_on_the_way_is_known_by_the_next_batch_of_its_worker(
    context: Context, drained: RefusalDrain, redis: Redis, clock: MovedClock
) -> None:
    await tell(redis, Batch("w1", "gw", 1, 5, {"acme": 5}, ()))
    await tell(redis, Batch("w1", "gw", 3, 25, {"acme": 4}, (refused(1, clock.now),)))
    await tell(redis, Batch("w2", "gw", 1, 1, {"globex": 1}, ()))
    await drained.round()
    assert await rows(context, COUNTS) == [("", 16, 0), ("acme", 9, 1), ("globex", 1, 0)]


async def test_what_is_no_batch_stops_nothing(
    context: Context, drained: RefusalDrain, redis: Redis, clock: MovedClock
) -> None:
    await redis.xadd(keys.REFUSALS, {FIELD: b"nothing"})
    await redis.xadd(keys.REFUSALS, {b"x": b"y"})
    await tell(redis, Batch("w1", "gw", 1, 1, {"acme": 1}, (refused(1, clock.now),)))
    assert await drained.round() == 3
    assert await rows(context, COUNTS) == [("acme", 1, 1)]


async def test_refusals_are_kept_for_so_many_days(
    context: Context, drained: RefusalDrain, redis: Redis, clock: MovedClock
) -> None:
    await drained.tidy()
    await tell(redis, Batch("w1", "gw", 1, 2, {"acme": 2}, (refused(1, clock.now), refused(2, 1000.0))))
    await drained.round()
    clock.move(days=DAYS - 2)
    await drained.tidy()
    assert len(await rows(context, IDS)) == 1, "that of a gateway whose clock is wrong goes first"
    clock.move(days=4)
    await drained.tidy()
    assert await rows(context, IDS) == []
    assert await rows(context, COUNTS) == []
    assert await rows(context, "SELECT source FROM refusal_source") == []


async def test_two_control_planes_write_each_batch_once(
    context: Context, drained: RefusalDrain, settings: Settings, redis: Redis, clock: MovedClock
) -> None:
    batches = [Batch("w1", "gw", n, n, {"acme": 1}, (refused(n, clock.now),)) for n in range(1, 8)]
    await tell(redis, *batches)
    async with opened(settings, clock) as second:
        other = RefusalDrain(second.db, second.ledger.redis, DAYS, clock)
        await other._write(batches)
    await drained.round()
    assert await rows(context, COUNTS) == [("acme", 7, 7)]
    assert len(await rows(context, IDS)) == 7


async def test_each_change_of_what_gateways_decide_by_is_kept_once(
    context: Context, entitled: Entitled, admin: AsyncClient
) -> None:
    org = await entitled("tiny")
    await context.publisher.install(org)
    await admin.put(f"/v1/entitlements/{org}", json={"plan": "bulk"})
    await context.publisher.install(org)
    async with context.db.connection() as connection:
        await connection.execute("UPDATE publication SET version = nextval('publication_version') WHERE org = $1", org)
    await context.publisher.install(org)  # as for a key that changed
    found = await rows(
        context, f"SELECT terms->>'plan' FROM published_entitlement WHERE org = '{org}' ORDER BY version"
    )
    assert found == [("tiny",), ("bulk",)]
