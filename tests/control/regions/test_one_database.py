"""Several regions on one PostgreSQL: each control plane works with its own Redis, and none disturbs another."""

import asyncio
import json
import sys
from contextlib import AsyncExitStack
from typing import Any

import pytest

from control import sql
from control.access.cleanup import Cleanup
from control.analytics.check_times import CheckTimesDrain
from control.app import opened
from control.commands.reconcile import recompute
from control.db import StoreUnavailable
from control.moments import moment
from control.settings.control_plane import Settings
from control.usage.limits import LimitWatch
from quota import generation, keys
from quota.access import Path as PrincipalPath
from quota.access import digest16, version_word
from quota.calls.look import IndexMiss
from quota.check_times import FIELD, CheckTimes, encode
from quota.model import Admitted
from tests import charging
from tests.control.access.keys import created
from tests.control.regions.planes import CALLS, REGIONS, SHARDS, Plane, Planes, planes, running, second_valkey, soon
from tests.control.usage import write_all
from tests.control.writers import PERIOD, until
from tests.replies import as_text

__all__ = ["planes", "running", "second_valkey"]

IN_FORCE_SECONDS = 5.0
PLANE = """if True:
    import asyncio, sys
    from control.app import opened
    from control.settings.control_plane import Settings

    async def main(settings):
        async with opened(Settings.model_validate_json(settings)) as context:
            async with context.background.running():
                print("runs", flush=True)
                await asyncio.Event().wait()

    asyncio.run(main(sys.stdin.read()))
"""


async def test_events_of_two_regions_are_written_once_also_of_one_organization_in_the_same_millisecond(
    running: Planes,
) -> None:
    org, ms = "acme", (PERIOD.start + 3600) * 1000
    for n in range(20):
        await asyncio.gather(*(plane.add(org, 10, PERIOD.start, ms + n) for plane in (running.us, running.eu)))
        await asyncio.gather(*(plane.add("other", 10, PERIOD.start) for plane in (running.us, running.eu)))
    for each in (org, "other"):
        await running.written(each, 400)
        counts = "SELECT (count(*), count(DISTINCT request_id))::text FROM usage_event WHERE org = $1"
        assert await running.value(counts, each) == "(400,400)"
        assert await running.value("SELECT sum(used) FROM usage_counter WHERE org = $1", each) == 400
        by_region = "SELECT string_agg(used::text, ',' ORDER BY region) FROM (SELECT region, sum(used)::bigint AS used"
        by_region += " FROM usage_by_region WHERE org = $1 GROUP BY region) AS u"
        assert await running.value(by_region, each) == "200,200"
    assert await running.value("SELECT count(*) FROM usage_quarantine") == 0


async def test_writers_of_two_regions_never_wait_for_each_other_in_a_circle(planes: Planes) -> None:
    orgs = [org for n in range(2000) if keys.shard_of(org := f"org-{n:04}", SHARDS) == 0]
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"

    async def both_wait() -> bool:
        return bool(await planes.value(waiting) == 2)

    for locked in (False, True):
        await asyncio.gather(planes.us.add_each(orgs, PERIOD.start), planes.eu.add_each(orgs[::-1], PERIOD.start))
        async with AsyncExitStack() as lock:
            if locked:  # in the middle, for both to have done a part
                connection = await lock.enter_async_context(planes.us.context.db.transaction())
                one = orgs[len(orgs) // 2]
                await connection.execute("SELECT FROM usage_counter WHERE org = $1 FOR UPDATE", one)
            writing = asyncio.gather(write_all(planes.us.context), write_all(planes.eu.context))
            if locked:
                await until(both_wait)
        await writing
    used = "SELECT (min(used), max(used), count(*))::text FROM usage_counter WHERE org = ANY($1::text[])"
    assert await planes.value(used, orgs) == f"(4,4,{len(orgs)})"


async def spent(planes: Planes) -> tuple[str, dict[str, int]]:
    """An organization that used allowance and a grant in both regions, and was given something back."""
    org = await planes.entitled("growth", meters={CALLS: 10})
    grant = {"meter": CALLS, "units": 40, "expires_at": "2099-01-01T00:00:00Z", "reason": "sorry"}
    assert (await planes.us.admin.post(f"/v1/organizations/{org}/grants", json=grant)).status_code == 201
    await planes.eu.context.publisher.install(org)
    for plane, units in ((planes.us, 15), (planes.eu, 12)):
        await plane.charge(org, units)
        await charging.settle(plane.context.ledger, org, await plane.charge(org, 9), {CALLS: 2})
    await planes.written(org, 6)
    return org, {"us": 17, "eu": 14}


@pytest.mark.parametrize("lost", [("us",), ("eu",), ("us", "eu")])
async def test_a_redis_that_loses_its_memory_gets_its_own_regions_counters_back_and_no_other_is_touched(
    running: Planes, lost: tuple[str, ...]
) -> None:
    org, used = await spent(running)
    regions: dict[str, Plane] = {"us": running.us, "eu": running.eu}
    before = {name: await plane.held(org) for name, plane in regions.items()}
    generations = {name: await plane.redis.get(keys.generation_key(0)) for name, plane in regions.items()}
    await asyncio.gather(*(regions[name].redis.flushall() for name in lost))
    for name in lost:
        plane = regions[name]

        async def is_vouched(plane: Plane = plane) -> bool:
            held = await plane.redis.get(keys.generation_key(0))
            return held is not None and not as_text(held).startswith(generation.REBUILDING)

        await soon(is_vouched, 30)
        await plane.context.publisher.install(org)
    for name, plane in regions.items():
        after, then = await plane.held(org), before[name]
        assert after is not None
        assert then is not None
        assert (after.usage, after.grant_used) == (then.usage, then.grant_used)
        assert await plane.used(org) == used[name]
        changed = await plane.redis.get(keys.generation_key(0)) != generations[name]
        assert changed == (name in lost)
    epochs = await running.value("SELECT (count(*), count(DISTINCT epoch))::text FROM ledger_epoch")
    assert epochs.strip("()").split(",")[0] == epochs.strip("()").split(",")[1]


async def test_windows_of_keys_are_those_of_their_region(running: Planes) -> None:
    org = await running.entitled("growth")
    quotas = [{"meter": CALLS, "units": 100}, {"meter": CALLS, "units": 90, "window_seconds": 86_400}]
    key = await created(running.us.admin, org, quotas=quotas)
    await running.eu.context.publisher.install(org)
    for plane, units in ((running.us, 5), (running.eu, 3)):
        look = await plane.context.ledger.look(org, digest16(key["key"]))
        assert look.record is not None
        assert look.version is not None
        path, word = str(PrincipalPath(org, None, key["id"])), version_word(look.version, [look.record.limits])
        assert isinstance(await plane.take(org, units, path, word), Admitted)
    await running.written(org, 2)
    for plane, units in ((running.us, 5), (running.eu, 3)):
        assert await plane.context.scan.check([org]) == []
        await plane.redis.delete(keys.org_key(org, 32))
        await plane.context.publisher.install(org)
        snapshot = await plane.held(org)
        assert snapshot is not None
        assert [node.used for node in snapshot.nodes] == [units, units]


async def test_reconcile_finds_drift_in_the_region_that_has_it_and_in_no_other(planes: Planes) -> None:
    org = await planes.entitled("growth", meters={CALLS: 10})
    for plane, units in ((planes.us, 15), (planes.eu, 12)):
        await plane.charge(org, units)
        await write_all(plane.context)
    for plane in (planes.us, planes.eu):
        assert (await plane.context.reconciler.round()).drifted == 0
    snapshot = await planes.eu.held(org)
    assert snapshot is not None
    await planes.eu.redis.hincrby(keys.org_key(org, 32), f"used:{snapshot.usage[0].period_start}:{CALLS}", 7)
    open_keys = "SELECT string_agg(key, ',') FROM incident WHERE kind = 'drift' AND closed_at IS NULL AND org = $1"
    assert (await planes.eu.context.reconciler.round()).drifted == 1
    assert (await planes.us.context.reconciler.round()).drifted == 0
    assert await planes.value(open_keys, org) == f"eu/{org}"
    assert (await planes.us.used(org), await planes.eu.used(org)) == (15, 12)
    planes.eu.clock.move(seconds=1)
    assert (await planes.eu.context.reconciler.round()).drifted == 0
    assert await planes.value(open_keys, org) is None


async def test_a_change_in_one_region_is_in_force_in_the_other_within_five_seconds(running: Planes) -> None:
    unknown = "org-to-come"
    await running.eu.context.publisher.install(unknown)
    org = await running.entitled("starter")
    assert isinstance(await running.eu.take(org), Admitted)
    for admin, elsewhere in ((running.us.admin, running.eu), (running.eu.admin, running.us)):
        for suspended in (True, False):
            action = "suspend" if suspended else "resume"
            assert (await admin.post(f"/v1/entitlements/{org}/{action}")).status_code == 200

            async def is_so(plane: Plane = elsewhere, refused: bool = suspended) -> bool:
                return isinstance(await plane.take(org), Admitted) != refused

            await soon(is_so, IN_FORCE_SECONDS)
    assert (await running.us.admin.put(f"/v1/organizations/{unknown}", json={"name": "new"})).status_code == 201
    assert (await running.us.admin.put(f"/v1/entitlements/{unknown}", json={"plan": "starter"})).status_code == 200

    async def is_known() -> bool:
        return isinstance(await running.eu.take(unknown), Admitted)

    await soon(is_known, IN_FORCE_SECONDS)


async def test_recompute_proves_the_counters_of_each_region(running: Planes, postgres_dsn: str) -> None:
    org, _ = await spent(running)
    assert await asyncio.to_thread(recompute, postgres_dsn, org) == (2, [])
    async with running.us.context.db.connection() as connection:
        await connection.execute("UPDATE region_usage SET used = used + 1 WHERE org = $1", org)
    _, [row] = await asyncio.to_thread(recompute, postgres_dsn, org)
    assert (row["region"], row["used"], row["events_used"]) == (1, 15, 14)


async def test_a_key_of_one_region_is_found_in_the_other_until_it_is_gone_for_good(running: Planes) -> None:
    org = await running.entitled("starter")
    key = await created(running.us.admin, org)
    ledger, digest = running.eu.context.ledger, digest16(key["key"])

    async def is_found() -> bool:
        return await ledger.owner(digest) == org and (await ledger.look(org, digest)).record is not None

    async def is_gone() -> bool:
        return await ledger.owner(digest) is IndexMiss.NO_KEY

    await soon(is_found, IN_FORCE_SECONDS)
    answer = await running.us.admin.delete(f"/v1/organizations/{org}/keys/{key['id']}")
    assert answer.is_success, answer.text
    running.us.clock.move(days=31)
    await Cleanup(
        running.us.context.db, running.us.context.ledger, running.us.context.publisher, running.us.clock
    ).round()
    await soon(is_gone, IN_FORCE_SECONDS)


async def test_check_times_of_two_regions_are_counted_whichever_is_ahead(planes: Planes) -> None:
    minute = PERIOD.start // 60
    for plane, entry in ((planes.us, "500-0"), (planes.eu, "400-0"), (planes.us, "600-0"), (planes.eu, "401-0")):
        fields: dict[Any, Any] = {FIELD: encode(CheckTimes(minute, {9: 1})).encode()}
        await plane.redis.xadd(keys.CHECK_TIMES, fields, id=entry)
        assert await CheckTimesDrain(plane.context.db, plane.redis, plane.clock).round() == 1
    assert await planes.value("SELECT sum(checks)::int FROM check_time") == 4


async def test_what_is_shown_is_the_sum_over_regions(running: Planes) -> None:
    org, used = await spent(running)
    for plane in (running.us, running.eu):
        [meter] = (await plane.admin.get("/v1/usage", params={"org": org})).json()["meters"]
        assert sum(bucket["units"] for bucket in meter["buckets"]) == sum(used.values())
        shown = (await plane.admin.get(f"/v1/entitlements/{org}")).json()
        [calls] = [each for each in shown["meters"] if each["meter"] == CALLS]
        assert calls["used"] == sum(used.values())
        [grant] = shown["grants"]
        assert grant["remaining"] == 40 - (17 + 14 - 10), "the allowance was used up before"


async def test_an_organization_is_at_its_limit_when_all_regions_together_have_used_it(planes: Planes) -> None:
    org = await planes.entitled("starter", meters={CALLS: 10})
    is_open = "SELECT count(*) FROM incident WHERE kind = 'quota_exhausted' AND org = $1 AND closed_at IS NULL"
    await planes.us.charge(org, 6)
    receipt = await planes.eu.charge(org, 4)
    for plane in (planes.us, planes.eu):
        await write_all(plane.context)

    async def look(plane: Plane) -> int:
        for each in (planes.us, planes.eu, planes.us):  # as agents do again and again
            assert each.context.regional is not None
            await each.context.regional.ask(org, {})
        plane.clock.now = max(planes.us.clock.now, planes.eu.clock.now) + 1
        await LimitWatch(plane.context.db, plane.context.ledger, plane.clock).round()
        return int(await planes.value(is_open, org))

    assert [await look(plane) for plane in (planes.us, planes.eu)] == [1, 1]
    await charging.settle(planes.eu.context.ledger, org, receipt, {CALLS: 1})
    await write_all(planes.eu.context)
    assert [await look(plane) for plane in (planes.us, planes.eu)] == [0, 0]


async def test_a_region_enforces_its_part_of_a_rate_and_of_concurrent_requests_and_shows_the_whole(
    planes: Planes,
) -> None:
    rate = {"requests": 50, "seconds": 1, "burst": 10}
    org = await planes.entitled("starter", rate=rate, concurrent_max=10)
    held = [await plane.held(org) for plane in (planes.us, planes.eu)]
    assert [snapshot and snapshot.concurrent_max for snapshot in held] == [6, 4]
    assert [snapshot and round(snapshot.rate_interval_us) for snapshot in held] == [33_333, 50_000]
    shown = (await planes.eu.admin.get(f"/v1/entitlements/{org}")).json()
    assert (shown["rate"], shown["concurrent_max"]) == (rate, 10)


async def test_each_region_renews_its_periods_by_its_own_clock(planes: Planes) -> None:
    org = await planes.entitled("starter")
    first = await planes.us.held(org)
    assert first is not None
    assert first.period is not None
    for ahead, behind in ((planes.us, planes.eu), (planes.eu, planes.us)):
        before = await behind.held(org)
        assert before is not None
        ahead.clock.now = first.periods[0].end + 1
        while await ahead.context.publisher.round():
            pass
        renewed = await ahead.held(org)
        assert renewed is not None
        assert renewed.version > before.version, "the periods themselves come with the next lease, by Redis' own clock"
        for _ in range(3):
            await behind.context.publisher.round()
        after = await behind.held(org)
        assert after is not None
        assert after.periods == before.periods
        version = await planes.value("SELECT version FROM publication WHERE org = $1", org)
        assert await ahead.context.publisher.round() == await behind.context.publisher.round() == 0
        assert await planes.value("SELECT version FROM publication WHERE org = $1", org) == version, "and no more"


async def test_a_renewal_and_a_change_never_wait_for_each_other_in_a_circle(planes: Planes) -> None:
    org = await planes.entitled("starter")
    db = planes.us.context.db
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"

    async def wait(count: int) -> None:
        async def true() -> bool:
            return bool(await planes.value(waiting) == count)

        await until(true)

    async def renewed() -> None:
        async with planes.eu.context.db.connection() as connection:
            await sql.entitlements.bump_due(connection, region=1, org=org, at=moment(2**33))

    async def changed() -> None:
        async with db.connection() as connection:
            await sql.entitlements.open_publication(connection, org=org)

    version = await planes.value("SELECT version FROM publication WHERE org = $1", org)
    async with AsyncExitStack() as lock, asyncio.TaskGroup() as both:
        connection = await lock.enter_async_context(db.transaction())
        await connection.execute("SELECT FROM region_publication WHERE org = $1 FOR UPDATE", org)
        for number, each in enumerate((renewed(), changed()), start=1):
            both.create_task(each)
            await wait(number)
        await lock.aclose()
    assert await planes.value("SELECT version FROM publication WHERE org = $1", org) > version + 1


async def test_a_region_whose_control_plane_is_killed_holds_no_other_up_and_loses_nothing(planes: Planes) -> None:
    async with AsyncExitStack() as stack:
        await planes.us.context.recovery.round()
        await stack.enter_async_context(planes.us.context.background.running())
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", PLANE, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
        )
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(_json(planes.eu.settings))
            process.stdin.close()
            assert await process.stdout.readline() == b"runs\n"
            await planes.eu.add("victim", 500, PERIOD.start)
            await planes.written("victim", 1)
            for _ in range(20):
                await planes.eu.add("victim", 500, PERIOD.start)
        finally:
            process.kill()
            await process.wait()
        await planes.us.add("victim", 1000, PERIOD.start)
        of_us = "SELECT count(*) FROM usage_event WHERE org = 'victim' AND shard < 100"

        async def is_written() -> bool:
            return bool(await planes.value(of_us) == 1000)

        await soon(is_written, IN_FORCE_SECONDS + 10)
        org = await planes.entitled("starter")
        assert isinstance(await planes.us.take(org), Admitted)
        await stack.enter_async_context(planes.eu.context.background.running())
        await planes.written("victim", 500 * 21 + 1000)
    counts = "SELECT (count(*), count(DISTINCT request_id))::text FROM usage_event WHERE org = 'victim'"
    assert await planes.value(counts) == "(11500,11500)"
    assert await planes.value("SELECT sum(used) FROM usage_counter WHERE org = 'victim'") == 11_500
    assert await planes.value("SELECT sum(used) FROM region_usage WHERE org = 'victim'") == 10_500


def _json(settings: Settings) -> bytes:
    plain = {
        "postgres": {"dsn": settings.postgres.dsn.get_secret_value()},
        "redis": {"url": settings.redis.url.get_secret_value(), "timeout_seconds": 60},
        "admin_token": settings.admin_token.get_secret_value(),
        "region": settings.region,
        "regions": REGIONS,
    }
    return json.dumps(plain).encode()


@pytest.mark.usefixtures("planes")
async def test_a_number_of_a_region_is_never_given_to_another(settings: Settings) -> None:
    for wrong, what in (
        ({"us": REGIONS["us"], "ap": REGIONS["eu"]}, "region 1 is eu for good, and by the settings 1 is ap"),
        (
            {"us": REGIONS["us"], "eu": {"number": 2, "part": 0.4}},
            "region 1 is eu for good, and by the settings 2 is eu",
        ),
    ):
        other = Settings.model_validate(settings.model_dump() | {"region": "us", "regions": wrong})
        with pytest.raises(StoreUnavailable, match=what):
            async with opened(other):
                pass
