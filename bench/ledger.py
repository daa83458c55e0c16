"""The usage ledger's promises as numbers, each beside its goal. The last line is what was lost and what was too much.

    python -m bench.ledger [--quick]

A stack of its own: the PostgreSQL (with fsync) and Valkey (append-only file) of `quotagate up`, control planes as
processes. Without `--quick` it takes some minutes, with it less than 40 seconds: the same at a smaller size, and
goals that depend on the size are reduced with it.
"""

import argparse
import asyncio
import gc
import random
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import uvloop
from redis.asyncio import Redis

from bench import report
from bench.ledger_site import SHARDS, Books, Site, Stores, books, clone, drained, start_control
from bench.report import Bars, Goal
from bench.takers import METER, Takers
from control import app, db, sql
from control.ledger.streams import START, StreamId, Streams
from control.settings.control_plane import WriterSettings
from control.usage.writer import Writer
from devstack.child import stopping
from quota import keys
from quota.calls.take import Take, take_call
from quota.ledger import Ledger
from quota.model import Entitlement, MeterLimit, Status
from quota.periods import CALENDAR_ANCHOR, monthly_periods

BACKLOG_ORGS = 1000
APPENDED_AT_ONCE = 5000
LAG_EVENTS_PER_SECOND, TICK_SECONDS, SHARDS_A_TICK = 5000, 0.02, 4
SAMPLE_SECONDS = 0.05
LOAD_CLIENTS, LOAD_PAUSE_SECONDS = 16, 0.008  # some 1,500 takes a second
REPAIR_SECONDS = 60.0  # for all injected drifts
KILL_SECONDS_MAX = 0.5  # a writer lives for so long after it was ready
LATENCY_CLIENTS, FEW = 32, 1000

APPEND = """
local stream, first, events, period = KEYS[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4]
for i = 0, events - 1 do
  local org = ARGV[5 + (first + i) % (#ARGV - 4)]
  redis.call('XADD', stream, '*', 'e', string.format('t %s%014x %s %s api_calls:1', ARGV[1], first + i, org, period))
end
"""
"""KEYS: stream. ARGV: what request ids begin with, number of the first event, how many, period, organizations."""


@dataclass(frozen=True, slots=True)
class Sizes:
    events: int = 1_000_000
    lag_seconds: float = 20
    kills: int = 20
    load_orgs: int = 100
    load_limit: int = 1000
    drift_orgs: int = 10_000
    drifts: int = 1000
    drift_limit: int = 20
    flush_limit: int = 500
    organizations: int = 1_000_000
    latency_rounds: int = 5
    latency_seconds: float = 1
    latency_sample: int = 100_000


FULL = Sizes()
QUICK = Sizes(50_000, 2, 3, 50, 150, 500, 50, 20, 100, 50_000, 2, 0.5, 20_000)


@dataclass(slots=True)
class Results:
    goals: list[Goal] = field(default_factory=list)
    books: Books = field(default_factory=lambda: Books(0, 0, 0, 0))
    raw: dict[str, Any] = field(default_factory=dict)

    def add(self, goal: Goal) -> None:
        self.goals.append(goal)
        print(" ".join(goal.row()), flush=True)


@contextmanager
def timed(what: str) -> Iterator[None]:
    print(f"-- {what}", flush=True)
    began = time.monotonic()
    yield
    print(f"   took {time.monotonic() - began:.1f} s", flush=True)


class Appender:
    """Events in the streams as `take` writes them, without the takes."""

    def __init__(self, redis: Any) -> None:
        self._append = redis.register_script(APPEND)
        self._period = str(int(time.time()) // 86_400 * 86_400)
        self._orgs: dict[int, list[str]] = {shard: [] for shard in range(SHARDS)}
        for org in (f"org-{n:06d}" for n in range(BACKLOG_ORGS)):
            self._orgs[keys.shard_of(org, SHARDS)].append(org)
        self.events = [0] * SHARDS
        """So far, of each shard."""

    async def append(self, shard: int, events: int) -> None:
        argv = [f"{shard:06x}", self.events[shard], events, self._period, *self._orgs[shard]]
        await self._append(keys=[keys.events_key(shard)], args=argv)
        self.events[shard] += events


async def backlog(stores: Stores, events: int) -> float:
    """Seconds from a full stream to committed rows."""
    async with db.Database.open(stores.dsn) as database, stores.redis() as redis:
        appender = Appender(redis)
        left = events
        while left:
            shard = (events - left) // APPENDED_AT_ONCE % SHARDS
            await appender.append(shard, min(left, APPENDED_AT_ONCE))
            left -= min(left, APPENDED_AT_ONCE)
        gc.freeze()
        gc.set_threshold(app.GC_VALUES, 10, 10)  # as the control plane does
        writer = Writer(database, Streams(Redis(connection_pool=redis.connection_pool), SHARDS), WriterSettings())
        began = time.perf_counter()
        await writer.resume()
        while not await writer.write():
            pass
        seconds = time.perf_counter() - began
        async with database.connection() as connection:
            rows, distinct, counted = await connection.fetchrow(
                "SELECT count(*), count(DISTINCT request_id), (SELECT sum(used)::bigint FROM usage_counter)"
                " FROM usage_event"
            )
    if not rows == distinct == counted == events:
        raise SystemExit(f"{events:,} events became {rows:,} rows, {distinct:,} of them different, {counted:,} counted")
    return seconds


async def lag(stores: Stores, seconds: float) -> list[float]:
    """Age of the oldest event that is not committed, in seconds, twenty times a second."""
    ages: list[float] = []
    with stopping(start_control(stores).child):
        async with stores.redis() as redis, stores.postgres() as connection:
            appender, streams = Appender(redis), Streams(Redis.from_url(stores.url), SHARDS)

            async def append() -> None:
                began, tick = time.monotonic(), 0
                while (due := began + tick * TICK_SECONDS) < began + seconds:
                    await asyncio.sleep(max(0, due - time.monotonic()))
                    for n in range(SHARDS_A_TICK):
                        events = round(LAG_EVENTS_PER_SECOND * TICK_SECONDS / SHARDS_A_TICK)
                        await appender.append((tick * SHARDS_A_TICK + n) % SHARDS, events)
                    tick += 1

            appending = asyncio.create_task(append())
            while not appending.done():
                written = dict.fromkeys(range(SHARDS), START)
                for row in await sql.usage.watermarks(connection, region=0):
                    written[row.shard] = StreamId(row.stream_ms, row.stream_seq)
                now_ms = await streams.now_ms()
                waiting = await streams.read(written, dict.fromkeys(written, 1))
                oldest = min((StreamId.parse(entries[0][0]).ms for entries in waiting.values()), default=now_ms)
                ages.append(max(0, now_ms - oldest) / 1000)
                await asyncio.sleep(SAMPLE_SECONDS)
            await appending
            await drained(stores, sum(appender.events))
            rows = await connection.fetchval("SELECT count(*) FROM usage_event")
    if rows != sum(appender.events):
        raise SystemExit(f"{sum(appender.events):,} events became {rows:,} rows")
    return ages


async def kills(stores: Stores, sizes: Sizes) -> tuple[Books, int]:
    """A control plane that is killed again and again while organizations use up what they have; how many takes."""
    rng = random.Random(7)  # noqa: S311 - points in time
    orgs = [f"kill-{n:04d}" for n in range(sizes.load_orgs)]
    control = start_control(stores)
    try:
        control.entitle("kill-template", sizes.load_limit)
        await clone(stores, "kill-template", orgs)
        async with stores.linked() as (link, hydrator):
            takers = Takers(link, orgs, LOAD_CLIENTS, hydrate=hydrator.ask)
            takers.pause_seconds = LOAD_PAUSE_SECONDS
            takers.start()
            for _ in range(sizes.kills):
                await asyncio.sleep(rng.uniform(0, KILL_SECONDS_MAX))
                control.kill()
                control = await asyncio.to_thread(start_control, stores)
            await takers.finish()
        await drained(stores, len(takers.admitted))
        return await books(stores, takers.admitted, takers.by_org, sizes.load_limit), len(takers.admitted)
    finally:
        control.child.stop()


async def drifting(stores: Stores, sizes: Sizes) -> tuple[Books, int, int]:
    """Counters that are moved by hand under load, for the control plane to find and to repair. Also: how many of them
    it found, and how many others it took for drift."""
    rng = random.Random(7)  # noqa: S311 - no secret
    orgs = [f"drift-{n:05d}" for n in range(sizes.drift_orgs)]
    chosen = set(rng.sample(orgs, sizes.drifts))
    control = start_control(stores, reconcile={"every_seconds": 1})
    with stopping(control.child):
        control.entitle("drift-template", sizes.drift_limit)
        await clone(stores, "drift-template", orgs)
        async with stores.linked() as (link, hydrator), stores.redis() as redis, stores.postgres() as connection:
            takers = Takers(link, orgs, LOAD_CLIENTS, hydrate=hydrator.ask)
            takers.pause_seconds = LOAD_PAUSE_SECONDS
            takers.start()
            while len(takers.by_org) < len(orgs):  # noqa: ASYNC110 - each has a counter then
                await asyncio.sleep(SAMPLE_SECONDS)
            for org in chosen:
                key = keys.org_key(org, SHARDS)
                [counter] = [name for name in await redis.hkeys(key) if name.startswith(b"used:")]
                await redis.hincrby(key, counter, rng.choice((-1, 1)) * rng.randint(1, 5))
            repaired, deadline = set[str](), time.monotonic() + REPAIR_SECONDS
            while not chosen <= repaired and time.monotonic() < deadline:
                rows = await connection.fetch("SELECT org FROM audit_journal WHERE action = 'usage.rebased'")
                repaired = {row["org"] for row in rows}
                await asyncio.sleep(SAMPLE_SECONDS)
            await takers.finish()
        await drained(stores, len(takers.admitted))
        part = await books(stores, takers.admitted, takers.by_org, sizes.drift_limit)
        async with stores.postgres() as connection:
            rows = await connection.fetch("SELECT org FROM audit_journal WHERE action = 'usage.rebased'")
    repaired = {row["org"] for row in rows}
    return part, len(repaired & chosen), len(repaired - chosen)


async def flushed(stores: Stores, sizes: Sizes) -> tuple[Books, float]:
    """Redis is emptied under load. Also: the seconds until it admits again."""
    orgs = [f"flush-{n:04d}" for n in range(sizes.load_orgs)]
    control = start_control(stores)
    with stopping(control.child):
        control.entitle("flush-template", sizes.flush_limit)
        await clone(stores, "flush-template", orgs)
        async with stores.linked() as (link, hydrator), stores.redis() as redis:
            takers = Takers(link, orgs, LOAD_CLIENTS, hydrate=hydrator.ask)
            takers.pause_seconds = LOAD_PAUSE_SECONDS
            takers.start()
            while len(takers.admitted) < 5 * len(orgs):  # noqa: ASYNC110 - its workers call nobody back
                await asyncio.sleep(0.01)
            await redis.flushall()
            flushed_at, before = time.perf_counter(), len(takers.admitted)
            while len(takers.admitted) == before:  # noqa: ASYNC110 - its workers call nobody back
                await asyncio.sleep(0.01)
            seconds = takers.answered_at - flushed_at
            await takers.finish()
        await drained(stores, len(takers.admitted))
        return await books(stores, takers.admitted, takers.by_org, sizes.flush_limit), seconds


async def take_us(stores: Stores, orgs: Sequence[str], seconds: float) -> float:
    """p50 of a take among clients that do nothing else."""
    async with stores.linked() as (link, hydrator):
        takers = Takers(link, orgs, LATENCY_CLIENTS, hydrate=hydrator.ask)
        takers.start()
        await asyncio.sleep(seconds)
        await takers.stop()
    return statistics.median(takers.seconds) * 1e6


async def many(few_stores: Stores, stores: Stores, sizes: Sizes) -> tuple[float, list[tuple[float, float]]]:
    """Bytes of Redis for each organization, and the latency of takes: among few, and among that many."""
    orgs = [f"org_{n:08d}" for n in range(sizes.organizations)]
    for of in (few_stores, stores):
        async with of.redis() as redis:
            ledger = Ledger(redis)
            await ledger.check_layout()
            meters, periods = (MeterLimit(METER, 10**9),), monthly_periods(CALENDAR_ANCHOR, time.time())
            await ledger.publish(Entitlement("template", 1, Status.ACTIVE, meters=meters, periods=periods))
            await ledger.run(
                take_call([Take("template", "r1", {METER: 1})], ledger.shards)
            )  # so that each has a counter
            before = (await redis.info("memory"))["used_memory"]
            clones = orgs if of is stores else orgs[:FEW]
            await clone(of, "template", clones, rows=False)
            each = ((await redis.info("memory"))["used_memory"] - before) / len(clones)
    sample = random.Random(7).sample(orgs, min(sizes.latency_sample, len(orgs)))  # noqa: S311 - no secret
    few = orgs[:FEW] * (len(sample) // FEW)  # the clients' own lists are as long, and no faster
    pairs = []
    for _ in range(sizes.latency_rounds):
        among_few = await take_us(few_stores, few, sizes.latency_seconds)
        pairs.append((among_few, await take_us(stores, sample, sizes.latency_seconds)))
    return each, pairs


def run(site: Site, sizes: Sizes) -> Results:
    results = Results()
    share = sizes.events / FULL.events
    with timed(f"{sizes.events:,} events that wait in the streams"), site.stores() as stores:
        seconds = uvloop.run(backlog(stores, sizes.events))
        about = f"{sizes.events:,} events from stream to committed rows"
        results.add(Goal(about, seconds, 20 * share, "s"))
        results.raw["backlog_events_per_second"] = sizes.events / seconds
    with timed(f"{LAG_EVENTS_PER_SECOND:,} events a second for {sizes.lag_seconds:g} s"), site.stores() as stores:
        ages = uvloop.run(lag(stores, sizes.lag_seconds))
        spread = (min(ages), max(ages))
        results.add(Goal(f"lag at {LAG_EVENTS_PER_SECOND:,} events/s, at most", max(ages), 1, "s", spread=spread))
        results.raw["lag_seconds"] = ages
    with timed(f"a writer killed {sizes.kills} times under load"), site.stores() as stores:
        part, takes = uvloop.run(kills(stores, sizes))
        results.books += part
        results.add(Goal(f"lost of {takes:,} admitted, writer killed {sizes.kills} times", part.lost, 0))
        results.add(Goal(f"duplicated of {takes:,}", part.duplicated, 0))
        results.add(Goal(f"over-admitted beyond {sizes.load_orgs} limits", part.over, 0))
    about = f"{sizes.drifts:,} of {sizes.drift_orgs:,} counters moved by hand under load"
    with timed(about), site.stores() as stores:
        part, repaired, false = uvloop.run(drifting(stores, sizes))
        results.books += part
        results.add(Goal(f"drifts found and repaired, of {sizes.drifts:,}", repaired, sizes.drifts, at_least=True))
        results.add(Goal("organizations taken for drifted that were not", false, 0))
        results.add(Goal(f"drift afterwards, of {sizes.drift_orgs:,}", part.drift, 0))
        results.add(Goal("over-admitted after the repairs", part.over, 0))
    with timed("Redis flushed under load"), site.stores() as stores:
        part, seconds = uvloop.run(flushed(stores, sizes))
        results.books += part
        results.add(Goal("over-admitted after a flush", part.over, 0))
        results.add(Goal("lost in a flush", part.lost, 0))
        results.add(Goal("admitting again after a flush", seconds, 5, "s"))
    with timed(f"{sizes.organizations:,} organizations"), site.stores() as few_stores, site.stores() as stores:
        each, pairs = uvloop.run(many(few_stores, stores, sizes))
        ratios = [b / a for a, b in pairs]
        results.add(Goal(f"Redis memory of one of {sizes.organizations:,} organizations", each, 1024, "bytes"))
        about = f"p50 of a take among {sizes.organizations:,} / among {FEW:,}"
        results.add(Goal(about, statistics.median(ratios), 1.25, spread=(min(ratios), max(ratios))))
        results.raw["take_us"] = pairs
    return results


def main(*, quick: bool) -> None:
    sizes = QUICK if quick else FULL
    machine = report.machine()
    began = time.monotonic()
    with Site() as site:
        results = run(site, sizes)
    print(f"\n{report.goals_table(results.goals)}\n\n{time.monotonic() - began:.0f} s in all")
    few, more = (statistics.median(pair[which] for pair in results.raw["take_us"]) for which in (0, 1))
    bars = [
        Bars("events a second, stream to rows", {"writer": results.raw["backlog_events_per_second"]}),
        Bars("p50 of a take, us", {f"{FEW:,} organizations": few, f"{sizes.organizations:,} organizations": more}),
    ]
    raw = {"options": {"quick": quick}, "figures": results.raw, "books": str(results.books)}
    title = "The usage ledger" + (", at a small size" if quick else "")
    name = "ledger-quick" if quick else "ledger"
    folder = report.write(name, title, [], bars, results.goals, raw, machine)
    print(f"Written to {folder.relative_to(report.ROOT)}/{name}.json, .md and .svg")
    print(results.books)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="within 40 s")
    main(quick=parser.parse_args().quick)
