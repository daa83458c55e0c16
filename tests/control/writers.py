"""Writers of a test, in its process and in others, and a load of events for all shards."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any
from uuid import uuid4

from redis.asyncio import Redis

from common.clock import system_clock
from control.background import Background
from control.http.context import Context
from control.settings.control_plane import WriterSettings
from control.usage.leases import Leases
from control.usage.writer import WATERMARKS_SECONDS, Writer
from quota import keys
from tests.expected import monthly_period

PERIOD = monthly_period(0, system_clock())
SHARDS = keys.SHARDS_DEFAULT
PATIENCE_SECONDS = 60.0

PROCESS = """if True:
    import asyncio, sys
    from redis.asyncio import Redis
    from control.background import Background
    from control.db import Database
    from control.settings.control_plane import WriterSettings
    from control.usage.leases import Leases
    from control.ledger.streams import Streams
    from control.usage.writer import Writer

    async def main(dsn, url, idle_seconds):
        async with Database.open(dsn) as db, Redis.from_url(url) as redis:
            settings = WriterSettings(poll_ms=5, batch_entries_max=3200)
            leases = Leases(db, 32, float(idle_seconds))
            async with Background([Writer(db, Streams(redis, 32), settings, leases=leases)]).running():
                await asyncio.Event().wait()

    asyncio.run(main(*sys.argv[1:]))
"""


def writer_of(context: Context, watermarks_seconds: float = WATERMARKS_SECONDS) -> Writer:
    settings, leases = WriterSettings(poll_ms=5, batch_entries_max=3200), Leases(context.db, SHARDS)
    return Writer(context.db, context.streams, settings, leases=leases, watermarks_seconds=watermarks_seconds)


@asynccontextmanager
async def running(*writers: Writer) -> AsyncIterator[None]:
    async with AsyncExitStack() as stack:
        for writer in writers:
            stack.push_async_callback(writer.release)
            await stack.enter_async_context(Background([writer]).running())
        yield


async def until(true: Callable[[], Any]) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            answer = true()
            if await answer if isinstance(answer, Awaitable) else answer:
                return
            await asyncio.sleep(0.01)


class Load:
    """Events of organizations in all shards, as `take` adds them."""

    def __init__(self, context: Context, redis: Redis) -> None:
        self.context, self.redis, self.added = context, redis, 0
        self.orgs = [f"org-{uuid4().hex[:12]}" for _ in range(100)]

    async def add(self, each: int = 1) -> None:
        async with self.redis.pipeline(transaction=False) as pipeline:
            for org in self.orgs * each:
                event: dict[Any, Any] = {"e": f"t {uuid4()} {org} {PERIOD.start} api_calls:1"}
                pipeline.xadd(keys.events_key(keys.shard_of(org, SHARDS)), event)
            await pipeline.execute()
        self.added += each * len(self.orgs)

    @asynccontextmanager
    async def flowing(self) -> AsyncIterator[None]:
        stopped = asyncio.Event()

        async def flow() -> None:
            while not stopped.is_set():
                await self.add()
                await asyncio.sleep(0.02)

        task = asyncio.create_task(flow())
        try:
            yield
        finally:
            stopped.set()
            await task

    async def written(self) -> tuple[int, int, int]:
        """Rows, distinct request ids, and what the counters add up to."""
        async with self.context.db.connection() as connection:
            row = await connection.fetchrow(
                """
                SELECT count(*), count(DISTINCT request_id),
                    (SELECT sum(used) FROM usage_counter WHERE org = ANY($1::text[]))::bigint
                FROM usage_event WHERE org = ANY($1::text[])
                """,
                self.orgs,
            )
        return tuple(row)

    async def is_being_written(self) -> bool:
        return (await self.written())[0] > 0

    async def is_written_once(self) -> None:
        async def all_rows() -> bool:
            return (await self.written())[0] >= self.added

        await until(all_rows)
        assert await self.written() == (self.added, self.added, self.added)
