"""The directory follows what changes."""

import asyncio

from httpx import AsyncClient

from control import sql
from control.directory.projection import Moves
from control.directory.summary import MeterStanding, Summary
from control.http.context import Context
from control.moments import moment
from quota.model import OveragePolicy
from tests.control.directory.conftest import Listed
from tests.control.plane import Entitled
from tests.control.usage import spend, write_all


def summary(org: str, allowance: int) -> Summary:
    meter = MeterStanding("api_calls", allowance, 0, 0, allowance, 0)
    return Summary(
        org, org, moment(0), None, False, None, None, "active", OveragePolicy.HARD_STOP, None, [meter], False, None,
        None, None, {}, None,
    )  # fmt: skip


def test_an_organization_is_read_again_when_it_has_used_a_thousandth_more() -> None:
    moves = Moves()
    moves.add({("a", 0, "api_calls"): (1, 0, 0)})
    assert moves.take(10) == ["a"]
    moves.learn(summary("a", 10_000))
    moves.add({("a", 0, "api_calls"): (9, 0, 0)})
    assert moves.take(10) == []
    moves.add({("a", 0, "api_calls"): (-1, 0, 0)})
    assert moves.take(10) == ["a"]
    assert moves.take(10) == []


def test_what_was_not_read_is_put_back() -> None:
    moves = Moves()
    moves.add({(org, 0, "api_calls"): (1, 0, 0) for org in "abc"})
    taken = moves.take(2)
    moves.put_back(taken)
    assert sorted(moves.take(10)) == ["a", "b", "c"]


async def test_a_walk_finds_what_a_process_knew_when_it_died(
    context: Context, admin: AsyncClient, entitled: Entitled, new_streams: None, listed: Listed, marker: str
) -> None:
    org = await entitled("tiny")
    await admin.put(f"/v1/organizations/{org}", json={"name": marker})
    await listed(q=marker)
    await spend(context, org, units=90)
    await write_all(context)
    context.directory.moves.take(1000)
    assert await listed(q=marker, near_quota=True) == []
    after = await context.directory.walk_on("")
    while after:
        after = await context.directory.walk_on(after)
    assert await listed(q=marker, near_quota=True) == [org]


async def test_what_does_not_change_a_summary_writes_nothing(
    context: Context, admin: AsyncClient, entitled: Entitled, listed: Listed, marker: str
) -> None:
    org = await entitled("tiny")
    await admin.put(f"/v1/organizations/{org}", json={"name": marker})
    await listed(q=marker)
    versions = "SELECT s.xmin::text || x.xmin::text FROM organization_summary s "
    versions += "JOIN organization_search x USING (org) WHERE org = $1"
    async with context.db.connection() as connection:
        before = await connection.fetchval(versions, org)
        await connection.execute("INSERT INTO organization_review (org) VALUES ($1)", org)
        await listed(q=marker)
        assert await connection.fetchval(versions, org) == before


async def test_one_that_cannot_be_read_hides_no_other(
    context: Context, admin: AsyncClient, entitled: Entitled, listed: Listed, marker: str
) -> None:
    broken, whole = await entitled("tiny"), await entitled("tiny")
    for org in (broken, whole):
        await admin.put(f"/v1/organizations/{org}", json={"name": marker})
    async with context.db.connection() as connection:
        await connection.execute(
            "UPDATE entitlement_override SET allowances = '{\"api_calls\": -5}'::jsonb WHERE org = $1", broken
        )
    assert whole in await listed(q=marker)
    async with context.db.connection() as connection:
        await connection.execute("UPDATE entitlement_override SET allowances = '{}'::jsonb WHERE org = $1", broken)
    assert sorted(await listed(q=marker)) == sorted([broken, whole])


async def test_a_change_of_an_organization_and_its_first_summary_wait_for_each_other(
    context: Context, entitled: Entitled
) -> None:
    """The change locks the organization, then its summary, by a trigger; so has the summary to be written."""
    org = await entitled("starter")
    async with context.db.connection() as connection:
        await connection.execute("DELETE FROM organization_search WHERE org = $1", org)
        await connection.execute("DELETE FROM organization_summary WHERE org = $1", org)
    waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted"
    async with context.db.transaction() as change:
        await sql.organizations.lock(change, org=org)
        listing = asyncio.create_task(context.directory.walk_on(org[:-1]))
        async with asyncio.timeout(60):
            while not await change.fetchval(waiting):  # what is waited for happens in Postgres
                assert not listing.done()
                await asyncio.sleep(0.01)
        await sql.organizations.set_shadow(change, id=org, shadow=True)
    await listing
    async with context.db.connection() as connection:
        listed = "SELECT count(*) FROM organization_summary JOIN organization_search USING (org) WHERE org = $1"
        assert await connection.fetchval(listed, org) == 1
