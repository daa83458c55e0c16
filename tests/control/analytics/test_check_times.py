"""How long quota checks took: what gateways tell is counted once, and read as percentiles."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest
from httpx import AsyncClient
from redis.asyncio import Redis

from control.analytics.check_times import CheckTimesDrain, at_most_ms, position_of
from control.http.context import Context
from gateway.observe.check_times import CheckTimesLog
from quota import keys
from quota.check_times import BUCKETS, FIELD, CheckTimes, CheckTimesMalformed, decode, encode
from tests.control.plane import MovedClock
from tests.replies import as_entries

AT = datetime(2026, 11, 20, 12, tzinfo=UTC)
MINUTE = int(AT.timestamp()) // 60


@pytest.fixture
async def drain(context: Context, redis: Redis, clock: MovedClock) -> CheckTimesDrain:
    clock.now = AT.timestamp()
    await redis.delete(keys.CHECK_TIMES)
    async with context.db.connection() as connection:
        await connection.execute("DELETE FROM check_time")
        await connection.execute("UPDATE check_time_position SET stream_ms = 0, stream_seq = 0")
    return CheckTimesDrain(context.db, redis, clock)


async def told(redis: Redis, minute: int, counts: dict[int, int]) -> None:
    await redis.xadd(keys.CHECK_TIMES, {FIELD: encode(CheckTimes(minute, counts)).encode()})


async def test_counts_of_all_gateways_are_added_up_and_percentiles_are_ends_of_their_ranges(
    drain: CheckTimesDrain, redis: Redis, admin: AsyncClient
) -> None:
    await told(redis, MINUTE, {9: 90, 10: 5})
    await told(redis, MINUTE, {9: 4, 14: 1})
    await told(redis, MINUTE - 24 * 60, {8: 1})
    assert await drain.round() == 3
    assert await redis.xlen(keys.CHECK_TIMES) == 0
    answer = (await admin.get("/v1/analytics/quota-check", params={"from": "2026-11-01", "to": "2026-12-01"})).json()
    assert answer["periods"] == [
        {"start": "2026-11-19T00:00:00Z", "checks": 1, "p50_ms": 0.256, "p95_ms": 0.256, "p99_ms": 0.256},
        {"start": "2026-11-20T00:00:00Z", "checks": 100, "p50_ms": 0.512, "p95_ms": 1.024, "p99_ms": 1.024},
    ]


async def test_what_was_written_and_not_taken_out_is_not_counted_again(
    drain: CheckTimesDrain, redis: Redis, context: Context
) -> None:
    await told(redis, MINUTE, {9: 90})
    [(entry, fields)] = as_entries(await redis.xrange(keys.CHECK_TIMES))
    await drain.round()
    await redis.xadd(keys.CHECK_TIMES, {FIELD: encode(CheckTimes(MINUTE, {9: 1})).encode()})
    # The control plane died between its commit and taking the entry out.
    again = [(position_of(entry), fields)]
    await drain.write(again)
    await drain.round()
    async with context.db.connection() as connection:
        assert await connection.fetchval("SELECT sum(checks)::int FROM check_time") == 91


async def test_what_is_no_count_is_left_out_and_stops_nothing(
    drain: CheckTimesDrain, redis: Redis, context: Context
) -> None:
    await redis.xadd(keys.CHECK_TIMES, {FIELD: b"nonsense"})
    await redis.xadd(keys.CHECK_TIMES, {b"other": b"\xff"})
    await told(redis, MINUTE, {9: 2})
    assert await drain.round() == 3
    async with context.db.connection() as connection:
        assert await connection.fetchval("SELECT sum(checks)::int FROM check_time") == 2


@pytest.mark.parametrize("text", ["", "1", "1 ", "1 2", "x 2:3", "1 2:3,2:4", f"1 {BUCKETS}:1", "1 2:-3", "1 2:3,"])
def test_a_text_that_is_no_count_is_refused(text: str) -> None:
    with pytest.raises(CheckTimesMalformed):
        decode(text)


def test_a_percentile_is_in_the_bucket_where_so_many_are_reached() -> None:
    assert [at_most_ms({10: 95, 11: 5}, share) for share in (50, 95, 96, 99)] == [1.024, 1.024, 2.048, 2.048]
    assert at_most_ms({}, 95) == 0.0


class Line:
    """A link to Redis that keeps what it is given, and answers what the test says."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.answer: Any = b"1-0"

    def call(self, data: bytes, callback: Any, /) -> None:
        self.sent.append(data)
        callback(self.answer)


async def test_a_worker_tells_what_it_counted_since_and_again_what_redis_did_not_take() -> None:
    line, histogram = Line(), [0] * (BUCKETS + 1)
    log = CheckTimesLog(asyncio.get_running_loop(), line, histogram, 60.0)
    log.flush()
    assert line.sent == [], "nothing was counted"
    histogram[9], histogram[BUCKETS] = 3, 1200
    line.answer = ConnectionError("Redis is away")
    log.flush()
    line.answer = b"1-0"
    histogram[9], histogram[11] = 5, 1
    log.flush()
    log.flush()
    assert [b" 9:3\r\n" in line.sent[0], b" 9:5,11:1\r\n" in line.sent[1], len(line.sent)] == [True, True, 2]
