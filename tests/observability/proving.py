"""What the tests of alerts share: causes, and whether an alert fires by them."""

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from redis import Redis

from devstack import postgres
from quotagate.observability.rules import BURN_ALERT
from tests.observability.promtool import Fires, firing
from tests.observability.samples import Scrape, moves
from tests.observability.stack import Installation, eventually

HOUR = 60  # minutes that a cause lasts
PACE_SECONDS = 1.5  # between the first and the last scrape of a cause that makes something old


def proved(
    directory: Path, clean: Sequence[Scrape], cause: Sequence[Scrape], *expected: Fires, minutes: int = HOUR
) -> None:
    wrong = firing(directory, clean, cause, expected, minutes)
    assert not wrong, wrong


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
