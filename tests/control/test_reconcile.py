"""Redis counts what the events say; where it does not, that is found, told and repaired while traffic flows."""

import asyncio
import json
import random
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import pytest
from httpx import AsyncClient
from redis.asyncio import Redis

from control import incidents
from control.http.context import Context
from control.reconcile.drift import Cause
from control.reconcile.reconciler import AUTHOR, Reconciler
from control.reconcile.scan import Mismatch, Scan, WriterBehind
from control.settings.control_plane import Reconcile as ReconcileSettings
from control.settings.control_plane import Settings
from quota import keys
from quota.model import Admitted, Exhausted
from tests import charging
from tests.control.plane import Entitled, MovedClock
from tests.control.running import environment
from tests.control.usage import spend, write_all
from tests.replies import as_bytes, as_text


@pytest.fixture(autouse=True)
async def new_streams(context: Context) -> None:
    async with context.db.connection() as connection:
        await connection.execute("DELETE FROM usage_watermark")
    await context.recovery.round()


def hash_of(org: str) -> str:
    return keys.org_key(org, 32)


async def field_of(redis: Redis, org: str, kind: str = "used") -> str:
    fields = await redis.hgetall(hash_of(org))
    return next(name for name in map(as_text, fields) if name.startswith(f"{kind}:"))


async def only(context: Context, org: str) -> Mismatch:
    [checked] = await context.scan.check([org])
    return checked


@pytest.mark.parametrize("written", [True, False])
async def test_counters_that_agree_with_their_events_are_no_drift_however_far_the_writer_was(
    context: Context, entitled: Entitled, admin: AsyncClient, written: bool
) -> None:
    org = await entitled("growth", meters={"api_calls": 3})
    grant = {"meter": "api_calls", "units": 2, "expires_at": "2099-01-01T00:00:00Z", "reason": "sorry"}
    await admin.post(f"/v1/organizations/{org}/grants", json=grant)
    await spend(context, org, 4)
    if written:
        await write_all(context)
    await spend(context, org, 4)
    assert await context.scan.check([org]) == []


async def test_a_changed_counter_is_found_with_its_sign_and_repaired(
    context: Context, entitled: Entitled, redis: Redis
) -> None:
    over, under = await entitled("starter"), await entitled("starter")
    for org, by in ((over, 5), (under, -3)):
        await spend(context, org, 10)
        await redis.hincrby(hash_of(org), await field_of(redis, org), by)
    await write_all(context)
    for org, units in ((over, 5), (under, -3)):
        checked = await only(context, org)
        [drift] = checked.drifts
        assert (drift.units, drift.events, drift.cause) == (units, 10, Cause.CHANGED)
        assert await context.scan.repair(checked, AUTHOR)
        assert await redis.hget(hash_of(org), drift.field) == b"10"
        assert await context.scan.check([org]) == []


async def test_a_lost_counter_is_named_as_the_cause_and_comes_back(
    context: Context, entitled: Entitled, redis: Redis
) -> None:
    org = await entitled("tiny")
    await spend(context, org, 9)
    await redis.hdel(hash_of(org), await field_of(redis, org))
    checked = await only(context, org)
    assert [(drift.units, drift.cause) for drift in checked.drifts] == [(-9, Cause.COUNTER_LOST)]
    await context.scan.repair(checked, AUTHOR)
    await spend(context, org, 91)
    assert isinstance(await charging.take(context.ledger, org, "r", {"api_calls": 1}), Exhausted)


async def test_drifts_of_grants_and_overage_are_repaired_too(
    context: Context, entitled: Entitled, admin: AsyncClient, redis: Redis
) -> None:
    org = await entitled("growth", meters={"api_calls": 1})
    grant = {"meter": "api_calls", "units": 2, "expires_at": "2099-01-01T00:00:00Z", "reason": "sorry"}
    await admin.post(f"/v1/organizations/{org}/grants", json=grant)
    await spend(context, org, 5)
    before = await redis.hgetall(hash_of(org))
    for kind in ("grant", "burnt", "over", "used"):
        await redis.hincrby(hash_of(org), await field_of(redis, org, kind), 7)
    checked = await only(context, org)
    assert {drift.kind for drift in checked.drifts} == {"grant", "burnt", "over", "used"}
    await context.scan.repair(checked, AUTHOR)
    after = await redis.hgetall(hash_of(org))
    assert after.pop(b"repairs") == b"1"
    assert after == before


async def test_a_repair_while_traffic_flows_loses_no_charge(context: Context, entitled: Entitled, redis: Redis) -> None:
    org = await entitled("bulk")
    await spend(context, org, 1)
    field, stop, spent = await field_of(redis, org), asyncio.Event(), 1

    async def traffic() -> None:
        nonlocal spent
        while not stop.is_set():
            await spend(context, org, 5)
            spent += 5

    async def writer() -> None:
        while not stop.is_set():
            await write_all(context)
            await asyncio.sleep(0)

    tasks = [asyncio.create_task(traffic()) for _ in range(3)] + [asyncio.create_task(writer())]
    for _ in range(10):
        by = random.randint(-50, 50) or 1
        await redis.hincrby(hash_of(org), field, by)
        checked = await only(context, org)
        assert [drift.units for drift in checked.drifts] == [by]
        assert await context.scan.repair(checked, AUTHOR)
        assert await context.scan.check([org]) == []
    stop.set()
    await asyncio.gather(*tasks)
    assert int(as_bytes(await redis.hget(hash_of(org), field))) == spent


async def test_two_that_repair_the_same_drift_repair_it_once(
    context: Context, entitled: Entitled, redis: Redis
) -> None:
    org = await entitled("starter")
    await spend(context, org, 10)
    await redis.hincrby(hash_of(org), await field_of(redis, org), 5)
    one, other = await only(context, org), await only(context, org)
    assert sorted([await context.scan.repair(one, AUTHOR), await context.scan.repair(other, AUTHOR)]) == [False, True]
    assert await context.scan.check([org]) == []


async def test_a_repair_is_not_applied_to_an_organization_that_was_rebuilt_since(
    context: Context, entitled: Entitled, redis: Redis
) -> None:
    org = await entitled("starter")
    await spend(context, org, 10)
    await write_all(context)
    await redis.hincrby(hash_of(org), await field_of(redis, org), 5)
    checked = await only(context, org)
    await redis.flushall()
    await context.publisher.install(org)
    assert not await context.scan.repair(checked, AUTHOR)
    assert await context.scan.check([org]) == []


async def test_a_repair_is_journaled_with_what_was_and_what_is(
    context: Context, entitled: Entitled, redis: Redis, admin: AsyncClient
) -> None:
    org = await entitled("starter")
    await spend(context, org, 10)
    field = await field_of(redis, org)
    await redis.hincrby(hash_of(org), field, 5)
    await context.scan.repair(await only(context, org), AUTHOR)
    entry = (await admin.get(f"/v1/organizations/{org}/journal")).json()["entries"][0]
    assert (entry["action"], entry["actor"]) == ("usage.rebased", "reconcile")
    assert (entry["before"], entry["after"]) == ({field: 15}, {field: 10, "cause": "changed"})


async def test_all_drifts_among_many_are_found_with_no_false_alarm(
    context: Context, entitled: Entitled, redis: Redis
) -> None:
    orgs = [await entitled("starter") for _ in range(30)]
    for org in orgs:
        await spend(context, org, 2)
    drifted = set(random.sample(orgs, 10))
    for org in drifted:
        await redis.hincrby(hash_of(org), await field_of(redis, org), 1)
    await write_all(context)
    done = await context.reconciler.round()
    assert (done.drifted, done.repaired, done.units_above, done.units_below) == (10, 10, 10, 0)
    assert done.organizations >= 30
    assert (await context.reconciler.round()).drifted == 0


async def test_a_writer_that_is_far_behind_makes_no_drift(
    context: Context, entitled: Entitled, settings: Settings
) -> None:
    org = await entitled("starter")
    await spend(context, org, 5)
    keep_seconds = settings.writer.keep_seconds
    scan = Scan(context.db, context.ledger, context.streams, keep_seconds, context.clock, events_max=3)
    with pytest.raises(WriterBehind):
        await scan.check([org])
    await write_all(context)
    assert await scan.check([org]) == []


async def test_drift_above_the_alert_opens_an_incident_and_drift_below_it_none(
    context: Context, entitled: Entitled, redis: Redis, admin: AsyncClient
) -> None:
    small, large = await entitled("bulk"), await entitled("bulk")
    for org, by in ((small, 1), (large, 2)):
        assert isinstance(await charging.take(context.ledger, org, uuid4().hex, {"api_calls": 200}), Admitted)
        await redis.hincrby(hash_of(org), await field_of(redis, org), by)
    assert (await context.reconciler.round()).repaired == 2
    incidents = (await admin.get("/v1/incidents")).json()["incidents"]
    about = [(i["org"], i["content"]["units"]) for i in incidents if i["kind"] == "drift"]
    assert (large, 2) in about
    assert small not in {org for org, _ in about}


async def test_drift_is_an_incident_until_a_look_finds_the_counters_as_the_events_say(
    context: Context, entitled: Entitled, redis: Redis, admin: AsyncClient, clock: MovedClock
) -> None:
    org = await entitled("bulk")
    await spend(context, org, 10)
    await redis.hincrby(hash_of(org), await field_of(redis, org), 5)
    settings = ReconcileSettings(repair=False)
    only_looks = Reconciler(context.db, context.scan, settings, clock)

    async def is_open() -> bool:
        params = {"org": org, "kind": "drift", "status": "open"}
        return bool((await admin.get("/v1/incidents", params=params)).json()["incidents"])

    for _ in range(2):
        await only_looks.round()
        clock.move(seconds=1)
        assert await is_open(), "nobody has repaired it"
    await context.reconciler.round()
    clock.move(seconds=1)
    assert await is_open(), "it was there in this round"
    await context.reconciler.round()
    assert not await is_open()
    async with context.db.transaction() as connection:
        await incidents.open(connection, clock() + 1, "drift", org, org, {})
    await context.reconciler.round()
    assert await is_open(), "another process has seen it since this one looked"
    clock.move(seconds=2)
    await context.reconciler.round()
    assert not await is_open()


async def test_metrics_tell_the_drift(context: Context, entitled: Entitled, redis: Redis, nobody: AsyncClient) -> None:
    org = await entitled("starter")
    await spend(context, org, 4)
    await redis.hincrby(hash_of(org), await field_of(redis, org), -1)
    await context.reconciler.round()
    text = (await nobody.get("/-/metrics")).text
    assert "quotagate_control_drift_organizations 1.0\n" in text
    assert "quotagate_control_drift_units_below 1.0\n" in text
    assert "quotagate_control_drift_ratio_max 0.25\n" in text
    assert "quotagate_control_drift_repaired_total 1.0\n" in text


def command(settings: Settings, directory: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    with suppress(FileExistsError):
        directory.mkdir()
    argv = [sys.executable, "-m", "quotagate", *words]
    return subprocess.run(argv, env=environment(settings), capture_output=True, text=True, cwd=directory, check=False)


async def test_the_command_tells_and_repairs_and_a_dry_run_only_tells(
    context: Context, entitled: Entitled, redis: Redis, settings: Settings, tmp_path: Path
) -> None:
    org = await entitled("starter")
    await spend(context, org, 4)
    field = await field_of(redis, org)
    await redis.hincrby(hash_of(org), field, -2)
    for options, repaired, code in ((["--dry-run"], False, 1), ([], True, 0)):
        done = await asyncio.to_thread(command, settings, tmp_path, "reconcile", "--org", org, "--json", *options)
        drift = {"org": org, "counter": field, "counted": 2, "events": 4, "units": -2, "cause": "changed"}
        assert [json.loads(line) for line in done.stdout.splitlines()] == [drift | {"repaired": repaired}], done.stderr
        assert done.returncode == code
    assert await context.scan.check([org]) == []


async def test_recompute_finds_a_counter_that_is_not_the_sum_of_its_events(
    context: Context, entitled: Entitled, settings: Settings, tmp_path: Path
) -> None:
    org = await entitled("starter")
    await spend(context, org, 4)
    await write_all(context)
    dsn = settings.postgres.dsn.get_secret_value()
    good = await asyncio.to_thread(command, settings, tmp_path, "recompute", "--dsn", dsn, "--org", org)
    assert (good.returncode, good.stdout) == (0, ""), good.stderr
    assert good.stderr == "1 counters, 0 are not the sum of their events\n"
    async with context.db.connection() as connection:
        await connection.execute("UPDATE usage_counter SET used = used + 1 WHERE org = $1", org)
    bad = await asyncio.to_thread(command, settings, tmp_path, "recompute", "--json", "--dsn", dsn)
    [row] = [json.loads(line) for line in bad.stdout.splitlines()]
    assert (bad.returncode, row["org"], row["used"], row["events_used"]) == (1, org, 5, 4)
