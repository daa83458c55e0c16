"""One action for all organizations that a filter matches."""

from typing import Any
from uuid import uuid4

import pytest
from httpx import AsyncClient

from control.access.lifetimes import Seen
from control.access.permissions import AdminRole, Permission
from control.access.signin.sessions import SignedIn
from control.bulk.runner import CLAIM_SECONDS, BulkRunner
from control.http.context import Context
from control.journal import Author
from tests.control.plane import Entitled, MovedClock

GRANT = {"meter": "api_calls", "units": 5, "expires_at": "2099-01-01T00:00:00Z"}


@pytest.fixture
async def chosen(context: Context, admin: AsyncClient, entitled: Entitled) -> tuple[str, list[str]]:
    """A word that finds three organizations, and these."""
    word = f"m{uuid4().hex[:10]}"
    orgs = sorted([await entitled("tiny") for _ in range(3)])
    for org in orgs:
        await admin.put(f"/v1/organizations/{org}", json={"name": word})
    while await context.directory.round():
        pass
    return word, orgs


def body(word: str, action: str = "grant", fields: dict[str, Any] | None = None, **content: Any) -> dict[str, Any]:
    return {"filter": {"q": word}, "action": action, "fields": GRANT if fields is None else fields, **content}


async def run_all(context: Context) -> None:
    runner = BulkRunner(context.actions, context.signin.authors)
    while await runner.round():
        pass


async def granted(admin: AsyncClient, org: str) -> list[int]:
    return [grant["units"] for grant in (await admin.get(f"/v1/organizations/{org}/grants")).json()["grants"]]


async def test_a_preview_counts_shows_a_sample_and_does_nothing(
    admin: AsyncClient, chosen: tuple[str, list[str]]
) -> None:
    word, orgs = chosen
    shown = (await admin.post("/v1/bulk-actions/preview", json=body(word))).json()
    assert shown["found"] == 3
    assert [each["organization"] for each in shown["sample"]] == orgs
    assert shown["sample"][0]["effect"]["action"] == "grant"
    assert [await granted(admin, org) for org in orgs] == [[], [], []]


async def test_it_is_done_to_each_once_and_each_has_its_entry_in_the_journal(
    context: Context, admin: AsyncClient, entitled: Entitled, chosen: tuple[str, list[str]]
) -> None:
    word, orgs = chosen
    other = await entitled("tiny")
    begun = await admin.post("/v1/bulk-actions", json=body(word, reason="an outage", found=3))
    assert (begun.status_code, begun.json()["waiting"]) == (202, 3)
    await run_all(context)
    after = (await admin.get(f"/v1/bulk-actions/{begun.json()['id']}")).json()
    assert (after["done"], after["waiting"], after["refused"], after["total"]) == (3, 0, 0, 3)
    assert [await granted(admin, org) for org in [*orgs, other]] == [[5], [5], [5], []]
    entries = (await admin.get(f"/v1/organizations/{orgs[0]}/journal")).json()["entries"]
    assert "action.done" in [entry["action"] for entry in entries]
    [newest] = [
        each for each in (await admin.get("/v1/bulk-actions")).json()["bulk_actions"] if each["id"] == after["id"]
    ]
    assert newest == after


async def test_where_the_filter_matches_another_number_by_now_nothing_is_done(
    context: Context, admin: AsyncClient, chosen: tuple[str, list[str]]
) -> None:
    word, orgs = chosen
    answer = await admin.post("/v1/bulk-actions", json=body(word, reason="an outage", found=2))
    assert answer.status_code == 409
    await run_all(context)
    assert await granted(admin, orgs[0]) == []


async def test_what_was_begun_before_a_crash_is_done_once(
    context: Context, admin: AsyncClient, clock: MovedClock, chosen: tuple[str, list[str]]
) -> None:
    word, orgs = chosen
    await admin.post("/v1/bulk-actions", json=body(word, reason="an outage", found=3))
    await run_all(context)
    async with context.db.connection() as connection:
        # As it was when the process died between the action and the note that it is done.
        await connection.execute(
            "UPDATE bulk_action_item SET state = 'under_way', claimed_until = now() WHERE org = ANY($1)", orgs
        )
    clock.move(seconds=CLAIM_SECONDS + 1)
    await run_all(context)
    assert [await granted(admin, org) for org in orgs] == [[5], [5], [5]]


async def test_what_one_organization_refuses_is_told_and_the_others_go_on(
    context: Context, admin: AsyncClient, chosen: tuple[str, list[str]]
) -> None:
    word, orgs = chosen
    await admin.post(f"/v1/entitlements/{orgs[1]}/suspend")
    begun = (await admin.post("/v1/bulk-actions", json=body(word, "suspend", {}, reason="fraud", found=3))).json()
    await run_all(context)
    after = (await admin.get(f"/v1/bulk-actions/{begun['id']}")).json()
    assert (after["done"], after["refused"]) == (2, 1)
    assert [each["organization"] for each in after["refusals"]] == [orgs[1]]
    assert after["refusals"][0]["note"]


async def test_what_is_stopped_is_not_begun_with_the_rest(
    context: Context, admin: AsyncClient, chosen: tuple[str, list[str]]
) -> None:
    word, orgs = chosen
    begun = (await admin.post("/v1/bulk-actions", json=body(word, reason="an outage", found=3))).json()
    assert await BulkRunner(context.actions, context.signin.authors).round()
    stopped = (await admin.post(f"/v1/bulk-actions/{begun['id']}/stop")).json()
    await run_all(context)
    assert (stopped["done"], stopped["stopped"], stopped["waiting"]) == (1, 2, 0)
    assert sorted([await granted(admin, org) for org in orgs]) == [[], [], [5]]


@pytest.mark.parametrize(
    "wrong",
    [
        {"action": "key_roll"},
        {"action": "nothing"},
        {"fields": {"meter": "api_calls", "units": 0}},
        {"filter": {"plan": "growht"}},
        {"filter": {"size": 5}},
        {"found": 0},
        {"reason": ""},
    ],
)
async def test_what_makes_no_sense_is_refused(
    admin: AsyncClient, chosen: tuple[str, list[str]], wrong: dict[str, Any]
) -> None:
    sent = {**body(chosen[0], reason="an outage", found=3), **wrong}
    assert (await admin.post("/v1/bulk-actions", json=sent)).status_code == 422


async def test_it_needs_the_permission_of_the_action(
    admin: AsyncClient, nobody: AsyncClient, chosen: tuple[str, list[str]]
) -> None:
    made = (await admin.post("/v1/service-tokens", json={"name": uuid4().hex, "role": "viewer"})).json()
    headers = {"authorization": f"Bearer {made['token']}"}
    looked = await nobody.post("/v1/bulk-actions/preview", json=body(chosen[0]), headers=headers)
    begun = await nobody.post("/v1/bulk-actions", json=body(chosen[0], reason="x", found=3), headers=headers)
    assert (looked.status_code, begun.status_code) == (403, 403)


async def test_whoever_lost_the_right_meanwhile_changes_no_further_organization(
    context: Context, admin: AsyncClient, chosen: tuple[str, list[str]]
) -> None:
    word, _ = chosen
    made = (await admin.post("/v1/service-tokens", json={"name": f"bulk-{word}", "role": "admin"})).json()
    headers = {"authorization": f"Bearer {made['token']}"}
    begun = await admin.post("/v1/bulk-actions", json=body(word, reason="an outage", found=3), headers=headers)
    assert begun.status_code == 202
    runner = BulkRunner(context.actions, context.signin.authors)
    assert await runner.round()
    assert (await admin.delete(f"/v1/service-tokens/{made['id']}")).status_code == 204
    await run_all(context)
    after = (await admin.get(f"/v1/bulk-actions/{begun.json()['id']}")).json()
    assert (after["done"], after["refused"]) == (1, 2)
    assert {each["note"] for each in after["refusals"]} == {f"service:bulk-{word} may not do this any more."}


async def test_a_person_may_do_later_what_the_last_sign_in_allows_until_it_is_ended(context: Context) -> None:
    sessions, authors, name = context.signin.sessions, context.signin.authors, uuid4().hex

    async def signs_in(person: str, email: str | None, role: AdminRole) -> str:
        signed_in = SignedIn(person, None, email, None, frozenset({role}))
        return await sessions.begin(signed_in, Seen("127.0.0.1", "tests"), None, "tests")

    async def may(actor: str) -> bool:
        return Permission.GRANTS_WRITE in await authors.permissions_of(actor)

    ada, by_link = f"person:{name}@example.com", f"person:link:person:{name}@example.com"
    assert not await may(ada)
    secret = await signs_in(f"sso:{name}", f"{name}@example.com", AdminRole.ADMIN)
    assert await may(ada)
    await signs_in(by_link.removeprefix("person:"), None, AdminRole.ADMIN)
    assert await may(by_link)
    found = await sessions.find(secret)
    assert found is not None
    await sessions.end(found.row.id, Author("person:bob", "tests"))
    assert not await may(ada)
    assert not await may(by_link), "whoever made the link has no role any more"
    assert not await may("reconcile")
