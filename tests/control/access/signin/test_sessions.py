"""Sessions and links, with a clock that the test moves. tests/browser uses them as a person does."""

import asyncio
from hashlib import sha256
from typing import Any

import pytest
from httpx import ASGITransport, AsyncClient

from control.access.lifetimes import Seen
from control.access.permissions import AdminRole
from control.access.signin.same_origin import token_of
from control.access.signin.sessions import NoRole, SignedIn
from control.app import build, opened
from control.http.context import Context
from control.http.signed_in import SESSION_COOKIE
from control.settings.control_plane import Settings
from control.settings.signin import SignIn
from tests.control.plane import MovedClock, admin_of

SEEN = Seen("203.0.113.1", "Mozilla/5.0 (X11; Linux x86_64) Chrome/156.0")
OWN_PAGE = {"sec-fetch-site": "same-origin"}


def of(person: str = "example:ada", role: AdminRole | None = AdminRole.ADMIN, email: str | None = None) -> SignedIn:
    return SignedIn(person, "example", email, "Ada", frozenset({role} if role else ()))


async def begun(context: Context, **other: Any) -> str:
    return await context.signin.sessions.begin(of(**other), SEEN, None, "test")


def cookie(secret: str) -> dict[str, str]:
    return {"cookie": f"{SESSION_COOKIE}={secret}"}


async def status(client: AsyncClient, secret: str, path: str = "/v1/organizations") -> int:
    return (await client.get(path, headers=cookie(secret) | OWN_PAGE)).status_code


async def test_a_session_that_is_not_used_ends(context: Context, nobody: AsyncClient, clock: MovedClock) -> None:
    secret = await begun(context)
    for _ in range(3):
        clock.move(minutes=59)
        assert await status(nobody, secret) == 200
    clock.move(minutes=61)
    assert await status(nobody, secret) == 401


async def test_a_session_ends_in_any_case(context: Context, nobody: AsyncClient, clock: MovedClock) -> None:
    secret = await begun(context)
    for _ in range(23):
        clock.move(minutes=30)
        assert await status(nobody, secret) == 200
    clock.move(minutes=31)
    assert await status(nobody, secret) == 401


async def test_of_secrets_only_hashes_are_stored(context: Context, admin: AsyncClient) -> None:
    secret = await begun(context)
    code = (await admin.post("/v1/console-links", json={})).json()["url"].partition("code=")[2]
    async with context.db.connection() as connection:
        stored = ""
        for table in ("session", "console_link", "audit_journal"):
            stored += str(await connection.fetch(f"SELECT t::text FROM {table} t"))
    assert secret not in stored
    assert code not in stored
    assert sha256(secret.encode()).hexdigest() in stored
    assert sha256(code.encode()).hexdigest() in stored


async def test_who_has_no_role_gets_no_session(context: Context) -> None:
    with pytest.raises(NoRole):
        await begun(context, role=None)


@pytest.mark.parametrize("role", list(AdminRole))
async def test_a_session_may_what_its_role_may(context: Context, nobody: AsyncClient, role: AdminRole) -> None:
    secret = await begun(context, role=role)
    headers = cookie(secret) | OWN_PAGE | {"x-csrf-token": token_of(secret)}
    may_give = (await nobody.post("/v1/console-links", json={"role": "viewer"}, headers=headers)).status_code == 201
    assert may_give is (role is AdminRole.ADMIN)
    may_end = (await nobody.delete("/v1/sessions?person=nobody", headers=headers)).status_code == 200
    assert may_end is (role in (AdminRole.ADMIN, AdminRole.SUPPORT))
    assert await status(nobody, secret, "/v1/sessions") == 200


async def test_a_call_with_a_session_must_come_from_a_page_of_ours(context: Context, nobody: AsyncClient) -> None:
    secret = await begun(context)
    token = {"x-csrf-token": token_of(secret)}
    for headers in (
        {},
        token,
        OWN_PAGE,
        {"sec-fetch-site": "same-site"} | token,
        {"sec-fetch-site": "none"} | token,
        {"origin": "http://127.0.0.1:9999"} | token,
        OWN_PAGE | {"x-csrf-token": token_of("another")},
    ):
        answer = await nobody.put("/v1/organizations/from-a-page", json={"name": "A"}, headers=cookie(secret) | headers)
        assert (answer.status_code, answer.json()["reason"]) == (403, "foreign_page")
    for headers in (OWN_PAGE | token, {"origin": context.signin.settings.public_url} | token):
        answer = await nobody.put("/v1/organizations/from-a-page", json={"name": "A"}, headers=cookie(secret) | headers)
        assert answer.status_code in (200, 201)


async def test_a_bearer_token_counts_before_a_cookie(context: Context, admin: AsyncClient, nobody: AsyncClient) -> None:
    secret = await begun(context, role=AdminRole.VIEWER)
    assert (await admin.put("/v1/organizations/both", json={"name": "A"}, headers=cookie(secret))).status_code == 201
    wrong = cookie(secret) | OWN_PAGE | {"authorization": "Bearer wrong"}
    assert (await nobody.get("/v1/organizations", headers=wrong)).status_code == 401


async def test_of_two_uses_of_a_link_at_once_one_signs_in(context: Context, admin: AsyncClient) -> None:
    code = (await admin.post("/v1/console-links", json={})).json()["url"].partition("code=")[2]
    used = await asyncio.gather(*(context.signin.links.use(code) for _ in range(10)))
    assert len([each for each in used if each is not None]) == 1


async def test_a_link_is_good_for_a_quarter_of_an_hour(context: Context, admin: AsyncClient, clock: MovedClock) -> None:
    links = [(await admin.post("/v1/console-links", json={})).json()["url"].partition("code=")[2] for _ in range(2)]
    clock.move(minutes=14)
    assert await context.signin.links.use(links[0]) is not None
    clock.move(minutes=2)
    assert await context.signin.links.use(links[1]) is None


async def test_sign_in_and_its_end_are_in_the_journal(context: Context, admin: AsyncClient) -> None:
    secret = await begun(context, email="ada@example.com")
    session = await context.signin.sessions.find(secret)
    assert session is not None
    await admin.delete(f"/v1/sessions/{session.row.id}")
    found = (await admin.get("/v1/journal", params={"q": str(session.row.id)})).json()["entries"]
    assert [(each["actor"], each["action"]) for each in found] == [
        ("admin", "session.ended"),
        ("person:ada@example.com", "session.began"),
    ]


async def test_a_page_needs_no_host_header_to_know_where_it_is(settings: Settings, nobody: AsyncClient) -> None:
    """A link with the address of whoever asked for it would lead there."""
    headers = {"host": "evil.example", "authorization": f"Bearer {settings.admin_token.get_secret_value()}"}
    made = await nobody.post("/v1/console-links", json={}, headers=headers)
    assert made.json()["url"].startswith("http://127.0.0.1:8081/console/link?code=")


@pytest.mark.parametrize(
    "block",
    [
        {"public_url": "http://control.example.com"},
        {"public_url": "https://control.example.com/quotagate"},
        {"public_url": "control.example.com"},
        {"providers": [{"name": "a", "issuer": "http://issuer.example.com", "client_id": "c"}]},
        {"providers": [{"name": "A/B", "issuer": "https://issuer.example.com", "client_id": "c"}]},
        {"providers": [{"name": "a", "issuer": "https://i.example.com", "client_id": "c", "algorithms": ["HS256"]}]},
        {"providers": [{"name": "a", "issuer": "https://i.example.com", "client_id": "c", "algorithms": ["none"]}]},
        {"providers": [{"name": "a", "issuer": "https://i.example.com", "client_id": "c", "scopes": ["email"]}]},
        {"providers": [{"name": "a", "issuer": "https://i.example.com", "client_id": "c", "roles": {"x": "admin"}}]},
        {"providers": [{"name": "a", "issuer": "https://i.example.com", "client_id": "c", "roles_claim": "groups"}]},
        {"providers": [{"name": "a", "issuer": "https://i.example.com", "client_id": "c"}] * 2},
    ],
)
def test_settings_that_would_not_be_safe_are_refused(block: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"must|two have|goes with|should|match"):
        SignIn.model_validate(block)


async def test_whoever_guesses_links_has_to_wait(context: Context, nobody: AsyncClient, admin: AsyncClient) -> None:
    code = (await admin.post("/v1/console-links", json={})).json()["url"].partition("code=")[2]
    statuses = []
    for number in range(11):
        answer = await nobody.post("/console/link", data={"code": f"guess {number}"}, headers=OWN_PAGE)
        statuses.append(answer.status_code)
    assert statuses == [403] * 10 + [429]
    assert int(answer.headers["retry-after"]) > 0
    right = await nobody.post("/console/link", data={"code": code}, headers=OWN_PAGE)
    assert right.status_code == 429, "or it would tell that the code is right"


async def test_whoever_guesses_states_has_to_wait(settings: Settings) -> None:
    provider = {"name": "away", "issuer": "http://127.0.0.1:9", "client_id": "c"}
    changed = settings.model_copy(update={"signin": SignIn.model_validate({"providers": [provider]})})
    async with (
        opened(changed) as context,
        AsyncClient(transport=ASGITransport(build(context)), base_url="http://control") as nobody,
    ):
        answers = [await nobody.get("/console/signed-in/away?state=x&code=y") for _ in range(11)]
    assert [answer.status_code for answer in answers] == [400] * 10 + [429]
    assert int(answers[-1].headers["retry-after"]) > 0


async def test_a_session_that_one_process_ends_is_out_in_the_others_at_once(
    settings: Settings, context: Context, admin: AsyncClient
) -> None:
    secret = await begun(context)
    async with (
        opened(settings, context.clock) as other,
        AsyncClient(transport=ASGITransport(build(other)), base_url="http://control") as nobody,
    ):
        assert await status(nobody, secret) == 200
        session = await context.signin.sessions.find(secret)
        assert session is not None
        assert (await admin.delete(f"/v1/sessions/{session.row.id}")).status_code == 204
        assert await status(nobody, secret) == 401


def with_provider(settings: Settings, **provider: Any) -> Settings:
    known = {"name": "example", "issuer": "https://issuer.example.com", "client_id": "c", **provider}
    return settings.model_copy(update={"signin": SignIn.model_validate({"providers": [known]})})


async def test_a_role_that_was_given_here_counts_and_is_away_once_it_is_taken(settings: Settings) -> None:
    async with opened(with_provider(settings)) as context, admin_of(context) as admin:
        assignment = "/v1/admin-roles/email/grace@example.com"
        assert (await admin.put(assignment, json={"role": "support"})).status_code == 201
        secret = await begun(context, person="example:grace", role=None, email="grace@example.com")
        async with AsyncClient(transport=ASGITransport(build(context)), base_url="http://control") as nobody:
            assert await status(nobody, secret) == 200
            await admin.delete(assignment)
            assert await status(nobody, secret) == 403
            page = await nobody.get("/console", headers=cookie(secret))
        assert (page.status_code, "no role here any more" in page.text) == (403, True)


async def test_a_role_by_identity_is_of_one_provider(settings: Settings) -> None:
    async with opened(with_provider(settings)) as context, admin_of(context) as admin:
        assignment = await admin.put("/v1/admin-roles/subject/example:linus", json={"role": "viewer"})
        assert assignment.status_code == 201
        assert await begun(context, person="example:linus", role=None)
        for person in ("other:linus", "example:lin"):
            with pytest.raises(NoRole):
                await begun(context, person=person, role=None)


async def test_a_role_by_address_counts_only_where_the_provider_may_be_believed(settings: Settings) -> None:
    async with opened(with_provider(settings, assignments=False)) as context, admin_of(context) as admin:
        await admin.put("/v1/admin-roles/email/heidi@example.com", json={"role": "admin"})
        for email in ("heidi@example.com", None):
            with pytest.raises(NoRole):
                await begun(context, role=None, email=email)
