"""One token, one answer: over the wire at the gateway and at the control plane, whatever is wrong with the token."""

import base64
import json
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jwt
import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from httpx import ASGITransport, AsyncClient
from jwt.algorithms import HMACAlgorithm, get_default_algorithms

from common.settings_file import parse
from control.app import build, opened
from control.settings.control_plane import Settings
from gateway.settings.root import GatewaySettings
from identity.issuers import Issuers
from tests.control.plane import ADMIN_TOKEN
from tests.gateway.rig import MakeOrganization, Peer, StartGateway, Upstream

SECRET = "a secret of the tests, 32 bytes and more"
HMAC = {"algorithms": ["HS256"], "secret": SECRET, "issuer": "https://issuer.example/", "audience": "api"}
KEYS: dict[str, Any] = {
    "RS256": rsa.generate_private_key(65537, 2048),
    "ES256": ec.generate_private_key(ec.SECP256R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate(),
}


@dataclass(frozen=True)
class Ask:
    """Asks a plane with these values of Authorization. Returns the status, and why the token is refused."""

    send: Callable[..., Awaitable[tuple[int, str]]]
    issuers: Issuers
    """Of the plane."""

    async def __call__(self, *fields: bytes) -> tuple[int, str]:
        return await self.send(*fields)


Plane = Callable[[dict[str, Any]], Awaitable[Ask]]


@pytest.fixture(params=["gateway", "control"])
async def plane(
    request: pytest.FixtureRequest,
    redis_url: str,
    application_dsn: str,
    start: StartGateway,
    organization: MakeOrganization,
) -> AsyncIterator[Plane]:
    """Starts one of the planes with these settings `auth`; what it makes asks it with an organization's token."""
    async with AsyncExitStack() as stack:

        async def gateway(auth: dict[str, Any]) -> Ask:
            await organization("acme", 1_000_000)
            serving = await start(auth={"audience": None, "secret": None, **auth})

            async def ask(*fields: bytes) -> tuple[int, str]:
                lines = b"".join(b"Authorization: %b\r\n" % value for value in fields)
                answer = await serving.get("/", None, lines)
                return answer.status, described(answer["www-authenticate"] or "")

            return Ask(ask, serving.worker.issuers)

        async def control(auth: dict[str, Any]) -> Ask:
            settings = {"postgres": {"dsn": application_dsn}, "redis": {"url": redis_url}, "admin_token": ADMIN_TOKEN}
            context = await stack.enter_async_context(opened(Settings.model_validate({**settings, "auth": auth})))
            transport = ASGITransport(build(context))
            client = await stack.enter_async_context(AsyncClient(transport=transport, base_url="http://control"))
            admin = {"authorization": f"Bearer {ADMIN_TOKEN}"}
            made = await client.put("/v1/organizations/acme", headers=admin, json={"name": "Acme"})
            assert made.status_code in (200, 201), made.text

            async def ask(*fields: bytes) -> tuple[int, str]:
                answer = await client.get("/v1/organizations/acme", headers=[(b"authorization", f) for f in fields])
                return answer.status_code, described(answer.headers.get("www-authenticate", ""))

            organizations = context.callers._organizations
            assert organizations is not None
            return Ask(ask, organizations.issuers)

        yield gateway if request.param == "gateway" else control


def described(challenge: str) -> str:
    """Of the field WWW-Authenticate, what is wrong."""
    if challenge in ("", 'Bearer realm="quotagate"'):
        return challenge
    assert challenge.startswith('Bearer realm="quotagate", error="invalid_')
    return challenge.partition('error_description="')[2].removesuffix('"')


def segment(part: Any) -> str:
    raw = part if isinstance(part, bytes) else json.dumps(part).encode()
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def claims(**changes: Any) -> dict[str, Any]:
    return {"iss": "https://issuer.example/", "aud": "api", "exp": time.time() + 600, "org_id": "acme", **changes}


def without(name: str) -> dict[str, Any]:
    return {claim: value for claim, value in claims().items() if claim != name}


def signed(payload: Any, header: Any = None, secret: bytes = SECRET.encode()) -> bytes:
    """Whatever header and payload are, under a good signature."""
    text = f"{segment({'alg': 'HS256'} if header is None else header)}.{segment(payload)}"
    signature = HMACAlgorithm(HMACAlgorithm.SHA256).sign(text.encode(), secret)
    return f"{text}.{segment(signature)}".encode()


def bearer(token: bytes) -> bytes:
    return b"Bearer " + token


MALFORMED, ORGANIZATION = "the token is malformed", "the token names no organization"
AUDIENCE, UNSUPPORTED = "the token is for another audience", "the token requires an extension that is not supported"
ALGORITHM = "the token is signed with an algorithm that is not accepted"
FIELD, ASKED = "the request does not carry exactly one bearer token of at most 8 KiB", 'Bearer realm="quotagate"'


def twice(escaped: str) -> bytes:
    return json.dumps(claims(), separators=(",", ":"))[:-1].encode() + f',"{escaped}":"other"}}'.encode()


def refused() -> Iterator[tuple[str, bytes, str]]:
    """What is wrong, the token, and what is said of it."""
    values: list[Any] = ["9999999999", 1e300, True, [], {}, None, 10**400]
    for value in values:
        for claim in ("exp", "nbf", "iat"):
            yield f"{claim} is {str(value)[:9]!r}", signed(claims(**{claim: value})), MALFORMED
    for text in (b"NaN", b"Infinity", b"-Infinity", b"1e999", b"01", b"1" * 5000):
        payload = json.dumps(without("exp"))[:-1].encode() + b', "exp": ' + text + b"}"
        yield f"exp is {text[:9]!r}", signed(payload), MALFORMED
    yield "exp is before 1970", signed(claims(exp=-1)), "the token has expired"
    yield "no exp", signed(without("exp")), "the token has no expiry"
    yield "exp was", signed(claims(exp=time.time() - 60)), "the token has expired"
    yield "nbf will be", signed(claims(nbf=time.time() + 600)), "the token is not yet valid"
    yield "iat will be", signed(claims(iat=time.time() + 600)), "the token is not yet valid"
    for issuer in (None, "", "https://issuer.example", ["https://issuer.example/"], 1):
        yield f"iss is {issuer!r}", signed(claims(iss=issuer)), "the token is from another issuer"
    for audience in (None, "", "other", [], ["other"], ["api", 1], {"api": 1}, 1, True):
        yield f"aud is {audience!r}", signed(claims(aud=audience)), AUDIENCE
    yield "no aud", signed(without("aud")), AUDIENCE
    for org in (None, "", True, 1.5, -1, [], ["acme"], {"id": "acme"}, "a b", "../acme", "acme\0", "acme\n", "a" * 129):
        yield f"org_id is {str(org)[:9]!r}", signed(claims(org_id=org)), ORGANIZATION
    subjects: list[Any] = [None, 7, [], "a\nb", "\ud800", "\0"]
    for subject in subjects:
        yield f"sub is {subject!r}", signed(claims(sub=subject)), MALFORMED
    yield "org_id twice", signed(twice("org_id")), MALFORMED
    yield "org_id twice, one escaped", signed(twice("org\\u005fid")), MALFORMED
    yield "a member twice, deeper", signed(json.dumps(claims())[:-1].encode() + b',"o":[{"a":1,"a":1}]}'), MALFORMED
    yield "alg twice", signed(claims(), b'{"alg":"HS256","alg":"HS256"}'), MALFORMED
    for payload in (b"[]", b"null", b'"acme"', b"{", b"\xff", b"\xef\xbb\xbf{}", b"{}{}", b'{"o":' + b"[" * 3000):
        yield f"payload {payload[:9]!r}", signed(payload), MALFORMED
    for algorithm in ("none", "None", "NONE", "nOnE", "HS512", "RS256", "hs256", "", None, 1, ["HS256"]):
        yield f"alg {algorithm!r}", signed(claims(), {"alg": algorithm}), ALGORITHM
    yield "no alg", signed(claims(), {}), ALGORITHM
    yield "unsigned", signed(claims(), {"alg": "none"}).rpartition(b".")[0] + b".", MALFORMED
    headers: list[dict[str, Any]] = [
        {"crit": ["exp"]},
        {"crit": []},
        {"crit": None},
        {"b64": False, "crit": ["b64"]},
        {"b64": 0},
    ]
    for header in headers:
        yield f"header {header}", signed(claims(), {"alg": "HS256", **header}), UNSUPPORTED
    for kid in (None, 7, ["k"], {"k": 1}):
        yield f"kid {kid!r}", signed(claims(), {"alg": "HS256", "kid": kid}), MALFORMED
    yield "another secret", signed(claims(), secret=b"x" * 40), "the token's signature is wrong"
    good = signed(claims())
    yield "padding", good + b"=", MALFORMED
    yield "padding within", good.replace(b".", b"=.", 1), MALFORMED
    yield "a fourth part", good + b".x", MALFORMED
    yield "two parts", good.rpartition(b".")[0], MALFORMED
    yield "an empty part", good.replace(b".", b"..", 1), MALFORMED
    yield "not base64url", good[:-1] + b"+", MALFORMED
    yield "not ASCII", good[:-1] + b"\xe9", MALFORMED
    yield "a token of 9 KiB", signed(claims(pad="x" * 6800)), FIELD


FIELDS = [
    ((), ASKED),
    ((b"Basic dTpw",), ASKED),
    ((b"Bearer",), FIELD),
    ((b"Bearer a b",), FIELD),
    ((b"Bearer a,Bearer b",), FIELD),
    ((bearer(signed(claims())), bearer(signed(claims()))), FIELD),
    ((b"Basic dTpw", bearer(signed(claims()))), FIELD),
]


async def test_both_planes_refuse_the_same_tokens_for_the_same_reason(plane: Plane) -> None:
    ask = await plane(HMAC)
    assert await ask(bearer(signed(claims()))) == (200, "")
    cases = list(refused())
    assert len(cases) > 100
    answers = {what: await ask(bearer(token)) for what, token, _ in cases}
    assert answers == {what: (401, why) for what, _, why in cases}
    assert [await ask(*fields) for fields, _ in FIELDS] == [(401, why) for _, why in FIELDS]


async def test_both_planes_believe_the_same_tokens(plane: Plane) -> None:
    ask = await plane({**HMAC, "audience": ["api", "other"]})
    believed = [
        claims(),
        claims(aud=["api", "web"]),
        claims(exp=int(time.time()) + 600, nbf=int(time.time()), iat=int(time.time())),
        claims(nbf=-1, iat=0),
        claims(exp=time.time() - 4, nbf=time.time() + 4),
        claims(sub="user_1", jku="http://127.0.0.1:1/", exotic={"a": [1, {"b": None}]}),
    ]
    assert [await ask(bearer(signed(each))) for each in believed] == [(200, "")] * len(believed)
    headers: list[dict[str, Any]] = [
        {"typ": "JWT"},
        {"typ": "at+jwt"},
        {"kid": "any"},
        {"b64": True},
        {"jku": "http://127.0.0.1:1/"},
    ]
    assert [await ask(bearer(signed(claims(), {"alg": "HS256", **h}))) for h in headers] == [(200, "")] * len(headers)
    assert await ask(b"bearer  " + signed(claims())) == (200, "")


def jwks(**by_kid: Any) -> bytes:
    entries = []
    for kid, private in by_kid.items():
        algorithm = next(name for name, key in KEYS.items() if isinstance(private, type(key)))
        jwk = get_default_algorithms()[algorithm].to_jwk(private.public_key(), as_dict=True)
        entries.append({**jwk, "kid": kid, "use": "sig", "alg": algorithm, "key_ops": ["verify"]})
    return json.dumps({"keys": entries}).encode()


def answers(issuer: Upstream, body: bytes) -> None:
    issuer.answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


@pytest.mark.parametrize("source", ["a URL", "a file"])
async def test_both_planes_believe_tokens_of_each_public_key_algorithm(
    plane: Plane, issuer: Upstream, tmp_path: Path, source: str
) -> None:
    """The README's example: RS256 and its like, with the issuer's key set."""
    body = jwks(**KEYS)
    answers(issuer, body)
    (tmp_path / "keys.json").write_bytes(body)
    at = f"{issuer.url}/keys" if source == "a URL" else str(tmp_path / "keys.json")
    ask = await plane({"algorithms": list(KEYS), "jwks": at, "issuer": "https://issuer.example/", "audience": "api"})
    for name, private in KEYS.items():
        token = jwt.encode(claims(), private, name, headers={"kid": name})
        assert await ask(bearer(token.encode())) == (200, ""), name
    public = KEYS["RS256"].public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    confused = signed(claims(), {"alg": "HS256", "kid": "RS256"}, public)
    assert await ask(bearer(confused)) == (401, ALGORITHM)
    brought = {"alg": "ES256", "kid": "ES256", "jku": f"{issuer.url}/evil", "x5u": f"{issuer.url}/evil"}
    forged = jwt.encode(claims(), ec.generate_private_key(ec.SECP256R1()), "ES256", headers=brought)
    assert await ask(bearer(forged.encode())) == (401, "the token's signature is wrong")
    assert {request.split(b"\r\n", 1)[0] for request in issuer.requests} <= {b"GET /keys HTTP/1.1"}


async def test_both_planes_find_a_key_that_is_replaced_under_its_kid(plane: Plane, issuer: Upstream) -> None:
    old, new = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    answers(issuer, jwks(k=old))
    auth = {"algorithms": ["ES256"], "jwks": f"{issuer.url}/keys", "issuer": "https://issuer.example/"}
    ask = await plane({**auth, "audience": "api"})
    with_old, with_new = (
        bearer(jwt.encode(claims(), key, "ES256", headers={"kid": "k"}).encode()) for key in (old, new)
    )
    wrong = (401, "the token's signature is wrong")
    assert await ask(with_old) == (200, "")
    answers(issuer, jwks(k=new))
    asked = len(issuer.requests)
    assert [await ask(with_new) for _ in range(5)] == [wrong] * 5
    assert len(issuer.requests) == asked, "the last look is not 30 seconds old"
    ask.issuers.key_sets["https://issuer.example/"].retry_seconds = 0.0
    assert await ask(with_new) == (200, "")
    assert await ask(with_old) == wrong


async def test_both_planes_believe_a_token_without_an_audience_where_the_settings_say_so(plane: Plane) -> None:
    pages = ["https://app.example.com"]
    clerk = {**HMAC, "audience": None, "org_claim": "o.id", "authorized_parties": pages}
    ask = await plane(clerk)
    session = {**without("aud"), "org_id": None, "o": {"id": "acme", "rol": "admin", "slg": "acme"}, "v": 2}
    assert await ask(bearer(signed({**session, "azp": "https://app.example.com"}))) == (200, "")
    assert await ask(bearer(signed(session))) == (200, "")
    another = {**session, "azp": "https://evil.example.com"}
    assert await ask(bearer(signed(another))) == (401, "the token was issued to another party")
    assert await ask(bearer(signed({**session, "aud": "api"}))) == (401, AUDIENCE)


async def test_both_planes_judge_each_token_by_its_own_issuer(plane: Plane, issuer: Upstream) -> None:
    """One by a secret, one by discovery, whose document and keys this server answers with."""
    key, stranger = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    configuration = json.dumps({"issuer": issuer.url, "jwks_uri": f"{issuer.url}/keys"}).encode()

    async def answer(peer: Peer, request: bytes) -> None:
        body = jwks(k=key) if request.startswith(b"GET /keys ") else configuration
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))

    issuer.script = answer
    found = {"issuer": issuer.url, "algorithms": ["ES256"], "discovery": True, "org_claim": "o.id"}
    ask = await plane({"issuers": [HMAC, found], "issuer": None, "algorithms": None})
    assert await ask(bearer(signed(claims()))) == (200, "")

    def discovered(private: Any, **changes: Any) -> bytes:
        members = {**without("aud"), "iss": issuer.url, "o": {"id": "acme"}, "org_id": "other", **changes}
        return bearer(jwt.encode(members, private, "ES256", headers={"kid": "k"}).encode())

    assert await ask(discovered(key)) == (200, "")
    assert await ask(discovered(stranger)) == (401, "the token's signature is wrong")
    assert await ask(discovered(key, aud="api")) == (401, AUDIENCE)
    assert await ask(discovered(key, iss="https://issuer.example/")) == (401, ALGORITHM)
    assert await ask(bearer(signed(claims(iss=issuer.url)))) == (401, ALGORITHM)
    assert await ask(discovered(key, iss=f"{issuer.url}/")) == (401, "the token is from another issuer")
    lines = [request.split(b"\r\n", 1)[0] for request in issuer.requests]
    assert lines == [b"GET /.well-known/openid-configuration HTTP/1.1", b"GET /keys HTTP/1.1"]


def documented_blocks() -> list[str]:
    """Each block `auth` that README.md and the documents show."""
    root = Path(__file__).parents[2]
    texts = [file.read_text() for file in (root / "README.md", *sorted((root / "docs").glob("*.md")))]
    return [block for text in texts for block in re.findall(r"^auth:\n(?:  .*\n)+", text, re.MULTILINE)]


def test_one_block_of_settings_holds_for_both_planes() -> None:
    gateway = "redis: {url: redis://a}\nupstreams: {a: {url: http://a}}\nroutes: [{path: /, upstream: a}]\n"
    control = f"redis: {{url: redis://a}}\npostgres: {{dsn: postgresql://a}}\nadmin_token: {ADMIN_TOKEN}\n"
    blocks = documented_blocks()
    assert any("RS256" in block for block in blocks)
    for block in blocks:
        for rest, model in ((gateway, GatewaySettings), (control, Settings)):
            settings: Any = parse("file.yaml", rest + block, model, {"QUOTAGATE_JWT_SECRET": "x" * 32})
            assert settings.auth is not None
    folder = Path(__file__).parents[2] / "config"
    written = [yaml.safe_load((folder / name).read_text())["auth"] for name in ("gateway.yaml", "control.yaml")]
    assert written[0] == written[1]
