"""How fast the writer is when it is behind: `python -m tests.control.throughput [events]`.

Real Valkey, real PostgreSQL with fsync; events of 1,000 organizations over 32 shards, each with its own request id.
"""

import asyncio
import gc
import sys
import tempfile
import time
from pathlib import Path
from uuid import uuid4

import uvloop
from redis.asyncio import Redis

from control import app, db
from control.settings import Writer as WriterSettings
from control.usage.streams import Streams
from control.usage.writer import Writer
from devstack import postgres, valkey
from devstack.child import stopping
from devstack.ports import free_port
from quota import keys

ORGANIZATIONS = 1000
APPENDED_AT_ONCE = 5000


async def fill(redis: Redis, events: int) -> None:
    orgs = [f"org-{n:06d}" for n in range(ORGANIZATIONS)]
    period_start = int(time.time()) // 86_400 * 86_400
    for base in range(0, events, APPENDED_AT_ONCE):
        async with redis.pipeline(transaction=False) as pipeline:
            for n in range(base, min(events, base + APPENDED_AT_ONCE)):
                org = orgs[n % ORGANIZATIONS]
                event = f"t {uuid4()} {org} {period_start} api_calls:1"
                pipeline.xadd(keys.events_key(keys.shard_of(org, 32)), {"e": event})
            await pipeline.execute()


async def measure(dsn: str, url: str, events: int) -> None:
    async with db.Database.open(dsn) as database, Redis.from_url(url) as redis:
        await fill(redis, events)
        gc.freeze()
        gc.set_threshold(app.GC_VALUES, 10, 10)  # as the control plane does
        writer = Writer(database, Streams(Redis(connection_pool=redis.connection_pool), 32), WriterSettings())
        started, cpu = time.perf_counter(), time.process_time()
        await writer.resume()
        while not await writer.write():
            pass
        seconds, cpu_us = time.perf_counter() - started, (time.process_time() - cpu) / events * 1e6
        async with database.connection() as connection:
            rows, counted = await connection.fetchrow(
                "SELECT (SELECT count(*) FROM usage_event), (SELECT sum(used)::bigint FROM usage_counter)"
            )
    rate = f"{events / seconds:,.0f} events/s, {cpu_us:.1f} us of Python each"
    print(f"{events:,} events in {seconds:.1f} s: {rate}; rows {rows:,}, counted {counted:,}")  # noqa: T201


def main() -> None:
    events = int(sys.argv[1]) if len(sys.argv) > 1 else 300_000
    with tempfile.TemporaryDirectory(prefix="quotagate-throughput-") as name:
        directory = Path(name)
        server = postgres.start(directory / "postgres", free_port(), log=directory / "postgres.log")
        with stopping(server.child), valkey.running(directory / "valkey") as url:
            server.wait_ready()
            dsn = postgres.create_database(server, "throughput")
            db.migrate(dsn)
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(measure(dsn, url, events))


if __name__ == "__main__":
    main()
