"""What the tests of alerts share: causes, and whether an alert fires by them."""

import asyncio
import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from redis import Redis
from redis.asyncio import Redis as AsyncRedis

from common.clock import Clock
from common.exposition import exposition
from control.app import opened
from control.metrics import reading
from control.settings.control_plane import Settings
from devstack import postgres
from quota import keys
from quotagate.observability.rules import BURN_ALERT
from tests.gateway.store import Store, follow
from tests.observability.promtool import Fires, firing
from tests.observability.samples import Scrape, moves, read
from tests.observability.stack import CONTROL_JOB, Installation, eventually

REPORT = "QUOTAGATE_ALERTS_REPORT"
"""The environment's name of a file in which a run notes what it has proved."""
HOUR = 60  # minutes that a cause lasts
OVERAGE_WAITS = """
    INSERT INTO overage_window
        (org, period_start, meter, revision, units, customer, event_name, identifier, event_at, frozen_at)
    VALUES ('acme', now(), 'api_calls', 1, 5, 'cus_1', 'api_calls', 'waits', now(), now() - interval '3 hours')
"""
OVERAGE_ENDS = "DELETE FROM overage_window WHERE identifier = 'waits'"
KEYS_GET_OLD = "UPDATE signing_key SET signs_from = signs_from - interval '200 days'"
KEYS_ARE_DAMAGED = "UPDATE signing_key SET sealed = '\\x00' || sealed WHERE sealed IS NOT NULL"
PACE_SECONDS = 1.5  # between the first and the last scrape of a cause that makes something old


def proved(
    directory: Path, clean: Sequence[Scrape], cause: Sequence[Scrape], *expected: Fires, minutes: int = HOUR
) -> None:
    wrong = firing(directory, clean, cause, expected, minutes)
    assert not wrong, wrong
    if (report := os.environ.get(REPORT)) is not None:
        test = os.environ["PYTEST_CURRENT_TEST"].rpartition("::test_")[2].partition(" ")[0]
        with Path(report).open("a", encoding="utf-8") as notes:
            notes.writelines(json.dumps([each, test]) + "\n" for each in expected)


def proved_in(report: Path) -> dict[Fires, str]:
    """The alerts that a run has proved, and the names of their tests."""
    noted = [json.loads(line) for line in report.read_text(encoding="utf-8").splitlines()]
    return {each if isinstance(each, str) else tuple(each): test for each, test in noted}


def burns(slo: str) -> tuple[Fires, Fires]:
    return (BURN_ALERT, slo, "page"), (BURN_ALERT, slo, "ticket")


def lasting(installation: Installation, act: Callable[[], object], *moving: str) -> list[Scrape]:
    """Two scrapes around what happens while a cause lasts, some time, and until the metrics of `moving` rose."""
    cause = [installation.scrape()]
    act()
    eventually(lambda: time.time() > cause[0].at + PACE_SECONDS, "some time")

    def scraped() -> bool:
        cause[1:] = [installation.scrape()]
        return all(moves(name, cause) for name in moving)

    eventually(scraped, f"these rise: {moving}")
    return cause


class table_locks:  # noqa: N801 - it is used as a function
    """For so long nobody reads what publications and tokens need."""

    def __init__(self, installation: Installation, seconds: float) -> None:
        lock = "LOCK TABLE publication, organization, signing_key IN ACCESS EXCLUSIVE MODE"
        self._dsn = installation.owner_dsn
        statements = f"BEGIN; {lock}; SELECT pg_sleep({seconds}); COMMIT"
        self._thread = threading.Thread(target=postgres.execute, args=(self._dsn, statements))

    def __enter__(self) -> None:
        self._thread.start()
        query = "SELECT count(*) FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND granted"
        eventually(lambda: postgres.execute(self._dsn, query) >= "3", "the tables are locked")

    def __exit__(self, *_: object) -> None:
        self._thread.join()


def add_units(installation: Installation, units: int) -> None:
    """Somebody changes a counter in Redis by hand."""
    with Redis.from_url(installation.store.url) as redis:
        key = keys.org_key(installation.org, keys.SHARDS_DEFAULT)
        fields: Any = redis.hgetall(key)
        field = next(field for field in fields if field.startswith(b"used:"))
        redis.hincrby(key, field.decode(), units)


@contextmanager
def badly_set_up_redis(installation: Installation) -> Iterator[None]:
    """It is nearly full, may throw data away, keeps no append-only file, and its last save failed."""
    snapshot = installation.store.directory / "dump.rdb"
    with Redis.from_url(installation.store.url) as redis:
        snapshot.mkdir()
        redis.config_set("maxmemory", int(int(as_info(redis)["used_memory"]) * 1.1))
        redis.config_set("maxmemory-policy", "allkeys-lru")
        redis.bgsave()
        eventually(lambda: as_info(redis)["rdb_last_bgsave_status"] == "err", "the save fails")
        redis.config_set("appendonly", "no")
        yield
        redis.config_set("maxmemory", 0)
        redis.config_set("maxmemory-policy", "noeviction")
        snapshot.rmdir()
        redis.config_set("appendonly", "yes")
        redis.bgsave(schedule=True)
        eventually(lambda: as_info(redis)["rdb_last_bgsave_status"] == "ok", "it can save")


async def attach(replica: Store, store: Store) -> None:
    async with AsyncRedis.from_url(store.url) as running:
        await follow(replica, store, running)


def as_info(redis: "Redis") -> dict[str, Any]:
    info: Any = redis.info()
    return dict(info)


def stripe_fails(installation: Installation, status: int) -> None:
    """0: it works again."""
    fault = {"status": status, "times": 1000 if status else 0, "path": "/v1/(customers.*|subscriptions|invoices)$"}
    installation.double("/faults", {"api": fault})


def make_older(installation: Installation, table: str, column: str, which: str) -> None:
    postgres.execute(
        installation.owner_dsn, f"UPDATE {table} SET {column} = {column} - interval '1 hour' WHERE {which}"
    )


def scraped_of(settings: Settings, instance: str, host_clock: Clock | None = None) -> Scrape:
    """Of a control plane of its own."""

    async def look() -> str:
        async with opened(settings, host_clock=host_clock) as context:
            await context.clocks.look()
            return exposition(await reading.read(context))

    return Scrape(time.time(), read(asyncio.run(look()), CONTROL_JOB, instance))


@contextmanager
def changed_signing_keys(installation: Installation) -> Iterator[None]:
    """What is done to them meanwhile is undone."""
    installation.execute("CREATE TABLE kept AS SELECT id, sealed, signs_from FROM signing_key")
    yield
    installation.execute(
        "UPDATE signing_key s SET sealed = k.sealed, signs_from = k.signs_from FROM kept k WHERE s.id = k.id;"
        "DROP TABLE kept"
    )
