"""What is over closes by itself, and is forgotten after its time."""

from typing import Any
from uuid import UUID

import pytest
from httpx import AsyncClient

from control import incidents, sql
from control.attention import upkeep
from control.attention.upkeep import DELETED_SUBSCRIBED, GIVEN_UP, KEY_LEAKED, Upkeep
from control.db import Connection
from control.http.context import Context
from control.ids import uuid7
from control.moments import moment
from devstack import postgres
from tests.control.access.keys import created
from tests.control.plane import Entitled, MovedClock


@pytest.fixture(autouse=True)
def nothing_of_the_test_before(postgres_dsn: str) -> None:
    postgres.execute(postgres_dsn, "TRUNCATE incident, notification CASCADE")


@pytest.fixture
def kept(context: Context, clock: MovedClock) -> Upkeep:
    return Upkeep(context.db, 365, 30, clock)


async def open_of(admin: AsyncClient, kind: str) -> list[str]:
    listed = (await admin.get("/v1/incidents", params={"status": "open", "kind": kind})).json()
    return [each["key"] for each in listed["incidents"]]


async def opened(context: Context, kind: str, key: str, org: str | None = None) -> UUID:
    async with context.db.transaction() as connection:
        return await incidents.open(connection, context.clock(), kind, key, org, {})


async def notified(connection: Connection, at: float) -> UUID:
    made = uuid7()
    await sql.notifications.add(connection, ids=[made], types=["a"], orgs=[None], bodies=["{}"], at=moment(at))
    return made


async def test_notifications_that_were_given_up_are_an_incident_until_they_are_delivered(
    context: Context, admin: AsyncClient, kept: Upkeep, clock: MovedClock
) -> None:
    async with context.db.connection() as connection:
        one = await notified(connection, clock())
        await sql.notifications.give_up(connection, id=one, attempts=0, at=moment(clock()), error="away")
    await opened(context, GIVEN_UP, "https://example.com/hooks")
    await kept.round()
    assert await open_of(admin, GIVEN_UP), "it was given up"
    assert (await admin.post(f"/v1/notifications/{one}/resend")).status_code == 200
    clock.move(seconds=5)
    async with context.db.connection() as connection:
        await notified(connection, clock())
    await kept.round()
    assert await open_of(admin, GIVEN_UP), "it is on its way"
    async with context.db.connection() as connection:
        await sql.notifications.delivered(connection, id=one, at=moment(clock()))
    await kept.round()
    assert not await open_of(admin, GIVEN_UP), "what was never given up waits for nobody"


async def test_a_deleted_organization_that_pays_is_an_incident_until_it_pays_no_more_or_is_back(
    context: Context, admin: AsyncClient, kept: Upkeep, entitled: Entitled, clock: MovedClock
) -> None:
    ended, back, going_on = [await entitled() for _ in range(3)]
    async with context.db.connection() as connection:
        for org in (ended, back, going_on):
            values: dict[str, Any] = {"id": f"sub_{org}", "customer": f"cus_{org}", "status": "active", "content": {}}
            await sql.billing.put_subscription(connection, **values, org=org, at=moment(clock()))
            await sql.organizations.set_deleted(connection, id=org, deleted_at=moment(clock()))
            await opened(context, DELETED_SUBSCRIBED, org, org)
    await kept.round()
    assert set(await open_of(admin, DELETED_SUBSCRIBED)) == {ended, back, going_on}
    async with context.db.connection() as connection:
        await sql.billing.end_subscriptions(connection, customer=f"cus_{ended}", at=moment(clock()))
        await sql.organizations.set_deleted(connection, id=back, deleted_at=None)
    await kept.round()
    assert await open_of(admin, DELETED_SUBSCRIBED) == [going_on]


async def test_a_key_that_was_found_in_public_is_an_incident_until_it_can_be_used_no_more(
    context: Context, admin: AsyncClient, kept: Upkeep, entitled: Entitled, clock: MovedClock
) -> None:
    org = await entitled()
    expires_at = moment(clock() + 60).isoformat()
    before, since, expires, used = [
        str((await created(admin, org, **terms))["id"]) for terms in ({}, {}, {"expires_at": expires_at}, {})
    ]
    await admin.delete(f"/v1/organizations/{org}/keys/{before}")
    clock.move(seconds=1)
    for key in (before, since, expires, used):
        await opened(context, KEY_LEAKED, key, org)
    clock.move(seconds=1)
    await admin.delete(f"/v1/organizations/{org}/keys/{since}")
    await kept.round()
    assert set(await open_of(admin, KEY_LEAKED)) == {before, expires, used}
    clock.move(seconds=60)
    await kept.round()
    assert set(await open_of(admin, KEY_LEAKED)) == {before, used}


async def test_closed_incidents_and_ended_notifications_are_dropped_after_their_days_and_nothing_else_is(
    context: Context, admin: AsyncClient, kept: Upkeep, clock: MovedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "DROPPED_AT_ONCE", 2)
    closed = [await opened(context, "drift", f"old-{n}") for n in range(5)]
    await opened(context, "drift", "open")
    for incident in closed:
        await admin.post(f"/v1/incidents/{incident}/notes", json={"text": "looked at"})
        await admin.post(f"/v1/incidents/{incident}/resolve")
    async with context.db.connection() as connection:
        delivered, given_up, pending = [await notified(connection, clock()) for _ in range(3)]
        await sql.notifications.delivered(connection, id=delivered, at=moment(clock()))
        await sql.notifications.give_up(connection, id=given_up, attempts=0, at=moment(clock()), error="away")

    async def left() -> tuple[set[str], set[UUID]]:
        async with context.db.connection() as connection:
            shown = {row["key"] for row in await connection.fetch("SELECT key FROM incident")}
            return shown, {row["id"] for row in await connection.fetch("SELECT id FROM notification")}

    clock.move(days=29.9)
    await kept.round()
    assert await left() == ({"open", *(f"old-{n}" for n in range(5))}, {delivered, given_up, pending})
    clock.move(days=1)
    await kept.round()
    assert (await left())[1] == {pending}
    clock.move(days=333)
    await kept.round()
    assert len((await left())[0]) == 6
    clock.move(days=2)
    await Upkeep(context.db, None, 30, clock).round()
    assert len((await left())[0]) == 6, "null: for ever"
    await kept.round()
    assert await left() == ({"open"}, {pending})
    async with context.db.connection() as connection:
        assert await connection.fetchval("SELECT count(*) FROM incident_note") == 0
