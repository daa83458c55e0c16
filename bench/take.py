"""What one take costs Redis: microseconds of script time, single and in batches, and bytes of stream an event.

    python -m bench.take [--script FILE]... [--case PART]

Runs a Valkey of its own. The time is the server's (INFO commandstats of EVALSHA, calls pipelined), so the client's
does not count. Cases and scripts take turns in every round, since a machine that is busy with something else is
slower for all of them; the best round is the one that was left alone. With `--script`, other texts of the script
(includes expanded) are measured beside the installed one; with `--case`, only the cases whose names hold that part.
A text of before version words is called without them, and decides only the cases that have none.
"""

import argparse
import hashlib
import statistics
import tempfile
import time
from collections import defaultdict
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import redis
import uvloop
from redis.asyncio import Redis

from devstack import valkey
from quota import keys
from quota.access import KeyRecord, Quota
from quota.calls.leases import LeaseTerms
from quota.ledger import Ledger
from quota.model import CONCURRENT_MAX, Entitlement, Grant, MeterLimit, OveragePolicy, RateLimit, Status
from quota.periods import monthly_periods
from quota.scripts import script

ROUNDS, TAKES, ORGS = 60, 256, 16
BATCHES = (1, 4, 16, 64)
QUIET_SECONDS = 0.01  # for one round's takes
EMPTY = b"return 1"
GENERATION = "generation"
PLENTY = 10**9
CHECKED = RateLimit(1_000_000, 1, 1_000_000)  # a rate limit that each take checks and none reaches
TWO = (MeterLimit("api_calls", PLENTY), MeterLimit("tokens", PLENTY))
NONE_LEFT = (MeterLimit("api_calls", 0), MeterLimit("tokens", PLENTY))


OF_A_KEY = KeyRecord("keyNumberOne", quotas=(Quota("api_calls", PLENTY, 86_400),))

IDEMPOTENCY_KEYS = count()


class Case(NamedTuple):
    name: str
    terms: dict[str, Any]
    charges: tuple[str | int, ...] = ("api_calls", 1)
    keyed: bool = False
    """Each request has an idempotency key of its own."""
    version: str = ""
    """A version word."""
    leased: bool = False
    """In one of several regions."""


def cases(now: float) -> list[Case]:
    bonus = (Grant("bonus", "api_calls", PLENTY, monthly_periods(0, now)[0].end),)
    return [
        Case("allowance", {}),
        Case("allowance, rate limit", {"rate": CHECKED}),
        Case("allowance, rate limit, version", {"rate": CHECKED}, version="1"),
        Case("allowance, rate limit, version, in a region", {"rate": CHECKED}, version="1", leased=True),
        Case("allowance, rate limit, version, quota of a key", {"rate": CHECKED}, version=f"1 {OF_A_KEY.limits}"),
        Case("allowance, rate limit, grant in reserve", {"rate": CHECKED, "grants": bonus}),
        Case("allowance, rate limit, two meters", {"rate": CHECKED}, ("api_calls", 1, "tokens", 250)),
        Case(
            "every limit: rate, concurrency, key, two meters",
            {"rate": CHECKED, "concurrent_max": CONCURRENT_MAX},
            ("api_calls", 1, "tokens", 250),
            keyed=True,
        ),
        Case("grant, rate limit", {"rate": CHECKED, "grants": bonus, "meters": NONE_LEFT}),
        Case("overage, rate limit", {"rate": CHECKED, "meters": NONE_LEFT, "policy": OveragePolicy.METERED}),
        Case("refused", {"rate": CHECKED, "meters": NONE_LEFT}),
    ]


def org(case: Case, i: int) -> str:
    return f"org_{hashlib.sha1(case.name.encode(), usedforsecurity=False).hexdigest()[:8]}{i:04d}"


async def publish(url: str, case: Case, now: float) -> None:
    usual = {"meters": TWO, "periods": monthly_periods(0, now)}
    async with Redis.from_url(url) as client:
        ledger = Ledger(client)
        for i in range(ORGS):
            name = org(case, i)
            entitlement = Entitlement(name, 1, Status.ACTIVE, **usual | case.terms)
            await ledger.publish(entitlement, leased=case.leased)
            if case.leased:
                shard = keys.shard_of(name, ledger.shards)
                await client.set(keys.generation_key(shard), GENERATION)
                terms = LeaseTerms(1, 0, 1, int(now) - 1, 65_535, entitlement.periods, entitlement.meters)
                assert await ledger.lease(name, terms, GENERATION)  # noqa: S101 - of a benchmark


def says_versions(text: bytes) -> bool:
    return b"STALE" in text


def calls(
    sha: str, case: Case, batch: int, takes: int = TAKES, orgs: int = ORGS, *, versions: bool = True
) -> list[tuple[Any, ...]]:
    """The commands of one round, as the gateway's link sends them."""
    commands: list[tuple[Any, ...]] = []
    marked = "k" if case.keyed else ""
    for first in range(0, takes, batch):
        names: list[str] = []
        argv: list[str | int] = []
        for i in range(first, first + batch):
            name = org(case, i % orgs)
            names += [
                keys.org_key(name, keys.SHARDS_DEFAULT),
                keys.events_key(keys.shard_of(name, keys.SHARDS_DEFAULT)),
            ]
            if case.keyed:
                names.append(keys.idempotency_key(name, keys.SHARDS_DEFAULT, f"{next(IDEMPOTENCY_KEYS):022x}"))
            argv += [f"{i:020x}", name, *[case.version] * versions, f"{marked}{len(case.charges) // 2}", *case.charges]
        commands.append(("EVALSHA", sha, len(names), *names, *argv))
    return commands


def script_us(client: redis.Redis, commands: list[tuple[Any, ...]]) -> tuple[float, list[Any]]:
    """The server's microseconds for one of the commands, and their replies."""
    client.config_resetstat()
    connection = client.connection_pool.get_connection()
    try:
        connection.send_packed_command(connection.pack_commands(commands))
        # Read when all is done: a client at work beside the server would slow it down on a machine of few cores.
        time.sleep(QUIET_SECONDS)
        replies = [connection.read_response() for _ in commands]
    finally:
        client.connection_pool.release(connection)
    stats = client.info("commandstats")["cmdstat_evalsha"]
    return stats["usec"] / stats["calls"], replies


def event_bytes(client: redis.Redis, sha: str, case: Case) -> float:
    """Of a stream that is long enough for its own size not to count."""
    drop_streams(client)
    for command in calls(sha, case, 64, takes=6400, orgs=1):
        client.execute_command(*command)
    stream = keys.events_key(keys.shard_of(org(case, 0), keys.SHARDS_DEFAULT))
    entries = client.xlen(stream)
    return (client.memory_usage(stream, samples=0) or 0) / entries if entries else 0


def drop_streams(client: redis.Redis) -> None:
    client.delete(*[keys.events_key(shard) for shard in range(keys.SHARDS_DEFAULT)])


def measure(url: str, texts: dict[str, bytes], part: str) -> None:
    now = time.time()
    measured = [case for case in cases(now) if case.name == part] or [case for case in cases(now) if part in case.name]
    for case in measured:
        uvloop.run(publish(url, case, now))
    client = redis.Redis.from_url(url)
    shas = {name: str(client.script_load(text.decode())) for name, text in texts.items()}
    empty = str(client.script_load(EMPTY.decode()))
    times: defaultdict[tuple[str, ...], list[float]] = defaultdict(list)
    for _ in range(ROUNDS):
        times["empty",].append(script_us(client, [("EVALSHA", empty, 0)] * TAKES)[0])
        for case in measured:
            for batch in BATCHES:
                for name, sha in shas.items():
                    versions = says_versions(texts[name])
                    if case.version and not versions:
                        continue
                    us, replies = script_us(client, calls(sha, case, batch, versions=versions))
                    if any(isinstance(one, Exception) for reply in replies for one in reply):
                        raise SystemExit(f"{name}: {case.name}: {replies[0]}")
                    times[case.name, name, str(batch)].append(us / batch)
                    drop_streams(client)
    print("us of script time for one take: median of all rounds (and of the best one)")
    print(f"`{EMPTY.decode()}` takes {statistics.median(times['empty',]):.1f} ({min(times['empty',]):.1f})")
    print(f"{'':48} {'':10}" + "".join(f"{f'by {batch}':>7}       " for batch in BATCHES) + f"{'bytes/event':>13}")
    for case in measured:
        size = event_bytes(client, shas["installed"], case)
        for name in (name for name in shas if (case.name, name, "1") in times):
            rounds = [times[case.name, name, str(batch)] for batch in BATCHES]
            columns = "".join(f"{statistics.median(us):7.1f} {f'({min(us):.1f})':>6}" for us in rounds)
            print(f"{case.name:48} {name:10}{columns}{size:13.0f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--script", type=Path, action="append", default=[], metavar="FILE")
    parser.add_argument("--case", default="", metavar="PART")
    arguments = parser.parse_args()
    texts = {"installed": script("take").source} | {path.stem: path.read_bytes() for path in arguments.script}
    with tempfile.TemporaryDirectory() as directory, valkey.running(Path(directory) / "valkey") as url:
        measure(url, texts, arguments.case)


if __name__ == "__main__":
    main()
