"""The promise: a threshold of an allowance is an event once in a period, whatever dies and however many write."""

import asyncio
import json
import os
import random
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest
from httpx import AsyncClient
from redis.asyncio import Redis

from common.clock import system_clock
from control.db import StoreUnavailable
from control.http.context import Context
from control.notifications.notifier import Notifier
from control.settings.control_plane import Notifications, Settings, WriterSettings
from control.usage import writer as writer_module
from control.usage.thresholds import (
    NEVER,
    AllowanceTerms,
    Counter,
    ThresholdCheck,
    Thresholds,
    check_counter,
)
from control.usage.writer import Writer
from quota import keys
from quota.periods import CALENDAR_ANCHOR, Period, Schedule, add_months
from tests.control.plane import Entitled, MovedClock
from tests.control.receiver import SECRET, Receiver
from tests.expected import monthly_period

Use = Callable[..., Awaitable[None]]


def this_month() -> Period:
    """When it is asked for, not when the run began: a month may end in between."""
    return monthly_period(CALENDAR_ANCHOR, system_clock())


def next_month() -> Period:
    ends = this_month().end
    return Period(ends, add_months(ends, 1))


@pytest.fixture(autouse=True)
async def new_streams(context: Context) -> None:
    async with context.db.connection() as connection:
        await connection.execute("DELETE FROM usage_watermark; DELETE FROM notification; DELETE FROM threshold_review")


@pytest.fixture
def writer(context: Context) -> Writer:
    return make_writer(context)


def make_writer(context: Context) -> Writer:
    thresholds = Thresholds(context.db, (100, 80), context.streams.shards, True, context.clock)
    return Writer(context.db, context.streams, WriterSettings(), context.clock, thresholds)


@pytest.fixture
def use(redis: Redis, writer: Writer) -> Use:
    """Has events of so many units each in the stream, as `take` and `settle` append them, and written."""

    async def add(
        org: str, *units: int, meter: str = "api_calls", period: Period | None = None, write: bool = True
    ) -> None:
        start = (period or this_month()).start
        key = keys.events_key(keys.shard_of(org, keys.SHARDS_DEFAULT))
        for n in units:
            await redis.xadd(key, {"e": f"{'t' if n > 0 else 's'} {uuid4()} {org} {start} {meter}:{n}"})
        if write:
            await write_all(writer)

    return add


async def write_all(writer: Writer) -> None:
    await writer.resume()
    while not await writer.write():
        pass


async def reached(context: Context, org: str) -> list[tuple[Any, ...]]:
    """(meter, percent, allowance, used) of its thresholds, in their order; each is in the outbox once."""
    async with context.db.connection() as connection:
        rows = await connection.fetch(
            "SELECT meter, percent, allowance, used FROM threshold_event WHERE org = $1 ORDER BY 1, 2", org
        )
        bodies = await connection.fetch("SELECT body FROM notification WHERE org = $1", org)
    notified = [json.loads(row["body"])["data"] for row in bodies]
    events = [tuple(row) for row in rows]
    assert sorted((d["meter"], d["threshold_percent"], d["allowance"], d["used"]) for d in notified) == events
    return events


async def test_each_threshold_is_an_event_once_a_period(context: Context, entitled: Entitled, use: Use) -> None:
    org = await entitled("tiny", meters={"api_calls": 10})
    await use(org, 7)
    assert await reached(context, org) == []
    await use(org, 1)
    assert await reached(context, org) == [("api_calls", 80, 10, 8)]
    await use(org, 1)
    await use(org, 1, 5)
    await use(org, 100)
    assert await reached(context, org) == [("api_calls", 80, 10, 8), ("api_calls", 100, 10, 15)]
    await use(org, 9, period=next_month())
    assert len(await reached(context, org)) == 3, "the next period has its own"


async def test_what_is_told_has_organization_meter_period_allowance_and_use(
    context: Context, entitled: Entitled, use: Use, clock: MovedClock
) -> None:
    org = await entitled("tiny", meters={"api_calls": 10})
    await use(org, 9)
    async with context.db.connection() as connection:
        body = json.loads(await connection.fetchval("SELECT body FROM notification WHERE org = $1", org))
    assert body == {
        "type": "usage.threshold_reached",
        "timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(clock())),
        "data": {
            "org": org,
            "meter": "api_calls",
            "period_start": time.strftime("%Y-%m-01T00:00:00Z", time.gmtime(this_month().start)),
            "period_end": time.strftime("%Y-%m-01T00:00:00Z", time.gmtime(this_month().end)),
            "threshold_percent": 80,
            "allowance": 10,
            "used": 9,
        },
    }


async def test_a_counter_that_a_refund_takes_below_and_that_rises_again_fires_once(
    context: Context, entitled: Entitled, use: Use
) -> None:
    org = await entitled("tiny", meters={"api_calls": 10})
    for units in (8, -5, 5, -8, 8, -1, 1):
        await use(org, units)
    assert await reached(context, org) == [("api_calls", 80, 10, 8)]


async def test_a_larger_allowance_within_the_period_fires_only_what_was_not_fired(
    context: Context, admin: AsyncClient, entitled: Entitled, use: Use, clock: MovedClock
) -> None:
    org = await entitled("tiny", meters={"api_calls": 10})
    await use(org, 9)
    clock.move(seconds=1)
    await admin.put(f"/v1/entitlements/{org}", json={"plan": "tiny", "meters": {"api_calls": 100}})
    assert await review(context) == 1
    await use(org, 75)
    assert await reached(context, org) == [("api_calls", 80, 10, 9)]
    await use(org, 16)
    assert await reached(context, org) == [("api_calls", 80, 10, 9), ("api_calls", 100, 100, 100)]


async def test_a_smaller_allowance_fires_what_is_reached_with_it_though_nothing_is_used(
    context: Context, admin: AsyncClient, entitled: Entitled, use: Use, clock: MovedClock
) -> None:
    org = await entitled("tiny", meters={"api_calls": 100})
    await use(org, 30)
    clock.move(seconds=1)
    await admin.put(f"/v1/entitlements/{org}", json={"plan": "tiny", "meters": {"api_calls": 30}})
    assert await review(context) == 1
    expected = [("api_calls", 80, 30, 30), ("api_calls", 100, 30, 30)]
    assert await reached(context, org) == expected
    assert await review(context) == 0
    await use(org, 30)
    assert await reached(context, org) == expected


async def test_terms_that_come_into_force_later_count_from_then_on(
    context: Context, entitled: Entitled, use: Use, clock: MovedClock
) -> None:
    org = await entitled("tiny", meters={"api_calls": 100})
    await use(org, 30)
    async with context.db.connection() as connection:
        await connection.execute(
            """
            INSERT INTO entitlement_override (org, effective_from, allowances)
            VALUES ($1, $2, '{"api_calls": 30}')
            """,
            org,
            datetime.fromtimestamp(clock.now + 1, UTC),
        )
    assert await review(context) == 0
    assert await reached(context, org) == []
    clock.move(seconds=2)
    assert await review(context) == 1
    assert [percent for _, percent, _, _ in await reached(context, org)] == [80, 100]


async def review(context: Context) -> int:
    return await Thresholds(context.db, (80, 100), context.streams.shards, True, context.clock).review()


async def test_each_meter_has_its_own_and_what_has_no_allowance_has_none(
    context: Context, entitled: Entitled, use: Use
) -> None:
    org = await entitled("tiny", meters={"tokens": 1000, "free": 0})
    for meter in ("tokens", "free", "unknown"):
        await use(org, 800, meter=meter)
    await use(org, 80)  # the plan's own allowance is 100
    assert await reached(context, org) == [("api_calls", 80, 100, 80), ("tokens", 80, 1000, 800)]
    nobody = f"org-{uuid4().hex[:12]}"
    await use(nobody, 10**6)
    assert await reached(context, nobody) == []


async def test_a_batch_whose_counters_are_below_their_next_threshold_is_not_looked_at(
    context: Context, entitled: Entitled, use: Use, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[Sequence[Counter]] = []
    notice = Thresholds.notice

    async def noted(self: Thresholds, connection: Any, counters: Sequence[Counter]) -> None:
        looked.append(counters)
        await notice(self, connection, counters)

    monkeypatch.setattr(Thresholds, "notice", noted)
    org = await entitled("tiny", meters={"api_calls": 100})
    for units in (1, 1, 77, 1, 1, 18, 1, 1, 1):
        await use(org, units)
    assert [len(counters) for counters in looked] == [1, 0, 0, 1, 0, 0, 1, 0, 0]


@pytest.mark.parametrize("moment", ["before the commit", "after the commit"])
async def test_a_writer_that_dies_tells_it_once(
    context: Context, entitled: Entitled, use: Use, writer: Writer, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    org = await entitled("tiny", meters={"api_calls": 10})
    await use(org, 8, write=False)
    dying = make_writer(context)
    await dying.resume()
    if moment == "after the commit":
        await dying.write()  # and its memory is lost
    else:
        # The last step of the transaction, after all that is looked at here.
        async def die(*_: object) -> None:
            raise StoreUnavailable("the power is gone")

        monkeypatch.setattr(writer_module, "_open_incidents", die)
        with pytest.raises(StoreUnavailable):
            await dying.write()
        monkeypatch.undo()
        assert await reached(context, org) == []
    await write_all(writer)
    await use(org, 1)
    assert await reached(context, org) == [("api_calls", 80, 10, 8)]


async def test_two_writers_one_of_which_is_killed_again_and_again_tell_each_once(
    settings: Settings, context: Context, entitled: Entitled, use: Use, writer: Writer
) -> None:
    script = """if True:
        import asyncio, sys
        from redis.asyncio import Redis
        from control.db import Database
        from control.settings.control_plane import WriterSettings
        from control.ledger.streams import Streams
        from control.usage.thresholds import Thresholds
        from control.usage.writer import Writer
        from common.clock import system_clock

        async def main(dsn, url):
            async with Database.open(dsn) as db, Redis.from_url(url) as redis:
                settings = WriterSettings(poll_ms=1, batch_entries_max=300)
                thresholds = Thresholds(db, (80, 100), 32, True)
                writer = Writer(db, Streams(redis, 32), settings, system_clock, thresholds)
                await writer.resume()
                print("writing", flush=True)
                await writer.run()

        asyncio.run(main(*sys.argv[1:]))
    """
    stores = settings.postgres.dsn.get_secret_value(), settings.redis.url.get_secret_value()
    orgs = [await entitled("tiny", meters={"api_calls": 40}) for _ in range(8)]
    rng = random.Random(7)
    other = asyncio.create_task(writer.run())
    try:
        for _ in range(3):
            child = await asyncio.create_subprocess_exec(
                sys.executable, "-c", script, *stores, stdout=asyncio.subprocess.PIPE
            )
            assert child.stdout is not None
            await child.stdout.readline()
            deadline = time.monotonic() + rng.uniform(0.05, 0.2)
            while time.monotonic() < deadline:
                for org in orgs:
                    await use(org, 1, 1, -1, write=False)
            os.kill(child.pid, signal.SIGKILL)
            await child.wait()
    finally:
        other.cancel()
        await asyncio.gather(other, return_exceptions=True)
    for org in orgs:
        await use(org, *[1] * 40, write=False)
    await write_all(make_writer(context))
    for org in orgs:
        assert [(percent, allowance) for _, percent, allowance, _ in await reached(context, org)] == [
            (80, 40),
            (100, 40),
        ]


async def test_a_threshold_reaches_the_vendor(context: Context, entitled: Entitled, use: Use) -> None:
    org = await entitled("tiny", meters={"api_calls": 10})
    await use(org, 10)
    async with Receiver().listening() as receiver:
        settings = Notifications.model_validate({"url": receiver.url, "secret": SECRET})
        task = asyncio.create_task(Notifier(context.db, settings, context.clock).run())
        deliveries = await receiver.received(2)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    delivered = [json.loads(delivery.body)["data"] for delivery in deliveries]
    assert sorted((d["org"], d["threshold_percent"]) for d in delivered) == [(org, 80), (org, 100)]


async def test_without_an_endpoint_it_is_an_event_all_the_same(
    context: Context, entitled: Entitled, redis: Redis
) -> None:
    assert context.writer._thresholds is not None  # the control plane's own: its settings name no endpoint
    org = await entitled("tiny", meters={"api_calls": 10})
    key = keys.events_key(keys.shard_of(org, keys.SHARDS_DEFAULT))
    await redis.xadd(key, {"e": f"t r {org} {this_month().start} api_calls:8"})
    await write_all(context.writer)
    async with context.db.connection() as connection:
        assert await connection.fetchval("SELECT count(*) FROM threshold_event WHERE org = $1", org) == 1
        assert await connection.fetchval("SELECT count(*) FROM notification WHERE org = $1", org) == 0


async def test_an_event_of_no_period_is_written_and_measured_by_nothing(
    context: Context, entitled: Entitled, use: Use
) -> None:
    org = await entitled("tiny", meters={"api_calls": 10}, period_anchor="2026-01-15T00:00:00Z")
    for start in (0, 1, 99_999_999_999):
        await use(org, 10, period=Period(start, start + 1))
    assert await reached(context, org) == []


DAY = 86_400
MONTH = Period(0, 31 * DAY)


@pytest.mark.parametrize(
    ("used", "terms", "expected"),
    [
        (79, [AllowanceTerms(Schedule(0), 0, 100)], ThresholdCheck(MONTH, 100, [], 80)),
        (80, [AllowanceTerms(Schedule(0), 0, 100)], ThresholdCheck(MONTH, 100, [80], 100)),
        (100, [AllowanceTerms(Schedule(0), 0, 100)], ThresholdCheck(MONTH, 100, [80, 100], NEVER)),
        # 80 % of 3 are 2.4: three are needed
        (2, [AllowanceTerms(Schedule(0), 0, 3)], ThresholdCheck(MONTH, 3, [], 3)),
        (3, [AllowanceTerms(Schedule(0), 0, 3)], ThresholdCheck(MONTH, 3, [80, 100], NEVER)),
        (5, [AllowanceTerms(Schedule(0), 0, 0)], ThresholdCheck(MONTH, 0, [], NEVER)),
        (
            80,
            [AllowanceTerms(Schedule(0), DAY, 200), AllowanceTerms(Schedule(0), 0, 100)],
            ThresholdCheck(MONTH, 200, [], 160),
        ),
        # An event of a period that is over, written when the next terms are in force.
        (
            80,
            [AllowanceTerms(Schedule(0), 31 * DAY, 50), AllowanceTerms(Schedule(0), 0, 100)],
            ThresholdCheck(MONTH, 100, [80], 100),
        ),
        # Terms whose periods are counted from elsewhere.
        (
            80,
            [AllowanceTerms(Schedule(DAY), 5 * DAY, 50), AllowanceTerms(Schedule(0), 0, 100)],
            ThresholdCheck(MONTH, 100, [80], 100),
        ),
        (80, [], ThresholdCheck(None, 0, (), 160)),
        (2**62, [], ThresholdCheck(None, 0, (), NEVER)),
        (
            2**62,
            [AllowanceTerms(Schedule(0), 0, 2**63 - 1)],
            ThresholdCheck(MONTH, 2**63 - 1, [], -(-(2**63 - 1) * 80 // 100)),
        ),
    ],
)
def test_a_counter_is_measured_by_the_newest_terms_of_its_own_period(
    used: int, terms: list[AllowanceTerms], expected: ThresholdCheck
) -> None:
    assert check_counter(0, used, terms, (80, 100)) == expected
