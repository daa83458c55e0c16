"""What `quotagate reconcile` and `quotagate recompute` do."""

import asyncio
from dataclasses import asdict
from pathlib import Path
from typing import Any

from common.clock import system_clock
from common.settings_file import load
from common.telemetry import log_json
from control import sql
from control.app import opened
from control.db import Database
from control.ids import uuid7
from control.journal import Author
from control.moments import moment, with_texts
from control.reconcile import reconciler
from control.settings.control_plane import Settings
from control.sql.reconcile import Difference, KeyDifference
from control.usage.archive import KEY_USAGE_SECONDS

DAY_SECONDS = 86_400
SUMMARY = "{left} counters differ and were not repaired"


def reconcile(config_path: Path | None, org: str | None, *, repair: bool) -> list[tuple[dict[str, object], bool]]:
    """Each counter that differs, and whether it was repaired.

    Raises SettingsError, StoreUnavailable, LedgerError, WriterBehind."""
    settings = load(config_path, "control.yaml", Settings)
    log_json("reconcile")
    author = Author("reconcile", str(uuid7())) if repair else None

    async def run() -> list[tuple[dict[str, object], bool]]:
        async with opened(settings) as context:
            return [
                (reconciler.line(drift), repaired)
                async for mismatch, repaired in reconciler.reconcile(context.scan, org, author)
                for drift in mismatch.drifts
            ]

    return asyncio.run(run())


def recompute(dsn: str, org: str | None) -> tuple[int, list[dict[str, Any]]]:
    """The number of counters, and those that are not the sum of their events. Raises StoreUnavailable."""

    async def run() -> tuple[int, list[dict[str, Any]]]:
        async with Database.open(dsn, timeout_seconds=600) as db, db.connection() as connection:
            counters = await sql.reconcile.count_counters(connection, org=org)
            counters += await sql.reconcile.count_key_counters(connection, org=org)
            # An hour that is dropped while this runs is no difference.
            since = moment(system_clock() - KEY_USAGE_SECONDS + DAY_SECONDS)
            differing: list[Difference | KeyDifference] = [
                *await sql.reconcile.differing_counters(connection, org=org),
                *await sql.reconcile.differing_region_counters(connection, org=org),
                *await sql.reconcile.differing_key_counters(connection, org=org, since=since),
            ]
        return counters, [with_texts(asdict(row)) for row in differing]

    return asyncio.run(run())
