"""What an API key costs Redis in memory, beyond its organization: its index entry and its record.

    python -m bench.keys_memory [--keys N]

Runs Valkeys of its own. Organizations are published without keys, then with them; the difference of used_memory, as
INFO says it, is divided by the keys. Memory does not depend on what else the machine does.
"""

import argparse
import hashlib
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import uvloop
from redis.asyncio import Redis

from devstack import valkey
from quota.access import DIGEST_BYTES, AccessChanges, KeyRecord, Quota
from quota.ledger import Ledger
from quota.model import Entitlement, MeterLimit, Status
from quota.periods import monthly_periods

KEYS = 1_000_000
BYTES_MAX = 200
QUOTAS = (Quota("api_calls", 100_000, 86_400),)
PLAIN = KeyRecord("0" * 12)


class Layout(NamedTuple):
    name: str
    keys_each: int
    """Of one organization."""
    record: KeyRecord
    """What each key has, but for its id."""
    promised: bool


LAYOUTS = (
    Layout("organizations of 1,000 keys", 1_000, PLAIN, promised=True),
    Layout("organizations of 10 keys", 10, PLAIN, promised=True),
    Layout(
        "organizations of 1,000 keys, each with expiry, user, scope and quota",
        1_000,
        replace(PLAIN, expires_s=1_900_000_000, user="user_2abcdefghijklmnop", scopes=("route:api",), quotas=QUOTAS),
        promised=False,
    ),
)


def _records(layout: Layout, org: str) -> Iterator[tuple[bytes, KeyRecord]]:
    for n in range(layout.keys_each):
        text = hashlib.sha256(f"{org}:{n}".encode())
        yield text.digest()[:DIGEST_BYTES], replace(layout.record, id=text.hexdigest()[:12])


async def measure(url: str, layout: Layout, keys: int) -> tuple[float, str]:
    """Bytes of one key, and which server that was."""
    orgs = [f"org_{n:08d}" for n in range(keys // layout.keys_each)]
    terms = {"meters": (MeterLimit("api_calls", 10**9),), "periods": monthly_periods(0, time.time())}
    async with Redis.from_url(url) as client:
        ledger = Ledger(client)
        for org in orgs:
            await ledger.publish(Entitlement(org, 1, Status.ACTIVE, **terms))
        before = await _used(client)
        for org in orgs:
            access = AccessChanges(None, dict(_records(layout, org)))
            await ledger.publish(Entitlement(org, 2, Status.ACTIVE, **terms), access=access)
        server = await client.info("server")
        each = (await _used(client) - before) / (len(orgs) * layout.keys_each)
        return each, f"Valkey {server.get('valkey_version', server['redis_version'])}"


async def _used(client: Redis) -> int:
    return int((await client.info("memory"))["used_memory"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keys", type=int, default=KEYS)
    keys = parser.parse_args().keys
    missed = []
    for layout in LAYOUTS:
        # A server for each: memory that was used before would be counted, or used again.
        with tempfile.TemporaryDirectory() as directory, valkey.running(Path(directory) / "valkey") as url:
            each, version = uvloop.run(measure(url, layout, keys))
        promise = f", promised at most {BYTES_MAX}" if layout.promised else ""
        print(f"{keys:,} keys in {layout.name}: {each:.0f} bytes each{promise} ({version})", flush=True)
        if layout.promised and each > BYTES_MAX:
            missed.append(layout.name)
    if missed:
        raise SystemExit(f"more than was promised: {', '.join(missed)}")


if __name__ == "__main__":
    main()
