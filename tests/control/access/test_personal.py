"""What is stored of a person is exported whole. After an erasure nothing names the person, and the journal's chain is
what it was."""

import json
from typing import Any
from uuid import uuid4

import pytest
from httpx import AsyncClient

from control import incidents, journal
from control.access.lifetimes import Seen
from control.access.permissions import AdminRole, OrganizationRole
from control.access.portal.sessions import Customer
from control.access.signin.same_origin import token_of
from control.access.signin.sessions import SignedIn
from control.aliases import ALIAS, Told, translated
from control.http.context import Context
from control.http.signed_in import SESSION_COOKIE
from control.journal import Author
from control.moments import moment
from devstack import postgres
from quota.access import KeyState, digest16
from quota.ledger import LedgerUnavailable
from tests.control.access.keys import created
from tests.control.access.test_people import new_user, put_member
from tests.control.chain import change, verified
from tests.control.plane import Entitled

SEEN = Seen("203.0.113.77", "Mozilla/5.0 (Person; Own) Chrome/1.0")


def new_email(name: str) -> str:
    return f"{name}.{uuid4().hex[:8]}@example.com"


async def signed_in(context: Context, email: str, subject: str) -> dict[str, str]:
    person = SignedIn(subject, "okta", email, "Ada Personal", frozenset({AdminRole.ADMIN}))
    secret = await context.signin.sessions.begin(person, SEEN, None, "test")
    return {
        "cookie": f"{SESSION_COOKIE}={secret}",
        "sec-fetch-site": "same-origin",
        "x-csrf-token": token_of(secret),
    }


async def everything(context: Context) -> str:
    """All rows of all tables."""
    async with context.db.connection() as connection:
        tables = await connection.fetch(
            "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = current_schema()::regnamespace"
            " AND has_table_privilege(oid, 'SELECT') ORDER BY relname"
        )
        read = [
            await connection.fetchval(f"SELECT string_agg(t::text, chr(10)) FROM {json.dumps(table['relname'])} t")
            for table in tables
        ]
    return "\n".join(text for text in read if text)


async def did_a_lot(context: Context, admin: AsyncClient, nobody: AsyncClient, org: str, email: str, okta: str) -> None:
    """Somebody of the vendor, who leaves a name in many places."""
    own = await signed_in(context, email, okta)
    await incidents_opened(context, org)
    incident = (await admin.get("/v1/incidents", params={"org": org})).json()["incidents"][0]["id"]
    end = moment(context.clock() + 86_400).isoformat()
    grant = {"meter": "api_calls", "units": 5, "reason": f"asked by {email}", "expires_at": end}
    for path, content in (
        ("/v1/console-links", {"role": "viewer"}),
        ("/v1/service-tokens", {"name": f"of-{uuid4().hex[:8]}", "role": "viewer"}),
        ("/v1/portal-sessions", {"org": org}),
        (f"/v1/organizations/{org}/grants", grant),
        (f"/v1/incidents/{incident}/acknowledge", None),
        (f"/v1/incidents/{incident}/notes", {"text": f"{email} sees to it"}),
    ):
        answer = await nobody.post(path, json=content, headers=own)
        assert answer.status_code in (200, 201), (path, answer.text)
    async with context.db.transaction() as connection:
        told = {"note": f"{email.upper()} called", "opened_by": okta, "address": SEEN.address}
        author = Author(f"person:link:person:{email}", "test")
        await journal.record(connection, author, context.clock(), [change("tests.done", org, None, told)])
    role = await admin.put(f"/v1/admin-roles/email/{email}", json={"role": "viewer"})
    assert role.status_code == 201, role.text


async def incidents_opened(context: Context, org: str) -> None:
    async with context.db.transaction() as connection:
        await incidents.open(connection, context.clock(), "drift", org, org, {})


async def test_after_an_erasure_no_table_names_the_person_and_the_chain_is_valid(
    context: Context, admin: AsyncClient, nobody: AsyncClient, entitled: Entitled, postgres_dsn: str
) -> None:
    org, user = await entitled(), new_user()
    email, okta, of_user = new_email("ada"), f"okta:{uuid4().hex}", new_email("ulla")
    await did_a_lot(context, admin, nobody, org, email, okta)
    await admin.put(f"/v1/users/{user}", json={"email": of_user, "name": "Ulla Personal"})
    await put_member(admin, org, user, "member")
    await created(admin, org, user=user)
    customer = Customer(org, user, OrganizationRole.MEMBER, "service:shop", moment(context.clock()))
    await context.portal.begin(customer, SEEN, None, "test")
    while await context.sealer.seal():
        pass
    before = await verified(context)
    assert before.broken is None
    stored = await everything(context)
    for told in (email, okta, of_user, "Ulla Personal", "Ada Personal", SEEN.address):
        assert told in stored
    for named in ({"email": of_user.upper()}, {"subject": okta}):
        answer = await admin.post("/v1/people/erase", json=named)
        assert answer.status_code == 200, answer.text
    assert answer.json()["users"] == []
    while await context.sealer.seal():
        pass
    left = (await everything(context)).lower()
    for told in (email, okta, of_user, "ulla personal", "ada personal", SEEN.address, "mozilla/5.0 (person"):
        assert told not in left
    after = await verified(context, 1, (before.head,))
    assert (after.broken, after.waiting) == (None, 0)
    assert postgres.execute(postgres_dsn, f"SELECT count(*) FROM membership WHERE user_id = '{user}'").strip() == "0"
    assert (await admin.post("/v1/people/export", json={"email": of_user})).status_code == 404


async def test_an_export_has_what_is_stored_and_no_secret(
    context: Context, admin: AsyncClient, nobody: AsyncClient, entitled: Entitled
) -> None:
    org, email, okta = await entitled(), new_email("bob"), f"okta:{uuid4().hex}"
    await did_a_lot(context, admin, nobody, org, email, okta)
    answer = await admin.post("/v1/people/export", json={"email": email})
    assert answer.status_code == 200, answer.text
    told = answer.json()
    assert (told["emails"], told["subjects"], told["is_cut"]) == ([email], [okta], False)
    assert told["rows"]["session"][0]["address"] == SEEN.address
    assert told["rows"]["console_link.created_by"][0]["created_by"] == f"person:{email}"
    assert told["rows"]["service_token.created_by"][0]["role"] == "viewer"
    assert "hash" not in told["rows"]["service_token.created_by"][0]
    assert "digest" not in answer.text
    actions = {entry["action"] for entry in told["journal"]}
    assert {"session.began", "console_link.created", "service_token.created", "tests.done"} <= actions
    assert not ALIAS.search(answer.text)
    asked = (await admin.get("/v1/journal", params={"action": "person.exported"})).json()["entries"][0]
    assert asked["after"]["emails"] == [email]


async def test_a_user_is_exported_with_keys_and_memberships_and_no_other_user_is(
    admin: AsyncClient, entitled: Entitled
) -> None:
    org, user, other = await entitled(), new_user(), new_user()
    for each in (user, other):
        await admin.put(f"/v1/users/{each}", json={"email": new_email("x"), "name": f"Name of {each}"})
        await put_member(admin, org, each, "member")
    await created(admin, org, user=user)
    answer = await admin.post("/v1/people/export", json={"user": user})
    told = answer.json()
    assert [row["name"] for row in told["rows"]["app_user"]] == [f"Name of {user}"]
    assert (told["rows"]["membership"][0]["org"], told["rows"]["api_key"][0]["user_id"]) == (org, user)
    assert {entry["action"] for entry in told["journal"]} >= {"user.created", "member.added", "key.created"}
    assert other not in answer.text


async def test_what_an_erasure_would_do_is_said_before_and_is_what_it_does(
    context: Context, admin: AsyncClient, nobody: AsyncClient, entitled: Entitled
) -> None:
    org, email, okta = await entitled(), new_email("cleo"), f"okta:{uuid4().hex}"
    await did_a_lot(context, admin, nobody, org, email, okta)
    before = (await admin.get("/v1/people")).json()["requests"]
    found = (await admin.post("/v1/people/find", json={"subject": okta})).json()
    assert (found["emails"], found["subjects"], found["is_cut"]) == ([email], [okta], False)
    assert found["places"].keys() >= {"session", "console_link.created_by", "grant.reason", "audit_journal"}
    assert (await admin.get("/v1/people")).json()["requests"] == before, "to look is no request"
    erased = (await admin.post("/v1/people/erase", json={"email": email, "reason": f"asked by {email}"})).json()
    for place, each in found["places"].items():
        match each["erasure"]:
            case "deleted":
                assert erased["rows"][place.partition(".")[0]] >= each["rows"], place
                assert "." not in place or place not in erased["rows"]
            case "an alias in place of the person":
                assert erased["rows"][place] == each["rows"], place
            case other:
                assert (place, other) == ("audit_journal", "stays, under aliases that stand for nobody")
    assert (await admin.post("/v1/people/find", json={"email": email})).status_code == 404
    [request] = (await admin.get("/v1/people", params={"limit": 1})).json()["requests"]
    assert (request["kind"], request["actor"]) == ("erasure", "admin")
    assert ALIAS.fullmatch(request["reason"].removeprefix("asked by "))
    assert all(ALIAS.fullmatch(name) for name in request["names"])
    older = (await admin.get("/v1/people", params={"before": request["id"]})).json()["requests"]
    assert older == before


async def test_of_a_user_who_was_erased_the_id_and_keys_that_are_refused_are_left(
    admin: AsyncClient, entitled: Entitled
) -> None:
    org, user = await entitled(), new_user()
    await admin.put(f"/v1/users/{user}", json={"email": new_email("dora"), "name": "Dora"})
    await put_member(admin, org, user, "member")
    await created(admin, org, user=user)
    found = (await admin.post("/v1/people/find", json={"user": user})).json()
    assert found["organizations"] == [org]
    assert found["places"].keys() >= {"app_user", "membership", "api_key"}
    assert (await admin.post("/v1/people/erase", json={"user": user})).status_code == 200
    left = (await admin.post("/v1/people/find", json={"user": user})).json()
    assert (left["emails"], left["places"].keys() & found["places"].keys()) == (
        [],
        {"app_user", "api_key", "audit_journal"},
    )


async def test_an_erasure_that_redis_missed_says_so_and_is_in_force_when_it_is_repeated(
    context: Context, admin: AsyncClient, entitled: Entitled, monkeypatch: pytest.MonkeyPatch
) -> None:
    orgs, user = sorted([await entitled(), await entitled()]), new_user()
    await admin.put(f"/v1/users/{user}", json={"email": new_email("emil")})
    keys = {}
    for org in orgs:
        await put_member(admin, org, user, "member")
        keys[org] = await created(admin, org, user=user)

    async def away(*_: object, **__: object) -> bool:
        raise LedgerUnavailable("publish: refused")

    monkeypatch.setattr(context.ledger, "publish", away)
    missed = await admin.post("/v1/people/erase", json={"user": user})
    assert (missed.status_code, missed.json()["type"]) == (503, "urn:quotagate:problem:not-in-force")
    assert (await admin.get(f"/v1/users/{user}")).status_code == 404
    assert (await admin.post("/v1/people/erase", json={"user": user})).status_code == 503
    monkeypatch.undo()
    repeated = await admin.post("/v1/people/erase", json={"user": user})
    assert (repeated.status_code, repeated.json()["organizations"]) == (200, orgs)
    for org, key in keys.items():
        looked = await context.ledger.look(org, digest16(key["key"]))
        assert looked.record is None or looked.record.state is not KeyState.ACTIVE


async def test_who_shares_an_address_is_named_by_id(admin: AsyncClient) -> None:
    users, email = sorted((new_user(), new_user())), new_email("info")
    for user in users:
        await admin.put(f"/v1/users/{user}", json={"email": email})
    for verb in ("export", "erase"):
        answer = await admin.post(f"/v1/people/{verb}", json={"email": email})
        assert answer.status_code == 409
        assert ", ".join(users) in answer.json()["detail"]
    assert (await admin.post("/v1/people/erase", json={"user": users[0]})).json()["users"] == [users[0]]


async def test_the_last_owner_is_not_erased_and_nothing_of_the_owner_is(admin: AsyncClient, entitled: Entitled) -> None:
    org, user, email = await entitled(), new_user(), new_email("owner")
    await admin.put(f"/v1/users/{user}", json={"email": email})
    await put_member(admin, org, user, "owner")
    assert (await admin.post("/v1/people/erase", json={"user": user})).status_code == 409
    assert (await admin.get(f"/v1/users/{user}")).json()["email"] == email


@pytest.mark.parametrize(
    "body", [{}, {"email": None}, {"email": "none"}, {"subject": "nocolon"}, {"user": "a b"}, {"phone": "1"}]
)
async def test_who_names_nobody_is_told_so(admin: AsyncClient, body: dict[str, Any]) -> None:
    for verb in ("export", "erase", "find"):
        assert (await admin.post(f"/v1/people/{verb}", json=body)).status_code == 422


async def test_of_whom_nothing_is_stored_nothing_is_exported_or_erased(admin: AsyncClient) -> None:
    for verb in ("export", "erase", "find"):
        assert (await admin.post(f"/v1/people/{verb}", json={"email": new_email("nobody")})).status_code == 404


@pytest.mark.parametrize(
    ("told", "wanted"),
    [
        (Told("person:a@x.com", None, {"n": "b@y.com, c"}), [("a@x.com", "a@x.com"), ("b@y.com", "b@y.com")]),
        (Told("person:okta:00u1", {"address": "::1"}, None), [("okta:00u1", "okta:00u1"), ("::1", "okta:00u1")]),
        (Told("person:link:person:A@x.com", None, None), [("A@x.com", "a@x.com")]),
        (Told("person:link:service:ci", None, None), []),
        (Told("org:acme/u:u1", None, {"user": "u1", "address": "::1"}), [("::1", "u1")]),
        (Told("admin", None, {"kind": "subject", "subject": "okta:1"}), [("okta:1", "okta:1")]),
        (
            Told("admin", None, {"person": "okta:1", "list": ["a@x.com"]}),
            [("okta:1", "okta:1"), ("a@x.com", "a@x.com")],
        ),
        (Told("service:ci", {"meter": "a:b", "subject": "a:b"}, {"address": "::1"}), []),
    ],
)
def test_what_of_an_entry_names_a_person(told: Told, wanted: list[tuple[str, str]]) -> None:
    met: list[tuple[str, str]] = []
    translated(told, lambda value, owner: met.append((value, owner)) or "")  # type: ignore[func-returns-value]  # append
    assert sorted(met) == sorted(wanted)
