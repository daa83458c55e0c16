"""The promise: a charge that was given back is given back once, whichever server is asked the second time."""

from collections.abc import Awaitable, Callable
from typing import Any, cast
from uuid import uuid4

import pytest
from redis.asyncio import Redis

from control.http.context import Context
from quota import keys
from quota.model import Admitted
from tests import charging
from tests.control.epochs import held, hold
from tests.control.plane import Entitled
from tests.control.usage import spend, used, write_all
from tests.replies import as_text

pytestmark = pytest.mark.usefixtures("vouched_streams")


async def given_back(context: Context, org: str) -> bytes:
    """A charge that was, and that both stores know to be; its receipt."""
    decision = await charging.take(context.ledger, org, uuid4().hex, {"api_calls": 3})
    assert isinstance(decision, Admitted)
    await spend(context, org)
    assert (await charging.settle(context.ledger, org, decision.receipt, {"api_calls": 0})).applied
    await write_all(context)
    return decision.receipt


async def lacks_what_came_last(context: Context, redis: Redis, org: str) -> None:
    """A replica is in front, which had not heard of the correction."""
    shard = keys.shard_of(org, context.ledger.shards)
    stream = keys.events_key(shard)
    any_redis = cast("Any", redis)
    *heard, (_, last) = await any_redis.xrange(stream)
    assert as_text(last[b"e"]).startswith("s "), "the correction"
    await redis.delete(stream, *await redis.keys(f"*:once:{org}:*"))
    for event_id, fields in heard:
        await any_redis.xadd(stream, fields, id=event_id)
    [text] = await held(redis)
    epoch = int(text.split(":")[1])
    await hold(redis, f"another:{epoch}:0123")


async def comes_back_from_another_life(context: Context, redis: Redis, org: str) -> None:
    """A server is in front that was put aside before, and says so."""
    await lacks_what_came_last(context, redis, org)
    await hold(redis, "another:1:0123")


async def is_flushed(context: Context, redis: Redis, org: str) -> None:
    await redis.flushall()


SERVERS: list[Callable[[Context, Redis, str], Awaitable[None]]] = [
    lacks_what_came_last,
    comes_back_from_another_life,
    is_flushed,
]


@pytest.mark.parametrize("server", SERVERS, ids=lambda each: each.__name__)
async def test_a_correction_that_is_repeated_at_a_server_that_never_heard_of_it_changes_nothing(
    context: Context,
    entitled: Entitled,
    redis: Redis,
    server: Callable[[Context, Redis, str], Awaitable[None]],
) -> None:
    org = await entitled("starter")
    receipt = await given_back(context, org)
    await server(context, redis, org)
    await context.recovery.round()
    again = await charging.settle(context.ledger, org, receipt, {"api_calls": 0})
    assert not again.applied
    await write_all(context)
    async with context.db.connection() as connection:
        rows = await connection.fetch("SELECT units FROM usage_event WHERE org = $1 AND kind = 'settle'", org)
    assert [row["units"] for row in rows] == [-3]
    assert await used(context, org) in (1, -1), "one unit, where Redis has been told of the organization again"


async def test_what_was_given_back_long_ago_is_not_marked_again(
    context: Context, entitled: Entitled, redis: Redis
) -> None:
    """Who repeats a correction does so within seconds; millions may have been settled in a day."""
    org = await entitled("starter")
    await given_back(context, org)
    async with context.db.connection() as connection:
        await connection.execute("UPDATE usage_watermark SET stream_ms = stream_ms + 600000")
    await redis.flushall()
    await context.recovery.round()
    assert await redis.keys(f"*:once:{org}:*") == []
