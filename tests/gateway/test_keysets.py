"""Where keys come from, how often they are asked for, and what happens when the issuer is away. Over real HTTP."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given
from hypothesis import strategies as st
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from gateway import keysets
from gateway.authenticate import Reason, TokenRefused, TokenVerifier, UnknownKey
from gateway.keysets import (
    BODY_BYTES_MAX,
    REFRESH_SECONDS,
    RETRY_SECONDS,
    KeySet,
    KeySetUnavailable,
    KeyUnusable,
    fetch,
    parse_key_set,
    usable_key,
)
from gateway.settings import Algorithm, Auth

NOW = 1_800_000_000.0
ACCEPTED: tuple[Algorithm, ...] = ("RS256", "ES256")
RSA_KEY = rsa.generate_private_key(65537, 2048)
OLD_KEY, NEW_KEY = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())


def public(private: Any, kid: str | None = None, **members: Any) -> dict[str, Any]:
    algorithm = RSAAlgorithm if isinstance(private, rsa.RSAPrivateKey) else ECAlgorithm
    jwk = {**algorithm.to_jwk(private.public_key(), as_dict=True), "key_ops": ["verify"], **members}
    return jwk if kid is None else {**jwk, "kid": kid}


def key_set(*jwks: dict[str, Any]) -> bytes:
    return json.dumps({"keys": jwks}).encode()


def signed(private: Any, kid: str) -> bytes:
    claims = {"iss": "issuer", "exp": NOW + 3600, "org_id": "acme"}
    return b"Bearer " + jwt.encode(claims, private, "ES256", headers={"kid": kid}).encode()


class Issuer:
    """A real HTTP server that answers with what the test put there, and counts."""

    def __init__(self) -> None:
        self.body = key_set(public(OLD_KEY, "old"))
        self.status = 200
        self.fields: dict[str, str] = {}
        self.asked = 0
        self.answering = threading.Event()
        self.answering.set()
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                issuer.asked += 1
                issuer.answering.wait()
                self.send_response(issuer.status)
                for name, value in issuer.fields.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(issuer.body)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/keys"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        self.answering.set()
        self.server.shutdown()
        self.server.server_close()


class Time:
    """A clock that only the test moves, and a sleep that only the test ends."""

    def __init__(self) -> None:
        self.now = 0.0
        self.pauses: asyncio.Queue[float] = asyncio.Queue()
        self.woken = asyncio.Event()

    def clock(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.pauses.put_nowait(seconds)
        await self.woken.wait()
        self.woken.clear()


def settings(source: str) -> Auth:
    return Auth(algorithms=ACCEPTED, jwks=source, issuer="issuer")


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    server = Issuer()
    yield server
    server.close()


@pytest.fixture
async def time() -> Time:
    return Time()


@pytest.fixture
async def keys(issuer: Issuer, time: Time) -> AsyncIterator[KeySet]:
    found = KeySet.of(settings(issuer.url), time.clock, time.sleep)
    await found.start()
    yield found
    await found.close()


async def test_keys_are_loaded_from_a_url_at_start(keys: KeySet, issuer: Issuer) -> None:
    verifier = TokenVerifier(settings(issuer.url), keys, lambda: NOW)
    assert verifier.verify(signed(OLD_KEY, "old")).org == "acme"
    assert issuer.asked == 1


async def test_random_key_ids_cause_one_fetch_in_30_seconds(keys: KeySet, issuer: Issuer, time: Time) -> None:
    time.now = 100
    for number in range(50):
        assert not await keys.refresh_for(f"random-{number}")
    assert issuer.asked == 2
    time.now = 100 + RETRY_SECONDS - 0.1
    assert not await keys.refresh_for("random")
    assert issuer.asked == 2
    time.now = 100 + RETRY_SECONDS
    assert not await keys.refresh_for("random")
    assert issuer.asked == 3


async def test_all_who_wait_for_a_new_key_share_one_fetch(keys: KeySet, issuer: Issuer, time: Time) -> None:
    time.now = 100
    issuer.body = key_set(public(OLD_KEY, "old"), public(NEW_KEY, "new"))
    assert all(await asyncio.gather(*(keys.refresh_for("new") for _ in range(50))))
    assert issuer.asked == 2


async def test_one_who_stops_waiting_does_not_stop_the_fetch_for_others(
    keys: KeySet, issuer: Issuer, time: Time
) -> None:
    time.now = 100
    issuer.body = key_set(public(NEW_KEY, "new"))
    issuer.answering.clear()
    impatient, patient = (asyncio.create_task(keys.refresh_for("new")) for _ in range(2))
    await asyncio.sleep(0)
    impatient.cancel()
    issuer.answering.set()
    assert await patient
    assert impatient.cancelled() or impatient.cancelling()


async def test_a_new_key_is_found_when_the_first_token_signed_with_it_comes(
    keys: KeySet, issuer: Issuer, time: Time
) -> None:
    verifier = TokenVerifier(settings(issuer.url), keys, lambda: NOW)
    issuer.body = key_set(public(OLD_KEY, "old"), public(NEW_KEY, "new"))
    time.now = 100
    with pytest.raises(UnknownKey) as unknown:
        verifier.verify(signed(NEW_KEY, "new"))
    assert await keys.refresh_for(unknown.value.kid)
    assert verifier.verify(signed(NEW_KEY, "new")).org == "acme"


async def test_a_key_that_is_withdrawn_takes_its_remembered_tokens_along(keys: KeySet, issuer: Issuer) -> None:
    verifier = TokenVerifier(settings(issuer.url), keys, lambda: NOW)
    issuer.body = key_set(public(OLD_KEY, "old"), public(NEW_KEY, "new"))
    assert await keys.refresh()
    for token in (signed(OLD_KEY, "old"), signed(NEW_KEY, "new")):
        verifier.verify(token)
    issuer.body = key_set(public(NEW_KEY, "new"))
    assert await keys.refresh()
    assert len(verifier._young) == 1
    with pytest.raises(UnknownKey):
        verifier.verify(signed(OLD_KEY, "old"))


async def test_another_key_under_the_same_id_is_another_key(keys: KeySet, issuer: Issuer) -> None:
    verifier = TokenVerifier(settings(issuer.url), keys, lambda: NOW)
    token = signed(OLD_KEY, "old")
    verifier.verify(token)
    issuer.body = key_set(public(NEW_KEY, "old"))
    assert await keys.refresh()
    with pytest.raises(TokenRefused) as refused:
        verifier.verify(token)
    assert refused.value.reason == Reason.BAD_SIGNATURE


@pytest.mark.parametrize(
    ("status", "fields", "body"),
    [
        (500, {}, b"oops"),
        (404, {}, b""),
        (301, {"location": "/elsewhere"}, b""),
        (307, {"location": "file:///etc/passwd"}, b""),
        (200, {}, b" " * (BODY_BYTES_MAX + 1)),
        (200, {"content-length": "9999999999"}, b" " * (BODY_BYTES_MAX + 1)),
        (200, {}, b"<html>"),
        (200, {}, b"[]"),
        (200, {}, b"{}"),
        (200, {}, b'{"keys": {}}'),
        (200, {}, b'{"keys": []}'),
        (200, {}, b'{"keys": [{"kty": "oct", "k": "AAAA", "kid": "old"}]}'),
        (200, {}, b"[" * 100_000),
        (200, {"content-encoding": "gzip"}, b"\x1f\x8b junk"),
    ],
)
async def test_an_unusable_answer_leaves_the_known_keys_in_service(
    keys: KeySet, issuer: Issuer, status: int, fields: dict[str, str], body: bytes
) -> None:
    issuer.status, issuer.fields, issuer.body = status, fields, body
    assert not await keys.refresh()
    assert issuer.asked == 2  # no redirect was followed
    assert keys.find("old")


async def test_an_issuer_that_is_away_leaves_the_known_keys_in_service(keys: KeySet, issuer: Issuer) -> None:
    issuer.close()
    assert not await keys.refresh()
    verifier = TokenVerifier(settings(issuer.url), keys, lambda: NOW)
    assert verifier.verify(signed(OLD_KEY, "old")).org == "acme"


async def test_an_issuer_that_does_not_answer_is_given_up(issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keysets, "FETCH_TIMEOUT_SECONDS", 0.01)
    issuer.answering.clear()
    async with httpx.AsyncClient() as client:
        with pytest.raises(KeySetUnavailable, match="TimeoutError"):
            await fetch(client, issuer.url)


async def test_an_issuer_that_is_away_at_start_is_asked_again_soon(issuer: Issuer, time: Time) -> None:
    issuer.status = 503
    keys = KeySet.of(settings(issuer.url), time.clock, time.sleep)
    await keys.start()
    assert not keys.usable
    assert 0.9 * RETRY_SECONDS <= await time.pauses.get() <= 1.1 * RETRY_SECONDS
    issuer.status = 200
    time.woken.set()
    assert 0.9 * REFRESH_SECONDS <= await time.pauses.get() <= 1.1 * REFRESH_SECONDS
    assert keys.usable
    await keys.close()


async def test_keys_are_refreshed_in_the_background(keys: KeySet, issuer: Issuer, time: Time) -> None:
    assert 0.9 * REFRESH_SECONDS <= await time.pauses.get() <= 1.1 * REFRESH_SECONDS
    issuer.body = key_set(public(NEW_KEY, "new"))
    time.woken.set()
    await time.pauses.get()
    assert keys.find("new")
    assert not keys.find("old")


async def test_keys_come_from_a_file_and_are_read_again_when_it_changes(tmp_path: Path, time: Time) -> None:
    file = tmp_path / "keys.json"
    file.write_bytes(key_set(public(OLD_KEY, "old")))
    keys = KeySet.of(settings(str(file)), time.clock, time.sleep)
    await keys.start()
    assert keys.find("old")
    file.write_bytes(key_set(public(NEW_KEY, "new")))
    assert await keys.refresh()
    assert keys.find("new")
    file.write_bytes(b"half written")
    assert not await keys.refresh()
    file.unlink()
    assert not await keys.refresh()
    assert keys.find("new")
    await keys.close()


async def test_a_shared_secret_is_the_only_key_and_is_never_refreshed(time: Time) -> None:
    auth = Auth.model_validate({"algorithms": ("HS256",), "secret": "x" * 32, "issuer": "issuer"})
    keys = KeySet.of(auth, time.clock, time.sleep)
    await keys.start()
    assert keys.find("anything") == keys.find(None)
    assert await keys.refresh_for("anything")
    assert keys.usable
    await keys.close()


@pytest.mark.parametrize(
    ("jwk", "reason"),
    [
        (public(RSA_KEY, use="enc"), "use"),
        (public(RSA_KEY, key_ops=["encrypt"]), "key_ops"),
        (public(RSA_KEY, key_ops="verify"), "key_ops"),
        (public(RSA_KEY, alg="RS512"), "fits none"),
        (public(RSA_KEY, alg="ES256"), "fits none"),
        (public(RSA_KEY, kid=7), "kid"),
        (public(OLD_KEY, crv="P-384"), "fits none"),
        (public(OLD_KEY, x="AAAA"), "no key"),
        (public(OLD_KEY, y=None), "no key"),
        (public(RSA_KEY, n=5), "no key"),
        (public(RSA_KEY, d="AQAB"), "private"),
        (public(rsa.generate_private_key(65537, 1024)), "2048 bits"),  # noqa: S505  that is the point
        ({"kty": "oct", "k": "c2VjcmV0"}, "symmetric"),
        ({"kty": ["RSA"]}, "fits none"),
        ({}, "fits none"),
        ([], "no JSON object"),
        (None, "no JSON object"),
    ],
)
def test_a_key_that_must_not_verify_tokens_here_is_skipped_and_the_others_are_kept(jwk: Any, reason: str) -> None:
    with pytest.raises(KeyUnusable, match=reason):
        usable_key(jwk, ACCEPTED)
    kept = parse_key_set(key_set(jwk, public(NEW_KEY, "new")), ACCEPTED)
    assert [key.kid for key in kept] == ["new"]


def test_a_key_keeps_only_the_algorithms_that_are_accepted_and_that_it_names() -> None:
    assert usable_key(public(RSA_KEY, use="sig"), ("RS256", "RS512", "ES256")).algorithms == {"RS256", "RS512"}
    assert usable_key(public(RSA_KEY, alg="RS512"), ("RS256", "RS512")).algorithms == {"RS512"}


MEMBERS = st.sampled_from(["kty", "crv", "alg", "use", "key_ops", "kid", "n", "e", "x", "y", "d"])
VALUES = st.none() | st.integers() | st.text(max_size=8) | st.lists(st.text(max_size=3), max_size=2)


@given(st.sampled_from([public(RSA_KEY), public(OLD_KEY)]), st.dictionaries(MEMBERS, VALUES, max_size=3))
def test_a_damaged_key_is_told_and_never_more_than_that(jwk: dict[str, Any], damage: dict[str, Any]) -> None:
    try:
        key = usable_key({**jwk, **damage}, ACCEPTED)
    except KeyUnusable:
        return
    assert key.algorithms <= set(ACCEPTED)
