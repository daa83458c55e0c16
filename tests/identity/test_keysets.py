"""Where keys come from, how often they are asked for, and what happens when the issuer is away. Over real HTTP."""

import asyncio
import gzip
import itertools
import json
import threading
import zlib
from collections.abc import AsyncIterator, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
import structlog
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given
from hypothesis import strategies as st
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from identity.jwk import KeySetUnavailable, KeyUnusable, parse_key_set, usable_key
from identity.key_source import BODY_BYTES_MAX, fetch
from identity.keysets import RETRY_SECONDS, KeySet
from identity.refusals import KeyRefreshDue, Reason, TokenRefused
from identity.settings import Algorithm, Auth
from identity.tokens import TokenVerifier

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


def signed(private: Any, kid: str | None) -> bytes:
    claims = {"iss": "issuer", "exp": NOW + 3600, "org_id": "acme"}
    return jwt.encode(claims, private, "ES256", headers=None if kid is None else {"kid": kid}).encode()


@pytest.mark.parametrize("url", ["https://[v1.a]/keys", "https://127.0.0.1/\x7f", "https://xn--/keys"])
async def test_an_address_that_no_client_can_ask_is_told_and_does_not_end_the_start(url: str) -> None:
    settings = Auth(algorithms=ACCEPTED, jwks=url, issuer="issuer")
    keys = KeySet.of(settings)
    assert await keys.refresh() is False
    await keys.close()


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


def settings(source: str, **changes: Any) -> Auth:
    return Auth(algorithms=ACCEPTED, jwks=source, issuer="issuer", **changes)


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
    verifier = TokenVerifier(settings(issuer.url), keys, lambda: NOW)

    async def ask(kid: str) -> None:
        with pytest.raises(TokenRefused) as refused:
            verifier.verify(signed(OLD_KEY, kid))
        assert refused.value.reason == Reason.UNKNOWN_KEY
        assert isinstance(refused.value, KeyRefreshDue) == keys.due
        await keys.refresh_if_due()

    time.now = 100
    for number in range(50):
        await ask(f"random-{number}")
    assert issuer.asked == 2
    time.now = 100 + RETRY_SECONDS - 0.1
    await ask("random")
    assert issuer.asked == 2
    time.now = 100 + RETRY_SECONDS
    await ask("random")
    assert issuer.asked == 3


async def test_all_who_wait_for_a_new_key_share_one_fetch(keys: KeySet, issuer: Issuer, time: Time) -> None:
    time.now = 100
    issuer.body = key_set(public(OLD_KEY, "old"), public(NEW_KEY, "new"))
    await asyncio.gather(*(keys.refresh_if_due() for _ in range(50)))
    assert keys.find("new")
    assert issuer.asked == 2


async def test_one_who_stops_waiting_does_not_stop_the_fetch_for_others(
    keys: KeySet, issuer: Issuer, time: Time
) -> None:
    time.now = 100
    issuer.body = key_set(public(NEW_KEY, "new"))
    issuer.answering.clear()
    impatient, patient = (asyncio.create_task(keys.refresh_if_due()) for _ in range(2))
    await asyncio.sleep(0)
    impatient.cancel()
    issuer.answering.set()
    await patient
    assert keys.find("new")
    assert impatient.cancelled() or impatient.cancelling()


async def test_a_new_key_is_found_when_the_first_token_signed_with_it_comes(
    keys: KeySet, issuer: Issuer, time: Time
) -> None:
    verifier = TokenVerifier(settings(issuer.url), keys, lambda: NOW)
    issuer.body = key_set(public(OLD_KEY, "old"), public(NEW_KEY, "new"))
    time.now = 100
    with pytest.raises(KeyRefreshDue):
        verifier.verify(signed(NEW_KEY, "new"))
    await keys.refresh_if_due()
    assert verifier.verify(signed(NEW_KEY, "new")).org == "acme"


def verified(verifier: TokenVerifier, token: bytes) -> str:
    """The organization, or the reason of the refusal."""
    try:
        return verifier.verify(token).org
    except TokenRefused as refused:
        return refused.reason


async def test_a_key_that_is_replaced_under_its_kid_is_believed_within_thirty_seconds(
    keys: KeySet, issuer: Issuer, time: Time
) -> None:
    verifier = TokenVerifier(settings(issuer.url), keys, lambda: NOW)
    old, new = signed(OLD_KEY, "old"), signed(NEW_KEY, "old")
    assert verified(verifier, old) == "acme"
    issuer.body = key_set(public(NEW_KEY, "old"))
    time.now = RETRY_SECONDS - 0.1
    assert verified(verifier, new) == Reason.BAD_SIGNATURE
    await keys.refresh_if_due()
    assert issuer.asked == 1, "the last read is not 30 seconds old"
    time.now = RETRY_SECONDS
    with pytest.raises(KeyRefreshDue):
        verifier.verify(new)
    epoch = verifier.epoch
    await keys.refresh_if_due()
    assert verified(verifier, new) == "acme"
    assert verified(verifier, old) == Reason.BAD_SIGNATURE, "remembered or not, the old key is not believed any more"
    assert verifier.epoch > epoch, "what others remember of it is out of date"


async def test_a_key_without_a_kid_that_is_replaced_is_believed_within_thirty_seconds(
    issuer: Issuer, time: Time
) -> None:
    issuer.body = key_set(public(OLD_KEY))
    keys = KeySet.of(settings(issuer.url), time.clock, time.sleep)
    await keys.start()
    verifier = TokenVerifier(settings(issuer.url), keys, lambda: NOW)
    old, new = signed(OLD_KEY, None), signed(NEW_KEY, None)
    assert verified(verifier, old) == "acme"
    issuer.body = key_set(public(NEW_KEY))
    time.now = RETRY_SECONDS
    with pytest.raises(KeyRefreshDue):
        verifier.verify(new)
    await keys.refresh_if_due()
    assert (verified(verifier, new), verified(verifier, old)) == ("acme", Reason.BAD_SIGNATURE)
    await keys.close()


async def test_a_key_of_another_type_under_the_same_kid_is_believed_within_thirty_seconds(
    keys: KeySet, issuer: Issuer, time: Time
) -> None:
    verifier = TokenVerifier(settings(issuer.url), keys, lambda: NOW)
    claims = {"iss": "issuer", "exp": NOW + 3600, "org_id": "acme"}
    new = jwt.encode(claims, RSA_KEY, "RS256", headers={"kid": "old"}).encode()
    issuer.body = key_set(public(RSA_KEY, "old"))
    time.now = RETRY_SECONDS
    with pytest.raises(KeyRefreshDue) as refused:
        verifier.verify(new)
    assert refused.value.reason == Reason.WRONG_ALGORITHM
    await keys.refresh_if_due()
    assert verified(verifier, new) == "acme"
    assert verified(verifier, signed(OLD_KEY, "old")) == Reason.WRONG_ALGORITHM


async def test_wrong_signatures_cause_one_fetch_in_30_seconds(keys: KeySet, issuer: Issuer, time: Time) -> None:
    verifier = TokenVerifier(settings(issuer.url), keys, lambda: NOW)
    for now, asked in ((1, 1), (RETRY_SECONDS, 2), (2 * RETRY_SECONDS - 0.1, 2), (2 * RETRY_SECONDS, 3)):
        time.now = now
        for _ in range(20):
            assert verified(verifier, signed(NEW_KEY, "old")) == Reason.BAD_SIGNATURE
            await keys.refresh_if_due()
        assert issuer.asked == asked, now


@pytest.mark.parametrize(
    ("fields", "seconds"),
    [
        ({}, 300),
        ({"cache-control": "max-age=900"}, 900),
        ({"cache-control": "public, MAX-AGE=900, must-revalidate"}, 900),
        ({"cache-control": "max-age=900", "age": "300"}, 600),
        ({"cache-control": "max-age=900", "age": "soon"}, 900),
        ({"cache-control": "max-age=86400"}, 3600),
        ({"cache-control": "max-age=9999999999"}, 3600),
        ({"cache-control": "max-age=1"}, RETRY_SECONDS),
        ({"cache-control": "max-age=10", "age": "100"}, RETRY_SECONDS),
        ({"cache-control": "no-store"}, RETRY_SECONDS),
        ({"cache-control": "max-age=900, no-cache"}, RETRY_SECONDS),
        ({"cache-control": "max-age=-1"}, 300),
        ({"cache-control": "max-age=soon"}, 300),
        ({"cache-control": "s-maxage=900"}, 300),
    ],
)
async def test_the_key_set_is_read_again_when_its_cache_control_says_within_bounds(
    issuer: Issuer, time: Time, fields: dict[str, str], seconds: float
) -> None:
    issuer.fields = fields
    keys = KeySet.of(settings(issuer.url), time.clock, time.sleep)
    await keys.start()
    assert 0.8 * seconds <= await time.pauses.get() <= seconds
    await keys.close()


async def test_the_refresh_interval_is_a_setting(issuer: Issuer, time: Time) -> None:
    auth = settings(issuer.url, jwks_refresh_seconds=10, jwks_refresh_seconds_max=20)
    keys = KeySet.of(auth, time.clock, time.sleep)
    await keys.start()
    for fields, seconds in (({}, 10), ({"cache-control": "max-age=60"}, 20), ({"cache-control": "max-age=1"}, 10)):
        issuer.fields = fields
        assert await keys.refresh()
        await time.pauses.get()
        time.woken.set()
        assert 0.8 * seconds <= await time.pauses.get() <= seconds
        time.pauses.put_nowait(0)
    await keys.close()


@pytest.mark.parametrize(
    ("coding", "compressed"),
    [
        ("gzip", gzip.compress),
        ("x-gzip", gzip.compress),
        ("GZIP", gzip.compress),
        ("gzip", lambda body: gzip.compress(body[:20]) + gzip.compress(body[20:])),
        ("deflate", zlib.compress),
        ("deflate", lambda body: zlib.compress(body)[2:-4]),
        ("deflate, gzip", lambda body: gzip.compress(zlib.compress(body))),
        ("identity", lambda body: body),
    ],
)
async def test_a_compressed_key_set_is_read(issuer: Issuer, time: Time, coding: str, compressed: Any) -> None:
    issuer.fields, issuer.body = {"content-encoding": coding}, compressed(key_set(public(OLD_KEY, "old")))
    keys = KeySet.of(settings(issuer.url), time.clock, time.sleep)
    await keys.start()
    assert keys.find("old")
    await keys.close()


async def test_a_key_set_that_cannot_be_read_is_named_in_the_log_without_its_query(issuer: Issuer, time: Time) -> None:
    issuer.status = 500
    with structlog.testing.capture_logs() as logs:
        keys = KeySet.of(settings(f"{issuer.url}?key=secret"), time.clock, time.sleep)
        await keys.start()
        await keys.close()
    [told] = [entry for entry in logs if entry["log_level"] == "error"]
    assert (told["source"], told["reason"]) == (issuer.url, "its address answered 500")
    assert "secret" not in str(logs)


async def test_a_key_that_is_withdrawn_takes_its_remembered_tokens_along(keys: KeySet, issuer: Issuer) -> None:
    verifier = TokenVerifier(settings(issuer.url), keys, lambda: NOW)
    issuer.body = key_set(public(OLD_KEY, "old"), public(NEW_KEY, "new"))
    assert await keys.refresh()
    for token in (signed(OLD_KEY, "old"), signed(NEW_KEY, "new")):
        verifier.verify(token)
    issuer.body = key_set(public(NEW_KEY, "new"))
    assert await keys.refresh()
    assert len(verifier._young) == 1
    with pytest.raises(TokenRefused) as refused:
        verifier.verify(signed(OLD_KEY, "old"))
    assert refused.value.reason == Reason.UNKNOWN_KEY


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
        (200, {"content-encoding": "gzip"}, gzip.compress(key_set(public(NEW_KEY, "new")))[:-9]),
        (200, {"content-encoding": "gzip"}, gzip.compress(b" " * (BODY_BYTES_MAX + 1))),
        (200, {"content-encoding": "gzip"}, gzip.compress(b" " * BODY_BYTES_MAX) + gzip.compress(b" ")),
        (200, {"content-encoding": "gzip, gzip"}, gzip.compress(gzip.compress(b" " * (BODY_BYTES_MAX + 1)))),
        (200, {"content-encoding": "gzip, gzip, gzip"}, key_set(public(NEW_KEY, "new"))),
        (200, {"content-encoding": "deflate"}, zlib.compress(b" " * (BODY_BYTES_MAX + 1))),
        (200, {"content-encoding": "br"}, key_set(public(NEW_KEY, "new"))),
    ],
    ids=itertools.count(),  # the time is in some: each process of a run is to name its tests alike
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


async def test_an_issuer_that_does_not_answer_is_given_up(issuer: Issuer) -> None:
    issuer.answering.clear()
    async with httpx.AsyncClient() as client:
        with pytest.raises(KeySetUnavailable, match="TimeoutError"):
            await fetch(client, issuer.url, timeout_seconds=0.01)


async def test_an_issuer_that_is_away_at_start_is_asked_again_soon(issuer: Issuer, time: Time) -> None:
    issuer.status = 503
    keys = KeySet.of(settings(issuer.url), time.clock, time.sleep)
    await keys.start()
    assert not keys.usable
    assert 0.8 * RETRY_SECONDS <= await time.pauses.get() <= RETRY_SECONDS
    issuer.status = 200
    time.woken.set()
    assert 0.8 * 300 <= await time.pauses.get() <= 300
    assert keys.usable
    await keys.close()


async def test_keys_are_refreshed_in_the_background(keys: KeySet, issuer: Issuer, time: Time) -> None:
    assert 0.8 * 300 <= await time.pauses.get() <= 300
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
    assert not keys.due
    await keys.refresh_if_due()
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
        ({**public(RSA_KEY), "kid": 7}, "kid"),
        (public(OLD_KEY, crv="P-384"), "fits none"),
        (public(OLD_KEY, x="AAAA"), "do not make a key"),
        (public(OLD_KEY, y=None), "do not make a key"),
        (public(RSA_KEY, n=5), "do not make a key"),
        (public(RSA_KEY, d="AQAB"), "private"),
        (public(rsa.generate_private_key(65537, 1024)), "2048 bits"),  # noqa: S505  that is the point
        ({"kty": "oct", "k": "c2VjcmV0"}, "symmetric"),
        ({"kty": ["RSA"]}, "fits none"),
        ({}, "fits none"),
        ([], "not a JSON object"),
        (None, "not a JSON object"),
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
