"""PostgreSQL dies under load: each event becomes one row all the same."""

import asyncio
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from redis.asyncio import Redis

from control import db, schema
from control.background import Background
from control.ledger.streams import Streams
from control.settings.control_plane import WriterSettings
from control.usage.leases import Leases
from control.usage.writer import Writer
from devstack import postgres
from devstack.ports import free_port
from quota import keys

PATIENCE_SECONDS = 120.0
KILLS, EVENTS_AT_ONCE = 2, 20


class Server:
    """A PostgreSQL that keeps what it has committed."""

    def __init__(self, directory: Path) -> None:
        self._directory, self._port = directory, free_port()
        self.start()

    def start(self) -> None:
        self.running = postgres.start(self._directory / "postgres", self._port, log=self._directory / "postgres.log")
        self.running.wait_ready()

    def kill(self) -> None:
        child = self.running.child
        os.killpg(child.process.pid, signal.SIGKILL)
        child.stop()


@pytest.fixture
def server() -> Iterator[Server]:
    # Not under pytest's own folder: under root PostgreSQL runs as another user, which may not enter that.
    with tempfile.TemporaryDirectory(prefix="quotagate-tests-") as name:
        directory = Path(name)
        directory.chmod(0o711)
        server = Server(directory)
        yield server
        server.running.child.stop()
        shutil.rmtree(server.running.home, ignore_errors=True)


async def test_a_postgres_that_is_killed_under_load_loses_no_event_and_has_none_twice(
    server: Server, redis_url: str
) -> None:
    dsn = postgres.create_database(server.running, "killed")
    await asyncio.to_thread(schema.migrate, dsn)
    added = 0
    async with db.Database.open(dsn) as database, Redis.from_url(redis_url) as redis:
        streams = Streams(Redis(connection_pool=redis.connection_pool), keys.SHARDS_DEFAULT)
        leases = Leases(database, keys.SHARDS_DEFAULT)
        writer = Writer(database, streams, WriterSettings(poll_ms=1, batch_entries_max=1000), leases=leases)

        async def rows() -> tuple[int, int, int]:
            async with database.connection() as connection:
                return tuple(
                    await connection.fetchrow(
                        "SELECT count(*), count(DISTINCT request_id),"
                        " coalesce((SELECT sum(used) FROM usage_counter), 0)::bigint FROM usage_event"
                    )
                )

        async def load() -> None:
            nonlocal added
            while True:
                async with redis.pipeline(transaction=False) as pipeline:
                    for _ in range(EVENTS_AT_ONCE):
                        org = f"org-{added % 7}"
                        key = keys.events_key(keys.shard_of(org, keys.SHARDS_DEFAULT))
                        pipeline.xadd(key, {"e": f"t {uuid4()} {org} 1793491200 api_calls:1"})
                        added += 1
                    await pipeline.execute()
                await asyncio.sleep(0.01)

        async with Background([writer]).running(), asyncio.timeout(PATIENCE_SECONDS):
            loading = asyncio.create_task(load())
            for _ in range(KILLS):
                before = (await rows())[0]
                while (await rows())[0] == before:  # noqa: ASYNC110 - Postgres rings no bell
                    await asyncio.sleep(0.01)
                await asyncio.to_thread(server.kill)
                await asyncio.to_thread(server.start)
            loading.cancel()
            await asyncio.wait([loading])
            while (await rows())[0] < added:  # noqa: ASYNC110 - a table rings no bell
                await asyncio.sleep(0.05)
        assert await rows() == (added, added, added)
