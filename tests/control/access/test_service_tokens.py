"""Machines' tokens: shown once, stored as hashes, revoked at once; the settings' token is one of them."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import structlog
from httpx import ASGITransport, AsyncClient
from typer.testing import CliRunner, Result

from control.access.people.service_tokens import PREFIX, ServiceTokens, generate, is_service_token
from control.access.permissions import ADMIN_PERMISSIONS, AdminRole
from control.app import build, opened
from control.db import StoreUnavailable
from control.http.context import Context
from control.moments import moment
from control.settings.control_plane import Settings
from devstack import postgres
from quotagate.main import app
from tests.control import running
from tests.control.plane import ADMIN_TOKEN, MovedClock

PATH = "/v1/service-tokens"


@pytest.fixture(autouse=True)
def _bootstrap_is_back(postgres_dsn: str) -> Iterator[None]:
    """The next start files it again."""
    yield
    postgres.execute(postgres_dsn, "DELETE FROM service_token")


def named() -> str:
    return f"machine-{uuid4().hex[:8]}"


async def made(admin: AsyncClient, **content: Any) -> dict[str, Any]:
    answer = await admin.post(PATH, json={"name": named(), **content})
    assert answer.status_code == 201, answer.text
    assert answer.headers["cache-control"] == "no-store"
    token: dict[str, Any] = answer.json()
    return token


def bearing(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


@asynccontextmanager
async def started(settings: Settings, clock: MovedClock) -> AsyncIterator[AsyncClient]:
    """A control plane that starts on the same stores."""
    async with opened(settings, clock) as context:
        transport = ASGITransport(build(context), raise_app_exceptions=False)
        async with AsyncClient(transport=transport, base_url="http://control") as client:
            yield client


def test_a_token_carries_its_checksum_so_a_mistyped_one_is_not_looked_up() -> None:
    token = generate()
    assert token.startswith(f"{PREFIX}_")
    assert is_service_token(token.encode())
    for place in range(len(token)):
        other = "a" if token[place] != "a" else "b"
        assert not is_service_token((token[:place] + other + token[place + 1 :]).encode())
    assert not is_service_token(token.encode()[:-1])
    assert not is_service_token(token.encode() + b"\n")


async def test_a_token_has_its_role_or_its_permissions_and_no_more(admin: AsyncClient, nobody: AsyncClient) -> None:
    viewer = bearing((await made(admin, role="viewer"))["token"])
    plans = bearing((await made(admin, permissions=["plans:read"]))["token"])
    org = f"org-{uuid4().hex[:8]}"
    for headers, path, status in ((viewer, "/v1/organizations", 200), (plans, "/v1/organizations", 403)):
        assert (await nobody.get(path, headers=headers)).status_code == status
    assert (await nobody.get("/v1/plans", headers=plans)).status_code == 200
    for headers in (viewer, plans):
        answer = await nobody.put(f"/v1/organizations/{org}", headers=headers, json={"name": "x"})
        assert (answer.status_code, answer.json()["type"]) == (403, "urn:quotagate:problem:forbidden")
        assert "organizations:write" in answer.json()["detail"]


async def test_a_token_of_an_organization_reaches_only_that_one(admin: AsyncClient, nobody: AsyncClient) -> None:
    org, other = (f"org-{uuid4().hex[:8]}" for _ in range(2))
    for each in (org, other):
        await admin.put(f"/v1/organizations/{each}", json={"name": each})
    token = bearing((await made(admin, org=org, role="owner"))["token"])
    assert (await nobody.get(f"/v1/organizations/{org}", headers=token)).status_code == 200
    assert (await nobody.get(f"/v1/organizations/{other}", headers=token)).status_code == 403
    assert (await nobody.get("/v1/organizations", headers=token)).status_code == 403
    assert (await admin.post(PATH, json={"name": named(), "org": "no-such", "role": "owner"})).status_code == 404


async def test_nobody_makes_a_token_that_may_more_than_himself(admin: AsyncClient, nobody: AsyncClient) -> None:
    maker = bearing((await made(admin, permissions=["access:admin", "plans:read"]))["token"])
    for content in ({"role": "admin"}, {"role": "viewer"}, {"permissions": ["plans:read", "money:write"]}):
        answer = await nobody.post(PATH, headers=maker, json={"name": named(), **content})
        assert answer.status_code == 403, answer.text
    answer = await nobody.post(PATH, headers=maker, json={"name": named(), "permissions": ["plans:read"]})
    assert answer.status_code == 201


async def test_an_expired_token_is_refused_and_told_so(
    admin: AsyncClient, nobody: AsyncClient, clock: MovedClock
) -> None:
    expires_at = moment(clock.now + 60).isoformat()
    token = bearing((await made(admin, role="viewer", expires_at=expires_at))["token"])
    assert (await nobody.get("/v1/plans", headers=token)).status_code == 200
    clock.move(seconds=61)
    answer = await nobody.get("/v1/plans", headers=token)
    assert (answer.status_code, answer.json()["reason"]) == (401, "expired")
    assert (
        await admin.post(PATH, json={"name": named(), "role": "viewer", "expires_at": expires_at})
    ).status_code == 422


async def test_a_revoked_token_is_refused_from_the_answer_on_by_every_process(
    admin: AsyncClient, nobody: AsyncClient, settings: Settings, clock: MovedClock
) -> None:
    token = await made(admin, role="viewer")
    headers = bearing(token["token"])
    async with started(settings, clock) as other:
        assert (await other.get("/v1/plans", headers=headers)).status_code == 200
        assert (await admin.delete(f"{PATH}/{token['id']}")).status_code == 204
        for client in (nobody, other):
            assert (await client.get("/v1/plans", headers=headers)).status_code == 401
    assert (await admin.delete(f"{PATH}/{token['id']}")).status_code == 204, "a second time changes nothing"
    assert (await admin.delete(f"{PATH}/{uuid4()}")).status_code == 404
    assert (await admin.post(PATH, json={"name": token["name"], "role": "viewer"})).status_code == 201


async def test_unknown_and_revoked_tokens_get_the_same_answer(admin: AsyncClient, nobody: AsyncClient) -> None:
    token = await made(admin, role="viewer")
    await admin.delete(f"{PATH}/{token['id']}")

    async def told(text: str) -> tuple[object, ...]:
        answer = await nobody.get("/v1/plans", headers=bearing(text))
        problem = answer.json()
        return answer.status_code, answer.headers["www-authenticate"], problem["detail"], problem["reason"]

    unknown = await told(generate())
    assert unknown == await told(token["token"])
    assert unknown[::3] == (401, "service_token_unknown")
    assert await told(generate()[:-1] + "-") == await told(ADMIN_TOKEN[::-1]), "neither has the form"


async def test_of_each_name_one_token_is_in_use(admin: AsyncClient) -> None:
    token = await made(admin, role="viewer")
    for name, status in ((token["name"], 409), ("bootstrap", 422), ("", 422), ("a b", 422)):
        assert (await admin.post(PATH, json={"name": name, "role": "viewer"})).status_code == status, name


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"role": "owner"},
        {"role": "viewer", "permissions": ["plans:read"]},
        {"permissions": []},
        {"permissions": ["plans:sell"]},
        {"org": "acme", "role": "viewer"},
    ],
)
async def test_a_token_without_clear_rights_is_refused(admin: AsyncClient, content: dict[str, Any]) -> None:
    assert (await admin.post(PATH, json={"name": named(), **content})).status_code == 422


async def test_the_token_of_the_settings_is_revoked_for_good(
    admin: AsyncClient, nobody: AsyncClient, settings: Settings, clock: MovedClock
) -> None:
    [bootstrap] = [t for t in (await admin.get(PATH)).json()["service_tokens"] if t["name"] == "bootstrap"]
    answer = await admin.delete(f"{PATH}/{bootstrap['id']}")
    assert answer.status_code == 409, "nobody could make another one"
    successor = bearing((await made(admin, role="admin"))["token"])
    assert (await admin.delete(f"{PATH}/{bootstrap['id']}")).status_code == 204
    assert (await admin.get("/v1/plans")).status_code == 401
    async with started(settings, clock) as restarted:
        assert (await restarted.get("/v1/plans", headers=bearing(ADMIN_TOKEN))).status_code == 401
        assert (await restarted.get("/v1/plans", headers=successor)).status_code == 200
    changed = settings.model_copy(update={"admin_token": type(settings.admin_token)("another-token-of-the-settings")})
    async with started(changed, clock) as restarted:
        answer = await restarted.get("/v1/plans", headers=bearing("another-token-of-the-settings"))
        assert answer.status_code == 401


async def test_of_two_administrators_that_revoke_each_other_one_stays(
    admin: AsyncClient, nobody: AsyncClient, settings: Settings, clock: MovedClock
) -> None:
    one, two = [await made(admin, role="admin") for _ in range(2)]
    [bootstrap] = [t for t in (await admin.get(PATH)).json()["service_tokens"] if t["name"] == "bootstrap"]
    await admin.delete(f"{PATH}/{bootstrap['id']}")
    async with started(settings, clock) as other:
        answers = await asyncio.gather(
            nobody.delete(f"{PATH}/{two['id']}", headers=bearing(one["token"])),
            other.delete(f"{PATH}/{one['id']}", headers=bearing(two["token"])),
        )
    assert sorted(answer.status_code for answer in answers) in ([204, 401], [204, 409])
    live = [(await nobody.get(PATH, headers=bearing(each["token"]))).status_code for each in (one, two)]
    assert sorted(live) == [200, 401]


async def test_a_new_value_in_the_settings_replaces_the_old_one(
    admin: AsyncClient, settings: Settings, clock: MovedClock
) -> None:
    assert (await admin.get("/v1/plans")).status_code == 200
    changed = settings.model_copy(update={"admin_token": type(settings.admin_token)("another-token-of-the-settings")})
    async with started(changed, clock) as restarted:
        assert (await restarted.get("/v1/plans", headers=bearing("another-token-of-the-settings"))).status_code == 200
    assert (await admin.get("/v1/plans")).status_code == 401


async def test_a_service_token_may_stand_in_the_settings(
    admin: AsyncClient, settings: Settings, clock: MovedClock
) -> None:
    token = (await made(admin, role="admin"))["token"]
    changed = settings.model_copy(update={"admin_token": type(settings.admin_token)(token)})
    async with started(changed, clock) as restarted:
        assert (await restarted.get("/v1/plans", headers=bearing(token))).status_code == 200


async def test_the_last_use_is_known_to_the_minute(admin: AsyncClient, nobody: AsyncClient, clock: MovedClock) -> None:
    token = await made(admin, role="viewer")
    assert token["last_used_at"] is None
    for _ in range(3):
        await nobody.get("/v1/plans", headers=bearing(token["token"]))
        [shown] = [t for t in (await admin.get(PATH)).json()["service_tokens"] if t["id"] == token["id"]]
        used = moment(clock.now - clock.now % 60)
        assert shown["last_used_at"] == used.isoformat().replace("+00:00", "Z")
        clock.move(minutes=5)


async def test_while_postgres_is_away_only_what_was_good_is_believed(
    context: Context, admin: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = (await made(admin, role="viewer"))["token"].encode()
    seen, unseen = (ServiceTokens(context.db, ADMIN_TOKEN, context.host_clock) for _ in range(2))
    standing = await seen.find(token)
    assert standing is not None
    assert standing.permissions == ADMIN_PERMISSIONS[AdminRole.VIEWER]
    async with context.db.transaction() as connection:
        # Reading the table waits until it is not locked any more.
        await connection.execute("LOCK TABLE service_token IN ACCESS EXCLUSIVE MODE")
        assert await seen.find(token) == standing
        monkeypatch.setattr("control.access.people.service_tokens.BELIEVED_SECONDS", -1.0)
        with pytest.raises(StoreUnavailable):
            await seen.find(token)
    assert await unseen.find(token) == standing


async def test_the_text_of_a_token_is_nowhere_but_in_the_answer(
    admin: AsyncClient, nobody: AsyncClient, postgres_dsn: str
) -> None:
    with structlog.testing.capture_logs() as logs:
        token = (await made(admin, role="viewer"))["token"]
        await nobody.get("/v1/plans", headers=bearing(token))
        await nobody.get("/v1/organizations/x", headers=bearing(token + "0"))
    listed = (await admin.get(PATH)).text
    journal = (await admin.get("/v1/journal?action=service_token.created")).text
    metrics = (await nobody.get("/-/metrics")).text
    stored = postgres.execute(postgres_dsn, "SELECT string_agg(t::text, ' ') FROM service_token t")
    secret = token.split("_")[1]
    for text in (json.dumps(logs, default=str), listed, journal, metrics, stored):
        assert secret not in text
    assert sha256(token.encode()).hexdigest() in stored


def test_the_commands_write_a_token_to_a_file_of_its_owner_and_print_none(settings: Settings, tmp_path: Path) -> None:
    file, name = tmp_path / "token", named()
    with running.started(settings, tmp_path / "log") as (_, client):

        def run(*arguments: str) -> Result:
            at = ("--control-url", str(client.base_url))
            environ = {"QUOTAGATE_ADMIN_TOKEN": ADMIN_TOKEN}
            return CliRunner().invoke(app, ["service-tokens", *arguments, *at], env=environ)

        created = run("create", name, "--role", "viewer", "--expires", "1d", "--to-file", str(file))
        assert created.exit_code == 0, created.output
        token = file.read_text().strip()
        assert is_service_token(token.encode())
        assert file.stat().st_mode & 0o777 == 0o600
        again = run("create", name, "--role", "viewer", "--to-file", str(file))
        taken = run("create", name, "--role", "viewer", "--to-file", str(tmp_path / "other"))
        assert again.exit_code == taken.exit_code == 1
        assert not (tmp_path / "other").exists()
        listed, revoked = run("list"), run("revoke", name)
        assert name in listed.output
        assert (revoked.exit_code, revoked.output) == (0, f"{name} is revoked\n")
        assert token not in created.output + again.output + taken.output + listed.output + revoked.output
        assert token not in (tmp_path / "log").read_text()
