"""Who is let in, over the wire: each fault of a token is told, nothing is charged, and keys may change under way."""

import asyncio
import base64
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import get_default_algorithms

from identity.keysets.keyset import KeySet
from tests.gateway.rig import Gateway, Organization, Peer, StartGateway, Until, Upstream

SECRET = "a secret of the tests, 32 bytes and more"
GOOD = {"iss": "quotagate-dev", "aud": "quotagate", "sub": "user_1", "org_id": "acme"}
KEYS: dict[str, Any] = {
    "RS256": rsa.generate_private_key(65537, 2048),
    "ES256": ec.generate_private_key(ec.SECP256R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate(),
}


def signed(changes: dict[str, Any] | None = None, algorithm: str = "HS256", key: Any = SECRET, **header: Any) -> bytes:
    claims = {**GOOD, "exp": time.time() + 3600, **(changes or {})}
    claims = {name: value for name, value in claims.items() if value is not None}
    return jwt.encode(claims, key, algorithm, headers=header or None).encode()


def bearer(token: bytes) -> bytes:
    return b"Authorization: Bearer %b\r\n" % token


def unsigned() -> bytes:
    header, payload = (
        base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=")
        for part in ({"alg": "none"}, {**GOOD, "exp": time.time() + 3600})
    )
    return header + b"." + payload + b"."


def jwks(*keys: tuple[str, Any, str]) -> bytes:
    entries = []
    for algorithm, private, kid in keys:
        jwk = get_default_algorithms()[algorithm].to_jwk(private.public_key(), as_dict=True)
        entries.append({**jwk, "kid": kid, "use": "sig", "alg": algorithm, "key_ops": ["verify"]})
    return json.dumps({"keys": entries}).encode()


FAULTS: dict[str, tuple[Callable[[], bytes], str | None]] = {
    "no token": (lambda: b"", None),
    "another scheme": (lambda: b"Authorization: Basic YTpi\r\n", None),
    "two tokens": (lambda: bearer(signed()) + bearer(signed()), "not carry exactly one bearer token"),
    "an empty token": (lambda: b"Authorization: Bearer \r\n", "not carry exactly one bearer token"),
    "a malformed token": (lambda: bearer(b"not.a.token"), "malformed"),
    "two segments": (lambda: bearer(signed().rpartition(b".")[0]), "malformed"),
    "an expired token": (lambda: bearer(signed({"exp": time.time() - 60})), "expired"),
    "a token that never expires": (lambda: bearer(signed({"exp": None})), "has no expiry"),
    "a token of tomorrow": (lambda: bearer(signed({"nbf": time.time() + 3600})), "not yet valid"),
    "another issuer": (lambda: bearer(signed({"iss": "evil"})), "another issuer"),
    "another audience": (lambda: bearer(signed({"aud": "other"})), "another audience"),
    "no audience": (lambda: bearer(signed({"aud": None})), "another audience"),
    "another algorithm": (lambda: bearer(signed(algorithm="HS512", key=SECRET * 2)), "algorithm"),
    "no algorithm": (lambda: bearer(unsigned()), "malformed"),
    "another secret": (lambda: bearer(signed(key="b" * 32)), "signature is wrong"),
    "a changed payload": (
        lambda: bearer(b".".join([signed().split(b".")[0], signed({"org_id": "rich"}).split(b".")[1], b"c2ln"])),
        "signature is wrong",
    ),
    "no organization": (lambda: bearer(signed({"org_id": None})), "names no organization"),
    "an organization that is no id": (lambda: bearer(signed({"org_id": "a b"})), "names no organization"),
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_token_that_is_not_believed_is_told_why_and_charges_nothing(
    gateway: Gateway, acme: Organization, upstream: Upstream, fault: str
) -> None:
    lines, reason = FAULTS[fault]
    client = await gateway.connect()
    for _ in range(2):  # the second time from the gateway's memory, if it had one for this
        answer = await client.ask(b"GET / HTTP/1.1\r\nHost: a\r\n%b\r\n" % lines())
        assert answer.status == 401
        challenge = answer["www-authenticate"] or ""
        assert challenge.startswith('Bearer realm="quotagate"')
        assert ("error=" in challenge) == (reason is not None)
        assert (reason or "") in challenge
        assert (reason or "required") in answer.problem["detail"]
    assert not upstream.requests
    assert await acme.events() == []


async def test_a_token_that_expires_on_a_kept_connection_is_refused_from_then_on(
    start: StartGateway, acme: Organization, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway = await start(auth={"leeway_seconds": 0})
    request = b"GET / HTTP/1.1\r\nHost: a\r\n%b\r\n" % bearer(signed({"exp": time.time() + 600}))
    client = await gateway.connect()
    assert [(await client.ask(request)).status for _ in range(3)] == [200, 200, 200]
    monkeypatch.setattr(gateway.worker.verifier, "clock", lambda: time.time() + 601)
    assert (await client.ask(request)).status == 401


async def test_the_organization_is_found_where_clerk_puts_it(
    start: StartGateway, acme: Organization, upstream: Upstream
) -> None:
    gateway = await start(auth={"org_claim": "o.id"})
    lines = bearer(signed({"org_id": None, "o": {"id": "acme", "rol": "admin"}}))
    assert (await gateway.get("/", None, lines)).status == 200
    assert b"\r\nX-Quota-Org: acme\r\n" in upstream.requests[0]


@pytest.mark.parametrize("algorithm", KEYS)
async def test_tokens_of_each_public_key_algorithm_are_verified_from_a_file(
    start: StartGateway, acme: Organization, tmp_path: Path, algorithm: str
) -> None:
    file = tmp_path / "jwks.json"
    file.write_bytes(jwks((algorithm, KEYS[algorithm], "k1")))
    gateway = await start(auth={"algorithms": list(KEYS), "secret": None, "jwks": str(file)})
    lines = bearer(signed(algorithm=algorithm, key=KEYS[algorithm], kid="k1"))
    assert (await gateway.get("/", None, lines)).status == 200
    forged = bearer(signed(algorithm="HS256", key="the public key, as if it were a secret", kid="k1"))
    assert (await gateway.get("/", None, forged)).status == 401


@pytest.mark.parametrize("algorithm", KEYS)
async def test_tokens_of_each_public_key_algorithm_are_verified_from_a_url(
    start: StartGateway, acme: Organization, issuer: Upstream, algorithm: str
) -> None:
    answers(issuer, jwks((algorithm, KEYS[algorithm], "k1")))
    gateway = await start(auth={"algorithms": list(KEYS), "secret": None, "jwks": f"{issuer.url}/keys"})
    lines = bearer(signed(algorithm=algorithm, key=KEYS[algorithm], kid="k1"))
    assert (await gateway.get("/", None, lines)).status == 200
    assert len(issuer.requests) == 1


async def test_a_new_key_is_fetched_once_for_all_who_come_with_it(
    start: StartGateway, acme: Organization, issuer: Upstream
) -> None:
    old, new = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    answers(issuer, jwks(("ES256", old, "old")))
    gateway = await start(auth={"algorithms": ["ES256"], "secret": None, "jwks": f"{issuer.url}/keys"})
    with_old = bearer(signed(algorithm="ES256", key=old, kid="old"))
    assert (await gateway.get("/", None, with_old)).status == 200
    answers(issuer, jwks(("ES256", new, "new")))
    keys_of(gateway)._attempted_at = float("-inf")  # as if the last fetch were long ago
    tokens = [bearer(signed({"sub": str(n)}, "ES256", new, kid="new")) for n in range(20)]
    results = await asyncio.gather(*(gateway.get("/", None, token) for token in tokens))
    assert [answer.status for answer in results] == 20 * [200]
    assert len(issuer.requests) == 2
    assert (await gateway.get("/", None, with_old)).status == 401, "the old key is not believed any more"


async def test_while_no_key_could_be_read_a_token_is_503_and_not_401(
    start: StartGateway, acme: Organization, issuer: Upstream
) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    answers(issuer, b"no key set")
    gateway = await start(auth={"algorithms": ["ES256"], "secret": None, "jwks": f"{issuer.url}/keys"})
    gateway.expected_errors.add("key set not refreshed, the known keys serve on")
    lines = bearer(signed(algorithm="ES256", key=key, kid="k"))
    answer = await gateway.get("/", None, lines)
    assert (answer.status, answer["retry-after"]) == (503, "30")
    assert answer.problem["type"] == "urn:quotagate:problem:keys-unavailable"
    assert (await gateway.get("/", None, b"")).status == 401, "there is nothing to verify"
    answers(issuer, jwks(("ES256", key, "k")))
    keys_of(gateway)._attempted_at = float("-inf")  # as if the last fetch were long ago
    assert (await gateway.get("/", None, lines)).status == 200


async def test_unknown_keys_cause_no_fetch_each(start: StartGateway, acme: Organization, issuer: Upstream) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    answers(issuer, jwks(("ES256", key, "k")))
    gateway = await start(auth={"algorithms": ["ES256"], "secret": None, "jwks": f"{issuer.url}/keys"})
    keys_of(gateway)._attempted_at = float("-inf")
    for n in range(10):
        lines = bearer(signed(algorithm="ES256", key=key, kid=f"random-{n}"))
        assert (await gateway.get("/", None, lines)).status == 401
    assert len(issuer.requests) == 2, "at the start, and one"


async def test_addresses_and_keys_that_a_token_brings_along_are_not_followed(
    start: StartGateway, acme: Organization, issuer: Upstream
) -> None:
    key, own = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    answers(issuer, jwks(("ES256", key, "k")))
    gateway = await start(auth={"algorithms": ["ES256"], "secret": None, "jwks": f"{issuer.url}/keys"})
    jwk = json.loads(jwks(("ES256", own, "k")))["keys"][0]
    for extra in ({"jku": f"{issuer.url}/evil"}, {"x5u": f"{issuer.url}/evil"}, {"jwk": jwk}):
        lines = bearer(signed(algorithm="ES256", key=own, kid="k", **extra))
        assert (await gateway.get("/", None, lines)).status == 401
    assert len(issuer.requests) == 1


async def test_a_key_id_that_is_a_path_or_an_address_leads_nowhere(
    start: StartGateway, acme: Organization, issuer: Upstream
) -> None:
    key, own = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    answers(issuer, jwks(("ES256", key, "k")))
    gateway = await start(auth={"algorithms": ["ES256"], "secret": None, "jwks": f"{issuer.url}/keys"})
    for kid in (f"{issuer.url}/evil", "../../../../dev/null", "/proc/self/environ", "evil?k=", "k\x00", "' OR '1'='1"):
        keys_of(gateway)._attempted_at = float("-inf")  # so that a fetch is allowed, and seen where it goes
        lines = bearer(signed(algorithm="ES256", key=own, kid=kid))
        assert (await gateway.get("/", None, lines)).status == 401
    assert {request.split(b"\r\n", 1)[0] for request in issuer.requests} == {b"GET /keys HTTP/1.1"}
    assert await acme.events() == []


async def test_a_client_that_leaves_while_its_key_is_fetched_charges_nothing(
    start: StartGateway, acme: Organization, issuer: Upstream, upstream: Upstream, until: Until
) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    answers(issuer, jwks(("ES256", key, "k")))
    gateway = await start(auth={"algorithms": ["ES256"], "secret": None, "jwks": f"{issuer.url}/keys"})
    keys_of(gateway)._attempted_at = float("-inf")
    go_on = asyncio.Event()

    async def slowly(peer: Peer, _: bytes) -> None:
        await go_on.wait()
        peer.send(issuer.answer)

    issuer.script = slowly
    client = await gateway.connect()
    client.send(b"GET / HTTP/1.1\r\nHost: a\r\n%b\r\n" % bearer(signed(algorithm="ES256", key=key, kid="new")))
    await until(lambda: len(issuer.requests) == 2)
    await client.close()
    await until(lambda: not gateway.connections)
    answers(issuer, jwks(("ES256", key, "new")))
    go_on.set()
    await until(lambda: keys_of(gateway).find("new"))
    assert await acme.events() == []
    assert not upstream.requests


def keys_of(gateway: Gateway) -> KeySet:
    [keys] = gateway.worker.issuers.key_sets.values()
    return keys


def answers(issuer: Upstream, body: bytes) -> None:
    issuer.answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
