"""Redis counts of a key's own quotas what the events say; where it does not, that is found, told and repaired."""

import asyncio
import random
from collections.abc import Mapping
from typing import Any
from uuid import uuid4

import pytest
from httpx import AsyncClient
from redis.asyncio import Redis

from control import sql
from control.commands.reconcile import recompute
from control.http.context import Context
from control.moments import moment
from control.reconcile.drift import Cause
from control.reconcile.key_windows import current_windows
from control.reconcile.reconciler import AUTHOR
from control.reconcile.scan import Mismatch
from control.settings.control_plane import Settings
from quota import keys
from quota.access import Path, digest16, version_word
from quota.events import parse
from quota.model import Admitted, Exhausted, NodeUsage
from tests import charging
from tests.control.access.keys import created
from tests.control.plane import Entitled
from tests.control.usage import write_all
from tests.control.writers import until

pytestmark = pytest.mark.usefixtures("new_streams")

ODD_SECONDS = 30_000_017
QUOTAS = [
    {"meter": "api_calls", "units": 100_000},
    {"meter": "api_calls", "units": 90_000, "window_seconds": ODD_SECONDS},
]


def field_of(key: Mapping[str, Any]) -> str:
    return f"n:k:{key['id']}:api_calls"


def hash_of(org: str) -> str:
    return keys.org_key(org, 32)


async def charge(context: Context, org: str, key: Mapping[str, Any], units: int = 1) -> bytes | None:
    """As a gateway does that has just looked; None where the key's quota refuses."""
    look = await context.ledger.look(org, digest16(key["key"]))
    assert look.record is not None
    assert look.version is not None
    path, word = str(Path(org, None, key["id"])), version_word(look.version, [look.record.limits])
    decision = await charging.take(context.ledger, org, uuid4().hex, {"api_calls": units}, path=path, version=word)
    if isinstance(decision, Exhausted):
        return None
    assert isinstance(decision, Admitted), decision
    return decision.receipt


async def windows_of(context: Context, org: str, key: Mapping[str, Any]) -> dict[int, NodeUsage]:
    """Its counters in Redis, by the seconds of the window."""
    snapshot = await context.ledger.peek(org)
    assert snapshot is not None
    return {node.window_seconds: node for node in snapshot.nodes if node.node == f"k:{key['id']}"}


async def only(context: Context, org: str) -> Mismatch:
    [found] = await context.scan.check([org])
    return found


async def redis_second(redis: Redis) -> int:
    return int((await redis.time())[0])


async def summed(context: Context, org: str, node: NodeUsage) -> int:
    """What a window's written events add up to, one by one."""
    async with context.db.connection() as connection:
        rows = await connection.fetch(
            "SELECT units, period_start, taken_at FROM usage_event WHERE org = $1 AND key_id = $2 AND meter = $3"
            " AND taken_at IS NOT NULL",
            org,
            node.node.removeprefix("k:"),
            node.meter,
        )
    period, start, end = node.window_seconds == 0, moment(node.start), node.start + node.window_seconds
    return sum(
        row["units"]
        for row in rows
        if (row["period_start"] == start if period else node.start <= row["taken_at"].timestamp() < end)
    )


@pytest.mark.parametrize("written", [True, False])
@pytest.mark.parametrize(
    ("damage", "cause"),
    [
        ("above", Cause.CHANGED),
        ("below", Cause.CHANGED),
        ("no window", Cause.COUNTER_LOST),
        ("an older window", Cause.COUNTER_LOST),
        ("no text of windows", Cause.COUNTER_LOST),
        ("lost", Cause.COUNTER_LOST),
    ],
)
async def test_a_damaged_counter_of_a_key_is_found_and_repaired(
    context: Context, entitled: Entitled, admin: AsyncClient, redis: Redis, damage: str, cause: Cause, written: bool
) -> None:
    org = await entitled("starter")
    key, other = await created(admin, org, quotas=QUOTAS), await created(admin, org, quotas=QUOTAS)
    await charge(context, org, other, 4)
    receipt = await charge(context, org, key, 12)
    assert receipt is not None
    await charging.settle(context.ledger, org, receipt, {"api_calls": 7})
    if written:
        await write_all(context)
    assert await context.scan.check([org]) == []
    before = await windows_of(context, org, key)
    period, odd = before[0].start, before[ODD_SECONDS].start
    damaged = {
        "above": f"0:{period}:9 {ODD_SECONDS}:{odd}:7",
        "below": f"0:{period}:7 {ODD_SECONDS}:{odd}:2",
        "no window": f"0:{period}:7",
        "an older window": f"0:{period}:7 {ODD_SECONDS}:{odd - ODD_SECONDS}:70",
        "no text of windows": "x",
        "lost": None,
    }[damage]
    if damaged is None:
        await redis.hdel(hash_of(org), field_of(key))
    else:
        await redis.hset(hash_of(org), field_of(key), damaged)
    mismatch = await only(context, org)
    units = {"above": [2], "below": [-5], "no window": [-7], "an older window": [-7]}.get(damage, [-7, -7])
    assert [(drift.units, drift.events, drift.cause) for drift in mismatch.drifts] == [(n, 7, cause) for n in units]
    assert await context.scan.repair(mismatch, AUTHOR)
    assert await windows_of(context, org, key) == before
    assert await context.scan.check([org]) == []


async def test_drift_of_a_key_opens_an_incident_and_is_journaled_and_counted(
    context: Context, entitled: Entitled, admin: AsyncClient, nobody: AsyncClient, redis: Redis
) -> None:
    org = await entitled("starter")
    key = await created(admin, org, quotas=QUOTAS[:1])
    await charge(context, org, key, 4)
    start = (await windows_of(context, org, key))[0].start
    await redis.hset(hash_of(org), field_of(key), f"0:{start}:1")
    done = await context.reconciler.round()
    assert (done.drifted, done.repaired) == (1, 1)
    counter = f"{field_of(key)}:0:{start}"
    incidents = (await admin.get("/v1/incidents")).json()["incidents"]
    [content] = [each["content"] for each in incidents if each["org"] == org and each["kind"] == "drift"]
    assert (content["counter"], content["counted"], content["events"]) == (counter, 1, 4)
    entry = (await admin.get(f"/v1/organizations/{org}/journal")).json()["entries"][0]
    assert (entry["action"], entry["before"]) == ("usage.rebased", {counter: 1})
    assert entry["after"] == {counter: 4, "cause": "changed"}
    assert "quotagate_control_drift_ratio_max 0.75\n" in (await nobody.get("/-/metrics")).text
    assert (await context.reconciler.round()).drifted == 0


async def test_a_repair_of_a_keys_counter_while_traffic_flows_loses_no_charge(
    context: Context, entitled: Entitled, admin: AsyncClient, redis: Redis
) -> None:
    org = await entitled("bulk")
    key = await created(admin, org, quotas=QUOTAS)
    await charge(context, org, key)
    stop, spent = asyncio.Event(), 1

    async def traffic() -> None:
        nonlocal spent
        while not stop.is_set():
            assert await charge(context, org, key, 2) is not None
            spent += 2

    async def writer() -> None:
        while not stop.is_set():
            await write_all(context)
            await asyncio.sleep(0)

    tasks = [asyncio.create_task(traffic()) for _ in range(3)] + [asyncio.create_task(writer())]
    damage = "return redis.call('HSET', KEYS[1], ARGV[1], (string.gsub(redis.call('HGET', KEYS[1], ARGV[1]), ARGV[2]"
    damage += " .. ':(%d+):(%d+)', function(s, n) return ARGV[2] .. ':' .. s .. ':' .. n + ARGV[3] end)))"
    try:
        for _ in range(8):
            by = random.randint(1, 50)
            await redis.eval(damage, 1, hash_of(org), field_of(key), "0", str(by))
            mismatch = await only(context, org)
            assert [drift.units for drift in mismatch.drifts] == [by]
            assert await context.scan.repair(mismatch, AUTHOR)
            assert await context.scan.check([org]) == []
    finally:
        stop.set()
        await asyncio.gather(*tasks)
    assert [node.used for node in (await windows_of(context, org, key)).values()] == [spent, spent]


async def test_random_traffic_over_keys_with_quotas_ends_without_drift(
    context: Context, entitled: Entitled, admin: AsyncClient, redis: Redis
) -> None:
    org = await entitled("bulk")
    lengths = [None, 2, 7, 60, 3600, 5400, 86_400, ODD_SECONDS]
    limited = []
    for _ in range(4):
        chosen = random.sample(lengths, 3)
        quotas = [{"meter": "api_calls", "units": random.choice([30, 500])} | _window(seconds) for seconds in chosen]
        limited.append(await created(admin, org, quotas=quotas))
    receipts: list[bytes] = []
    stop = asyncio.Event()

    async def traffic() -> None:
        for _ in range(150):
            key, step = random.choice(limited), random.random()
            if step < 0.65 or not receipts:
                receipt = await charge(context, org, key, random.randint(0, 6))
                if receipt is not None:
                    receipts.append(receipt)
            elif step < 0.9:
                receipt = receipts.pop(random.randrange(len(receipts)))
                await charging.settle(context.ledger, org, receipt, {"api_calls": random.randint(0, 9)})
            else:
                path = str(Path(org, None, key["id"]))
                await charging.replay(context.ledger, path, uuid4().hex, {"api_calls": random.randint(1, 3)})

    async def writer() -> None:
        while not stop.is_set():
            await write_all(context)
            assert await context.scan.check([org]) == []

    reconciled = asyncio.create_task(writer())
    try:
        await asyncio.gather(*[traffic() for _ in range(4)])
    finally:
        stop.set()
        await reconciled
    assert await context.scan.check([org]) == []
    await write_all(context)
    assert await context.scan.check([org]) == []
    nodes = [node for key in limited for node in (await windows_of(context, org, key)).values()]
    assert len(nodes) >= len(limited)
    for node in nodes:
        assert node.used == await summed(context, org, node), node


def _window(seconds: int | None) -> dict[str, int]:
    return {} if seconds is None else {"window_seconds": seconds}


async def test_a_settlement_in_a_later_window_causes_no_drift(
    context: Context, entitled: Entitled, admin: AsyncClient, redis: Redis
) -> None:
    org = await entitled("starter")
    for _ in range(5):
        now = await redis_second(redis)
        # A window that ends in some seconds, and the next one lasts long.
        ends = ((turn, n) for turn in range(now + 4, now + 40) for n in range(600, 20_000) if turn % n == 0)
        turn, seconds = next(ends)
        key = await created(admin, org, quotas=[QUOTAS[0], {**QUOTAS[0], "window_seconds": seconds}])
        receipt = await charge(context, org, key, 9)
        assert receipt is not None
        taken_at = parse(receipt.decode()).at
        assert taken_at is not None
        if taken_at < turn:
            break
    else:
        pytest.fail("this machine is too slow for windows of four seconds")

    async def has_turned() -> bool:
        return await redis_second(redis) >= turn

    await until(has_turned)
    assert await charge(context, org, key, 5) is not None
    await charging.settle(context.ledger, org, receipt, {"api_calls": 2})
    assert {n.window_seconds: n.used for n in (await windows_of(context, org, key)).values()} == {0: 7, seconds: 5}
    shard = keys.shard_of(org, 32)
    for _ in range(2):
        own = await current_windows(context.db, context.ledger, context.streams, shard, [org])
        assert {(w.seconds, w.start) for w in own.windows if w.key_id == key["id"]} >= {(seconds, turn)}
        assert await context.scan.check([org]) == []
        await write_all(context)


async def test_a_repair_that_comes_late_leaves_the_window_that_has_begun_since(
    context: Context, entitled: Entitled, admin: AsyncClient, redis: Redis
) -> None:
    org = await entitled("starter")
    key = await created(admin, org, quotas=QUOTAS)
    await charge(context, org, key, 3)
    before = await windows_of(context, org, key)
    moves = {f"{field_of(key)}:{ODD_SECONDS}:{before[ODD_SECONDS].start - ODD_SECONDS}": 5}
    generation = await context.ledger.generation(keys.shard_of(org, 32)) or ""
    assert await context.ledger.rebase(org, generation, 0, moves)
    assert await windows_of(context, org, key) == before


async def test_a_window_that_was_added_to_a_key_is_brought_to_its_events_without_an_alarm(
    context: Context, entitled: Entitled, admin: AsyncClient
) -> None:
    org = await entitled("starter")
    key = await created(admin, org, quotas=QUOTAS[:1])
    await charge(context, org, key, 3)
    changed = await admin.patch(f"/v1/organizations/{org}/keys/{key['id']}", json={"quotas": QUOTAS})
    assert changed.status_code == 200, changed.text
    await charge(context, org, key, 2)
    assert {drift.cause for drift in (await only(context, org)).drifts} == {Cause.QUOTAS_CHANGED}
    done = await context.reconciler.round()
    assert (done.drifted, done.repaired) == (0, 0)
    assert await context.scan.check([org]) == []
    assert [node.used for node in (await windows_of(context, org, key)).values()] == [5, 5]
    incidents = (await admin.get("/v1/incidents")).json()["incidents"]
    assert not [each for each in incidents if each["org"] == org and each["kind"] == "drift"]


async def test_windows_of_any_length_are_exact_though_hours_are_counted(context: Context) -> None:
    org, start = f"o{uuid4().hex[:12]}", 1_790_000_000
    taken = [start + random.randrange(40_000) for _ in range(300)]
    windows = [(length, start + 20_000 - (start + 20_000) % length) for length in (7, 600, 3600, 5400, 7200, 9999)]
    windows += [(n, begins - begins % n) for n in random.sample(range(2, 20_000), 40) for begins in [start + 21_000]]
    async with context.db.connection() as connection:
        for i, at in enumerate(taken):
            await connection.execute(
                "INSERT INTO usage_event (org, occurred_at, stream_seq, meter, shard, stream_ms, kind, request_id,"
                " period_start, units, overage, key_id, taken_at)"
                " VALUES ($1, $2, $3, 'api_calls', 0, 0, 'take', 'r', $4, 1, 0, 'k', $2)",
                org,
                moment(at),
                i,
                moment(start),
            )
        hours = {at - at % 3600 for at in taken}
        await sql.usage.add_key_usage(
            connection,
            region=0,
            orgs=[org] * len(hours),
            key_ids=["k"] * len(hours),
            meters=["api_calls"] * len(hours),
            period_starts=[moment(start)] * len(hours),
            hours=[moment(hour) for hour in hours],
            used=[sum(at - at % 3600 == hour for at in taken) for hour in hours],
        )
        rows = await sql.usage.node_usage(
            connection,
            region=0,
            orgs=[org] * len(windows),
            key_ids=["k"] * len(windows),
            meters=["api_calls"] * len(windows),
            window_seconds=[seconds for seconds, _ in windows],
            starts=[moment(begins) for _, begins in windows],
        )
    used = {(row.window_seconds, row.start): row.used for row in rows}
    assert used == {(n, begins): sum(begins <= at < begins + n for at in taken) for n, begins in windows}


async def test_recompute_finds_an_hour_of_a_key_that_is_not_the_sum_of_its_events(
    context: Context, entitled: Entitled, admin: AsyncClient, settings: Settings
) -> None:
    org = await entitled("starter")
    key = await created(admin, org, quotas=QUOTAS)
    receipt = await charge(context, org, key, 12)
    assert receipt is not None
    await charging.settle(context.ledger, org, receipt, {"api_calls": 7})
    await write_all(context)
    dsn = settings.postgres.dsn.get_secret_value()
    assert await asyncio.to_thread(recompute, dsn, org) == (2, [])
    async with context.db.connection() as connection:
        await connection.execute("UPDATE key_counter SET used = used + 1 WHERE org = $1", org)
    counters, [row] = await asyncio.to_thread(recompute, dsn, org)
    assert (counters, row["key_id"], row["used"], row["events_used"]) == (2, key["id"], 8, 7)
