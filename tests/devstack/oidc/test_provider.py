"""The provider of tests refuses what a real one refuses: otherwise a client's mistakes would not be seen."""

from collections.abc import Iterator
from urllib.parse import parse_qsl, urlsplit

import httpx
import jwt
import pytest

from devstack import oidc_process
from devstack.oidc.provider import challenge_of
from devstack.ports import free_port
from tests.directory import ADA, CLIENT, written

BACK = "http://127.0.0.1:1/console/signed-in/example"
VERIFIER = "v" * 43


@pytest.fixture(scope="module")
def issuer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("oidc")
    with oidc_process.running(free_port(), written(folder / "directory.json", BACK), folder) as url:
        yield url


def asked(issuer: str, **other: str | None) -> str:
    query = {
        "client_id": CLIENT["client_id"],
        "redirect_uri": BACK,
        "response_type": "code",
        "scope": "openid email",
        "state": "s",
        "nonce": "n",
        "code_challenge": challenge_of(VERIFIER),
        "code_challenge_method": "S256",
        **other,
    }
    return str(httpx.URL(f"{issuer}/authorize", params={k: v for k, v in query.items() if v is not None}))


def returned(answer: httpx.Response) -> dict[str, str]:
    assert answer.status_code == 303, answer.text
    assert answer.headers["location"].startswith(BACK)
    return dict(parse_qsl(urlsplit(answer.headers["location"]).query))


def code_of(issuer: str) -> str:
    form = {"username": ADA["username"], "password": ADA["password"], "action": "login"}
    return returned(httpx.post(asked(issuer), data=form))["code"]


def exchange(issuer: str, code: str, **other: str) -> httpx.Response:
    form = {
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": BACK,
        "code_verifier": VERIFIER,
        "client_id": CLIENT["client_id"],
        "client_secret": CLIENT["client_secret"],
        **other,
    }
    return httpx.post(f"{issuer}/token", data=form)


def test_a_code_becomes_tokens_once(issuer: str) -> None:
    code = code_of(issuer)
    tokens = exchange(issuer, code).json()
    claims = jwt.decode(tokens["id_token"], options={"verify_signature": False})
    assert (claims["iss"], claims["aud"], claims["nonce"], claims["email"]) == (
        issuer,
        CLIENT["client_id"],
        "n",
        "ada@example.com",
    )
    info = httpx.get(f"{issuer}/userinfo", headers={"authorization": f"Bearer {tokens['access_token']}"}).json()
    assert info["sub"] == claims["sub"]
    assert exchange(issuer, code).json()["error"] == "invalid_grant"


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"code_verifier": "w" * 43}, "invalid_grant"),
        ({"redirect_uri": "http://127.0.0.1:1/else"}, "invalid_grant"),
        ({"client_secret": "wrong"}, "invalid_client"),
        ({"grant_type": "password"}, "unsupported_grant_type"),
    ],
)
def test_a_code_is_exchanged_only_as_it_was_asked_for(issuer: str, wrong: dict[str, str], error: str) -> None:
    assert exchange(issuer, code_of(issuer), **wrong).json()["error"] == error


@pytest.mark.parametrize("missing", ["code_challenge", "code_challenge_method", "state", "nonce", "scope"])
def test_a_request_without_pkce_state_or_nonce_is_refused(issuer: str, missing: str) -> None:
    assert "error" in returned(httpx.get(asked(issuer, **{missing: None})))


def test_nothing_is_sent_to_an_address_that_nobody_registered(issuer: str) -> None:
    answer = httpx.get(asked(issuer, redirect_uri="http://127.0.0.1:1/else"))
    assert answer.status_code == 400
    assert "location" not in answer.headers


def test_a_wrong_password_gives_no_code(issuer: str) -> None:
    form = {"username": ADA["username"], "password": "wrong", "action": "login"}
    assert httpx.post(asked(issuer), data=form).status_code == 401
