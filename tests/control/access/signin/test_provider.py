"""The client of OpenID providers, against a real one in another process."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx
import pytest

from control.access.signin.attempt import Attempt
from control.access.signin.claims import person_of
from control.access.signin.id_token import IdTokenRefused
from control.access.signin.provider import OpenIdProvider, ProviderAway, SignInRefused
from control.settings.signin import Provider
from devstack import oidc_process
from devstack.ports import free_port
from tests.directory import ADA, CLIENT, written

PUBLIC_URL = "http://127.0.0.1:1"
BACK = f"{PUBLIC_URL}/console/signed-in/example"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("oidc")


@pytest.fixture(scope="module")
def issuer(folder: Path) -> Iterator[str]:
    with oidc_process.running(free_port(), written(folder / "directory.json", BACK), folder) as url:
        yield url


def settings(issuer: str, **other: Any) -> Provider:
    roles = {"roles_claim": "realm_access.roles", "roles": {"quotagate-admins": "admin"}}
    return Provider.model_validate({"name": "example", "issuer": issuer, **CLIENT, **roles, **other})


@asynccontextmanager
async def connected(given: Provider, moved: list[float] | None = None) -> AsyncIterator[OpenIdProvider[Provider]]:
    async with httpx.AsyncClient() as client:
        elapsed = time.monotonic if moved is None else lambda: moved[0]
        yield OpenIdProvider(given, BACK, client, time.time, elapsed)


async def answered(
    provider: OpenIdProvider[Provider], attempt: Attempt, person: dict[str, Any] = ADA
) -> dict[str, str]:
    """The query with which the person comes back."""
    form = {"username": person["username"], "password": person["password"], "action": "login"}
    async with httpx.AsyncClient() as browser:
        answer = await browser.post(await provider.authorization_url(attempt), data=form)
    assert answer.headers["location"].startswith(BACK), answer.text
    return dict(parse_qsl(urlsplit(answer.headers["location"]).query))


@pytest.mark.parametrize("method", ["client_secret_basic", "client_secret_post"])
async def test_a_person_is_identified_with_the_role_of_the_claim(issuer: str, method: str) -> None:
    attempt = Attempt.begin("example", None)
    async with connected(settings(issuer, client_authentication=method)) as provider:
        answer = await answered(provider, attempt)
        assert attempt.is_answered_by(answer["state"])
        person = person_of(await provider.identify(attempt, answer), provider.settings)
    assert (person.subject, person.email, person.name) == ("id-of-ada", "ada@example.com", "Ada")
    assert person.roles == {"admin"}


async def test_a_code_of_another_attempt_is_refused(issuer: str) -> None:
    """Whoever steals a code cannot use it, since the verifier is in the cookie of the browser that asked (PKCE)."""
    async with connected(settings(issuer)) as provider:
        answer = await answered(provider, Attempt.begin("example", None))
        with pytest.raises(SignInRefused):
            await provider.identify(Attempt.begin("example", None), answer)


async def test_an_answer_of_another_issuer_is_refused(issuer: str) -> None:
    attempt = Attempt.begin("example", None)
    async with connected(settings(issuer)) as provider:
        answer = await answered(provider, attempt)
        with pytest.raises(SignInRefused):
            await provider.identify(attempt, {**answer, "iss": "https://evil.example"})


async def test_a_refusal_of_the_provider_is_one_here(issuer: str) -> None:
    attempt = Attempt.begin("example", None)
    async with connected(settings(issuer)) as provider:
        with pytest.raises(SignInRefused) as cancelled:
            await provider.identify(attempt, {"error": "access_denied", "iss": issuer})
        assert cancelled.value.cancelled
        with pytest.raises(SignInRefused) as failed:
            await provider.identify(attempt, {"iss": issuer})
        assert not failed.value.cancelled


async def test_what_a_short_id_token_lacks_is_asked_of_userinfo(folder: Path) -> None:
    file = written(folder / "thin.json", BACK, thin_id_tokens=True)
    attempt = Attempt.begin("example", None)
    with oidc_process.running(free_port(), file, folder) as issuer:
        async with connected(settings(issuer)) as provider:
            claims = await provider.identify(attempt, await answered(provider, attempt))
            person = person_of(claims, provider.settings)
    assert (person.email, person.roles) == ("ada@example.com", frozenset({"admin"}))


async def test_a_new_key_of_the_provider_is_read_once_in_half_a_minute(issuer: str) -> None:
    moved = [0.0]
    async with connected(settings(issuer), moved) as provider:

        async def identified() -> str:
            attempt = Attempt.begin("example", None)
            claims = await provider.identify(attempt, await answered(provider, attempt))
            return str(claims["sub"])

        assert await identified() == "id-of-ada"
        async with httpx.AsyncClient() as client:
            await client.post(f"{issuer}/_double/rotate")
        with pytest.raises(IdTokenRefused):
            await identified()
        moved[0] += 30
        assert await identified() == "id-of-ada"


async def test_a_provider_that_is_away_is_not_asked_for_each_stranger(issuer: str) -> None:
    asked = 0

    async def count(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        asked += 1
        writer.close()

    moved = [0.0]
    async with await asyncio.start_server(count, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with connected(settings(f"http://127.0.0.1:{port}"), moved) as provider:

            async def ask() -> None:
                with pytest.raises(ProviderAway):
                    await provider.authorization_url(Attempt.begin("example", None))

            await asyncio.gather(*(ask() for _ in range(10)))
            assert asked == 1
            moved[0] += 5
            await ask()
            assert asked == 2


def naming(authorization_endpoint: str) -> bytes:
    document = {"issuer": "ISSUER", "token_endpoint": "ISSUER/token", "jwks_uri": "ISSUER/keys"}
    return json.dumps({**document, "authorization_endpoint": authorization_endpoint}).encode()


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"[]",
        b"{}",
        b'{"issuer": "https://evil.example"}',
        b'{"issuer": "ISSUER", "token_endpoint": "ISSUER/token", "jwks_uri": "ISSUER/keys"}',
        naming("http://issuer.example.com/"),
        naming("javascript:alert(1)"),
        b'{"issuer": "' + b"x" * 300_000 + b'"}',
    ],
)
async def test_a_discovery_document_that_cannot_be_used_leads_nowhere(document: bytes) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        body = document.replace(b"ISSUER", f"http://127.0.0.1:{port}".encode())
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s" % (len(body), body))
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with connected(settings(f"http://127.0.0.1:{port}")) as provider:
            with pytest.raises(ProviderAway):
                await provider.authorization_url(Attempt.begin("example", None))


async def test_the_person_can_be_signed_out_of_the_provider_too(issuer: str) -> None:
    async with connected(settings(issuer)) as provider:
        url = await provider.end_session_url(f"{PUBLIC_URL}/console/signed-out")
        assert url is not None
        async with httpx.AsyncClient() as browser:
            answer = await browser.get(url)
    assert answer.headers["location"] == f"{PUBLIC_URL}/console/signed-out"
