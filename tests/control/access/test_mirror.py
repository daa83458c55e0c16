"""The mirror of Clerk: signed events, in any order, twice or never, end in what Clerk has."""

import asyncio
import random
from collections.abc import Sequence

import pytest

from control.access.people.mirror.inbox import ATTEMPTS_QUIET
from control.access.people.mirror.objects import Kind, Subject
from control.settings.control_plane import Settings
from tests.control.access.clerk import Clerk, Event
from tests.control.access.mirrored import ADMIN, Mirrored, clerk, mirrored, mirroring, new, started, state_of
from tests.control.plane import Entitled, MovedClock

__all__ = ["clerk", "mirrored"]


async def test_an_event_brings_what_clerk_has_and_not_what_the_event_says(mirrored: Mirrored, clerk: Clerk) -> None:
    user, org = new("user"), new("org")
    events = clerk.set_user(user, "old@example.com", "Old") + clerk.set_organization(org, "Old")
    clerk.set_user(user, "new@example.com", "New")
    clerk.set_organization(org, "New")
    clerk.set_member(org, user, "org:admin")
    await mirrored.deliver(*events)
    await mirrored.settle()
    assert await mirrored.state([user], [org]) == {
        user: ("new@example.com", "New"),
        org: ("New", {user: "admin"}),
    }


async def test_one_delivery_that_comes_again_is_filed_once(mirrored: Mirrored, clerk: Clerk) -> None:
    [event] = clerk.set_user(new("user"), None)
    for _ in range(3):
        await mirrored.deliver(event)
    await mirrored.settle()
    asked = len(clerk.asked)
    await mirrored.deliver(event)
    await mirrored.settle()
    assert len(clerk.asked) == asked == 1


async def test_many_events_of_one_organization_are_one_look(mirrored: Mirrored, clerk: Clerk) -> None:
    org, users = new("org"), [new("user") for _ in range(40)]
    events = clerk.set_organization(org, "Many")
    for user in users:
        clerk.set_user(user, None)
        events += clerk.set_member(org, user, "org:member")
    clerk.page_rows_max = 500
    await mirrored.deliver(*events)
    await mirrored.settle()
    assert [path for path in clerk.asked if path == f"/v1/organizations/{org}"] == [f"/v1/organizations/{org}"]
    assert len((await mirrored.state([], [org]))[org][1]) == 40


@pytest.mark.parametrize("seed", range(12))
async def test_events_in_any_order_twice_or_lost_end_in_what_clerk_has(
    mirrored: Mirrored, clerk: Clerk, seed: int
) -> None:
    chance = random.Random(seed)
    users, orgs = [new("user") for _ in range(4)], [new("org") for _ in range(3)]
    waiting: list[Event] = []
    for step in range(40):
        user, org = chance.choice(users), chance.choice(orgs)
        change = chance.randrange(10)
        if change < 3:
            waiting += clerk.set_user(user, f"{chance.randrange(3)}@example.com", f"Name {step}")
        elif change < 5:
            waiting += clerk.set_organization(org, f"Org {step}")
        elif change < 8:
            waiting += clerk.set_member(org, user, chance.choice(["org:member", "org:admin", "org:unheard"]))
        elif change == 8:
            waiting += clerk.remove_member(org, user)
        elif chance.random() < 0.5:
            waiting += clerk.delete_user(user)
        else:
            waiting += clerk.delete_organization(org)
        # Ids do not come back at Clerk: what was deleted stays deleted.
        users = [each for each in users if each in clerk.users or each not in _seen(waiting)] or [new("user")]
        orgs = [each for each in orgs if each in clerk.organizations or each not in _seen(waiting)] or [new("org")]
        if chance.random() < 0.3:
            chance.shuffle(waiting)
            sent, waiting_later = waiting[: len(waiting) // 2], waiting[len(waiting) // 2 :]
            await mirrored.deliver(*(event for event in sent if chance.random() < 0.8))
            await mirrored.deliver(*(event for event in sent if chance.random() < 0.3))
            if chance.random() < 0.5:
                await mirrored.inbox.work()
            waiting = [*waiting_later]
    await mirrored.deliver(*(event for event in waiting if chance.random() < 0.8))
    await mirrored.settle()
    await mirrored.look_at_everything()  # as it happens now and then: the lost ones
    everybody = sorted({each for path in clerk.asked for each in path.split("/")[3:4]} | set(users) | set(orgs))
    named = [each for each in everybody if each.startswith("user_")], [each for each in everybody if each[:4] == "org_"]
    assert await mirrored.state(*named) == state_of(clerk)


def _seen(events: Sequence[Event]) -> set[str]:
    return {event.data["id"] for event in events if event.data.get("deleted")}


async def test_without_losses_no_look_at_everything_is_needed(mirrored: Mirrored, clerk: Clerk) -> None:
    users, orgs = [new("user") for _ in range(3)], [new("org") for _ in range(2)]
    events: list[Event] = []
    for n, user in enumerate(users):
        events += clerk.set_user(user, f"{n}@example.com", "Name")
    for org in orgs:
        events += clerk.set_organization(org, "Name")
        for user in users:
            events += clerk.set_member(org, user, "org:member")
    events += clerk.remove_member(orgs[0], users[0])
    events += clerk.delete_user(users[1])
    events += clerk.delete_organization(orgs[1])
    random.Random(1).shuffle(events)
    for event in events:
        await mirrored.deliver(event, event)
        await mirrored.inbox.work()
    await mirrored.settle()
    assert await mirrored.state(users, orgs) == state_of(clerk)


async def test_lists_of_many_pages_are_read_to_the_end(mirrored: Mirrored, clerk: Clerk) -> None:
    org = new("org")
    clerk.set_organization(org, "Large")
    users = [new("user") for _ in range(1203)]
    for user in users:
        clerk.set_user(user, None)
        clerk.set_member(org, user, "org:member")
    await mirrored.inbox.ask(Subject(Kind.ORGANIZATION, org))
    await mirrored.inbox.work()
    assert clerk.asked.count(f"/v1/organizations/{org}/memberships") == 3
    async with mirrored.context.db.connection() as connection:
        held = await connection.fetchval("SELECT count(*) FROM membership WHERE org = $1", org)
    assert held == 1203


async def test_who_leaves_at_clerk_is_refused_with_old_tokens_and_let_in_with_new_ones(
    mirrored: Mirrored, clerk: Clerk, clock: MovedClock, entitled: Entitled
) -> None:
    org, user = await entitled(), new("user")
    await mirrored.deliver(*clerk.set_user(user, None), *clerk.set_organization(org, "Acme"))
    await mirrored.deliver(*clerk.set_member(org, user, "org:member"))
    await mirrored.settle()
    assert not await mirrored.refused(org, user, clock.now - 1)
    await mirrored.deliver(*clerk.remove_member(org, user))
    await mirrored.settle()
    assert await mirrored.refused(org, user, clock.now + 9), "Clerk's clock may be ahead"
    assert not await mirrored.refused(org, user, clock.now + 11), "Clerk gives out no new ones, unless it lets him in"
    await mirrored.deliver(*clerk.set_member(org, user, "org:member"))
    await mirrored.settle()
    assert not await mirrored.refused(org, user, clock.now - 1)
    await mirrored.deliver(*clerk.delete_organization(org))
    await mirrored.settle()
    assert await mirrored.refused(org, user, clock.now + 1)


async def test_what_is_mirrored_is_changed_at_clerk_only(mirrored: Mirrored, clerk: Clerk) -> None:
    org, user = new("org"), new("user")
    await mirrored.deliver(*clerk.set_user(user, None), *clerk.set_organization(org, "Acme"))
    await mirrored.settle()
    for method, path, body in (
        ("PUT", f"/v1/organizations/{org}", {"name": "Ours"}),
        ("PUT", f"/v1/organizations/{org}/members/{user}", {"role": "owner"}),
        ("DELETE", f"/v1/organizations/{org}/members/{user}", None),
        ("PUT", f"/v1/users/{user}", {"name": "Ours"}),
        ("DELETE", f"/v1/users/{user}", None),
    ):
        answer = await mirrored.client.request(method, path, json=body, headers=ADMIN)
        assert answer.status_code == 409, (method, path, answer.text)
    assert (await mirrored.client.delete(f"/v1/organizations/{org}", headers=ADMIN)).status_code == 204
    await mirrored.deliver(*clerk.set_organization(org, "Acme again"))
    await mirrored.settle()
    shown = (await mirrored.client.get(f"/v1/organizations/{org}", headers=ADMIN)).json()
    assert shown["deleted_at"] is not None, "an admin's deletion stays"


async def test_while_clerk_is_away_an_event_waits_and_an_admin_is_told_in_the_end(
    mirrored: Mirrored, clerk: Clerk, clock: MovedClock
) -> None:
    user = new("user")
    clerk.answers = [503, 500, 429] * ATTEMPTS_QUIET
    await mirrored.deliver(*clerk.set_user(user, "a@example.com"))
    for _ in range(ATTEMPTS_QUIET):
        await mirrored.settle()
        clock.move(seconds=1000)
    assert user not in await mirrored.state([user], [])
    assert await _open_incidents(mirrored, user) == ["mirror_failed"]
    clerk.answers = []
    await mirrored.settle()
    assert user in await mirrored.state([user], [])
    assert await _open_incidents(mirrored, user) == []


async def test_a_refused_key_is_told_at_once_and_deletes_nothing(
    mirrored: Mirrored, settings: Settings, clerk: Clerk, clock: MovedClock
) -> None:
    user = new("user")
    await mirrored.deliver(*clerk.set_user(user, "a@example.com"))
    await mirrored.settle()
    async with started(mirroring(settings, clerk, secret_key="sk_test_wrong"), clock) as it:
        await it.deliver(*clerk.set_user(user, "b@example.com"))
        await it.settle()
        shown = (await it.client.get("/v1/incidents?status=open&limit=500", headers=ADMIN)).json()["incidents"]
        assert "mirror_key_refused" in {each["kind"] for each in shown}
        assert (await it.state([user], []))[user][0] == "a@example.com"
    clock.move(seconds=1000)
    await mirrored.settle()
    assert (await mirrored.state([user], []))[user][0] == "b@example.com"


async def _open_incidents(mirrored: Mirrored, user: str) -> list[str]:
    shown = (await mirrored.client.get("/v1/incidents?status=open&limit=500", headers=ADMIN)).json()["incidents"]
    return [each["kind"] for each in shown if each["key"] == f"user:{user}"]


async def test_of_two_looks_at_once_the_later_one_wins(
    mirrored: Mirrored, settings: Settings, clerk: Clerk, clock: MovedClock
) -> None:
    user = new("user")
    async with started(mirroring(settings, clerk), clock) as other:
        for n in range(10):
            events = clerk.set_user(user, f"{n}@example.com", "A")
            await mirrored.deliver(*events)
            await asyncio.gather(mirrored.settle(), other.settle())
            await asyncio.gather(mirrored.settle(), other.settle())
            assert (await mirrored.state([user], []))[user][0] == f"{n}@example.com"


async def test_a_claim_of_a_process_that_died_is_taken_over(
    mirrored: Mirrored, clerk: Clerk, clock: MovedClock
) -> None:
    user = new("user")
    await mirrored.deliver(*clerk.set_user(user, "a@example.com"))
    async with mirrored.context.db.connection() as connection:
        await connection.execute(
            "UPDATE mirror_look SET claimed_until = to_timestamp($1), attempts = 1 WHERE subject = $2",
            clock.now + 60,
            user,
        )
    await mirrored.settle()
    assert await mirrored.state([user], []) == {}
    clock.move(seconds=61)
    await mirrored.settle()
    assert user in await mirrored.state([user], [])


async def test_an_admin_may_have_everything_looked_at(mirrored: Mirrored, clerk: Clerk) -> None:
    user = new("user")
    clerk.set_user(user, None)
    answer = await mirrored.client.post("/v1/mirror/resync", headers=ADMIN)
    assert (answer.status_code, answer.json()["waiting"] >= 1) == (202, True)
    await mirrored.settle()
    assert user in await mirrored.state([user], [])
    left = (await mirrored.client.get("/v1/mirror", headers=ADMIN)).json()
    assert left["waiting"] < answer.json()["waiting"]
