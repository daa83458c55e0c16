"""How late live tiles are, with 200 viewers.

    python -m bench.tiles [--viewers 200] [--changes 40]

It starts PostgreSQL, Valkey and a control plane, and opens the stream of tiles once for each viewer. Then incidents are
opened in the database, and organizations take their last unit from the ledger, one after the other. The lag of a
change is the time from its commit, or from the ledger's answer, until a viewer has been sent the number that includes
it: once for each change and viewer.
"""

import argparse
import asyncio
import json
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import quantiles
from typing import Any
from urllib.parse import urlsplit

import httpx

from bench.console import ADMIN_TOKEN, control_plane
from bench.report import Goal, number, table
from control import incidents, schema
from control.db import Database
from control.entitlements.catalogue import apply_plans, read
from control.journal import Author
from devstack import demo, postgres, valkey

P99_SECONDS = 1.0
PAUSE_SECONDS = 0.7
PATIENCE_SECONDS = 30.0
ADMIN = {"authorization": f"Bearer {ADMIN_TOKEN}"}
STREAM = "/v1/incidents/tiles/stream"


class Viewer:
    """When it was first sent each number of a tile."""

    def __init__(self) -> None:
        self.seen: dict[tuple[str, int], float] = {}
        self.looks = 0
        self.watching = asyncio.Event()

    async def watch(self, host: str, port: int) -> None:
        reader, writer = await asyncio.open_connection(host, port, limit=1 << 20)
        head = f"GET {STREAM} HTTP/1.1\r\nHost: {host}\r\nAuthorization: {ADMIN['authorization']}\r\n\r\n"
        writer.write(head.encode())
        while line := await reader.readline():
            if not line.startswith(b'data: {"as_of"'):
                continue
            at, shown = time.monotonic(), json.loads(line[6:])["tiles"]
            self.looks += 1
            for tile in ("drift", "quota_blocks"):
                self.seen.setdefault((tile, shown[tile]["number"]), at)
            self.watching.set()

    def saw(self, tile: str, at_least: int) -> float | None:
        return min((at for (name, shown), at in self.seen.items() if name == tile and shown >= at_least), default=None)


async def changes(
    db: Database, client: httpx.AsyncClient, orgs: list[str], viewers: list[Viewer]
) -> Mapping[str, list[float]]:
    """The lags, by tile."""
    lags: dict[str, list[float]] = {"drift": [], "quota_blocks": []}
    for count, org in enumerate(orgs, 1):
        async with db.transaction() as connection:
            await incidents.open(connection, time.time(), "drift", org, org, {})
        await _seen(viewers, "drift", count, time.monotonic(), lags)
        record = {"meter": "api_calls", "units": 1, "idempotency_key": org}
        (await client.post("/v1/usage", params={"org": org}, json=record)).raise_for_status()
        await _seen(viewers, "quota_blocks", count, time.monotonic(), lags)
    return lags


async def _seen(viewers: list[Viewer], tile: str, count: int, since: float, lags: Mapping[str, list[float]]) -> None:
    await asyncio.sleep(PAUSE_SECONDS)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while any(viewer.saw(tile, count) is None for viewer in viewers):
        if time.monotonic() > deadline:
            raise SystemExit(f"a viewer was never shown that {tile} is {count}")
        await asyncio.sleep(0.05)  # a look is no part of a lag
    lags[tile].extend(max(0.0, (viewer.saw(tile, count) or since) - since) for viewer in viewers)


async def run(
    dsn: str, address: str, viewers_count: int, changes_count: int
) -> tuple[Mapping[str, list[float]], float]:
    """The lags, and how many looks a viewer was sent each second."""
    parts, orgs = urlsplit(address), [f"org-{n}" for n in range(changes_count)]
    async with (
        Database.open(dsn, connections_max=2) as db,
        httpx.AsyncClient(base_url=address, headers=ADMIN, timeout=60) as client,
    ):
        await apply_plans(db, read(None, demo.PLANS), time.time(), Author("bench", "bench"))
        for org in orgs:
            (await client.put(f"/v1/organizations/{org}", json={"name": org})).raise_for_status()
            terms: dict[str, Any] = {"plan": "tiny", "meters": {"api_calls": 1}}
            (await client.put(f"/v1/entitlements/{org}", json=terms)).raise_for_status()
        viewers = [Viewer() for _ in range(viewers_count)]
        tasks = [asyncio.create_task(viewer.watch(parts.hostname or "", parts.port or 0)) for viewer in viewers]
        await asyncio.gather(*(viewer.watching.wait() for viewer in viewers))
        began = time.monotonic()
        lags = await changes(db, client, orgs, viewers)
        rate = sum(viewer.looks for viewer in viewers) / len(viewers) / (time.monotonic() - began)
        for task in tasks:
            task.cancel()
    return lags, rate


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--viewers", type=int, default=200)
    parser.add_argument("--changes", type=int, default=40)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="quotagate-tiles-") as name:
        directory = Path(name)
        directory.chmod(0o711)  # under root PostgreSQL runs as another
        with postgres.running(directory) as dsn, valkey.running(directory / "valkey") as redis:
            schema.migrate(dsn)
            with control_plane(dsn, redis, directory) as address:
                lags, rate = asyncio.run(run(dsn, address, options.viewers, options.changes))
    rows, met = [], True
    for tile, seconds in lags.items():
        cuts = quantiles(seconds, n=100)
        goal = Goal(f"{tile}: p99 of the lag", cuts[98], P99_SECONDS, "s")
        met &= goal.met
        rows.append([*goal.row(), f"{number(cuts[49])} s", f"{number(max(seconds))} s", f"{len(seconds):,}"])
    print(table(["what", "measured", "bound", "verdict", "p50", "most", "lags"], rows))
    print(f"{options.viewers} viewers, each of whom was sent {number(rate)} looks a second")
    return 0 if met else 1


if __name__ == "__main__":
    raise SystemExit(main())
