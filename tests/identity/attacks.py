"""Published attacks on verifiers of JWTs, as tokens. Nothing here is believed by the verifier that `trusted` describes.

Sources: RFC 8725; CVE-2015-9235 (alg none, HS/RS), CVE-2016-5431 and CVE-2016-10555 (HS/RS), CVE-2018-0114 (jwk),
CVE-2020-28042 (no signature), CVE-2022-21449 (psychic signatures), CVE-2022-39227 (polyglots); and the lists of
PortSwigger, jwt_tool and OWASP's cheat sheet for kid, jku and x5u.
"""

import base64
import json
import time
from collections.abc import Iterator
from hashlib import sha256
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import ECAlgorithm, HMACAlgorithm, OKPAlgorithm, RSAAlgorithm

from identity.refusals import Reason

RSA_KEY = rsa.generate_private_key(65537, 2048)
EC_KEY = ec.generate_private_key(ec.SECP256R1())
ED_KEY = ed25519.Ed25519PrivateKey.generate()
STRANGER = rsa.generate_private_key(65537, 2048)
SECRET = "a secret of the tests, 32 bytes and more"
WEB, DEVICES, OWN = "https://web.example/", "https://devices.example", "own"
ORDER_P256 = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
ORDER_25519 = 2**252 + 27742317777372353535851937790883648493

Attack = tuple[str, bytes, Reason]
"""What it is, the token, why it is refused."""


def trusted(web: str, devices: str) -> list[dict[str, Any]]:
    """The settings `issuers`, with the sources of two key sets."""
    return [
        {"issuer": WEB, "algorithms": ["RS256", "PS256"], "jwks": web, "audience": "api"},
        {"issuer": DEVICES, "algorithms": ["ES256", "EdDSA"], "jwks": devices, "audience": "devices"},
        {"issuer": OWN, "algorithms": ["HS256"], "secret": SECRET, "audience": "api"},
    ]


def key_sets() -> tuple[bytes, bytes]:
    web = [{**RSAAlgorithm.to_jwk(RSA_KEY.public_key(), as_dict=True), "kid": "rsa", "alg": "RS256"}]
    devices = [
        {**ECAlgorithm.to_jwk(EC_KEY.public_key(), as_dict=True), "kid": "ec"},
        {**OKPAlgorithm.to_jwk(ED_KEY.public_key(), as_dict=True), "kid": "ed"},
    ]
    usable = [[{**jwk, "key_ops": ["verify"]} for jwk in jwks] for jwks in (web, devices)]
    return json.dumps({"keys": usable[0]}).encode(), json.dumps({"keys": usable[1]}).encode()


def base64url(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def encoded(part: Any) -> str:
    return base64url(part if isinstance(part, bytes) else json.dumps(part).encode())


def claims(issuer: str, **changes: Any) -> dict[str, Any]:
    audience = "devices" if issuer == DEVICES else "api"
    return {"iss": issuer, "aud": audience, "exp": time.time() + 3600, "org_id": "acme", "sub": "u", **changes}


def made(header: Any, payload: Any, signature: bytes) -> bytes:
    return f"{encoded(header)}.{encoded(payload)}.{base64url(signature)}".encode()


def hmac(header: Any, payload: Any, secret: bytes) -> bytes:
    signing = HMACAlgorithm(HMACAlgorithm.SHA256)
    return made(header, payload, signing.sign(f"{encoded(header)}.{encoded(payload)}".encode(), secret))


def of_web(payload: Any = None, key: Any = RSA_KEY, algorithm: str = "RS256", **header: Any) -> bytes:
    members = {"kid": "rsa", **header}
    members = {name: value for name, value in members.items() if value is not None}
    raw = payload if isinstance(payload, bytes) else json.dumps(payload or claims(WEB)).encode()
    return jwt.PyJWS().encode(raw, key, algorithm, headers=members).encode()


def of_devices(key: Any = EC_KEY, algorithm: str = "ES256", kid: str = "ec", **changes: Any) -> bytes:
    return jwt.encode(claims(DEVICES, **changes), key, algorithm, headers={"kid": kid}).encode()


def of_own(header: Any = None, payload: Any = None) -> bytes:
    return hmac(
        {"alg": "HS256"} if header is None else header, claims(OWN) if payload is None else payload, SECRET.encode()
    )


def good() -> list[bytes]:
    """What is believed: else the refusals would say nothing."""
    return [of_web(), of_devices(), of_devices(ED_KEY, "EdDSA", "ed"), of_own()]


def attacks(evil: str) -> list[Attack]:
    """`evil`: an address that nobody may be made to ask."""
    return [
        *_without_signature(),
        *_confused_algorithms(),
        *_injected_key_ids(evil),
        *_brought_keys(evil),
        *_made_up_signatures(),
        *_other_parties(),
        *_other_forms(),
    ]


def _without_signature() -> Iterator[Attack]:
    for name in ("none", "None", "NONE", "nOnE", "none ", "", None, "null", 0, False, ["none"], {"alg": "none"}):
        header = {"alg": name, "typ": "JWT"}
        yield f"alg {name!r}, no signature", made(header, claims(WEB), b""), Reason.MALFORMED
        yield f"alg {name!r}, some signature", made(header, claims(WEB), b"\0"), Reason.WRONG_ALGORITHM
        signature = base64.urlsafe_b64decode(of_web().rpartition(b".")[2] + b"==")
        yield f"alg {name!r}, a real signature", made(header, claims(WEB), signature), Reason.WRONG_ALGORITHM
    yield "no alg", made({"typ": "JWT"}, claims(WEB), b"\0"), Reason.WRONG_ALGORITHM
    yield "the signature is cut off", of_web().rpartition(b".")[0] + b".", Reason.MALFORMED
    yield "the signature and its dot are cut off", of_web().rpartition(b".")[0], Reason.MALFORMED
    yield "a signature of nothing", of_own().rpartition(b".")[0] + b".AA", Reason.BAD_SIGNATURE


def _confused_algorithms() -> Iterator[Attack]:
    public = RSA_KEY.public_key()
    jwk = RSAAlgorithm.to_jwk(public)
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    secrets = {
        "PEM": pem,
        "PEM without its last line feed": pem.rstrip(b"\n"),
        "PEM with CRLF": pem.replace(b"\n", b"\r\n"),
        "PKCS #1": public.public_bytes(Encoding.PEM, PublicFormat.PKCS1),
        "DER": public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        "JWK": jwk.encode(),
        "its modulus": json.loads(jwk)["n"].encode(),
        "nothing": b"",
    }
    for form, secret in secrets.items():
        for kid in ({}, {"kid": "rsa"}):
            yield (
                f"HS256 with the public key as {form}, {kid}",
                hmac({"alg": "HS256", **kid}, claims(WEB), secret),
                Reason.WRONG_ALGORITHM,
            )
        forged = hmac({"alg": "HS256"}, claims(OWN), secret)
        yield f"HS256 of our own issuer with the public key as {form}", forged, Reason.BAD_SIGNATURE
    for name in (
        "HS384",
        "HS512",
        "rs256",
        "RS256 ",
        "RS1",
        "RS512",
        "ES256",
        "EdDSA",
        "RSA-OAEP",
        "dir",
        "PBES2-HS256+A128KW",
    ):
        yield (
            f"alg {name} of an issuer that has RS256",
            made({"alg": name}, claims(WEB), b"\0" * 64),
            Reason.WRONG_ALGORITHM,
        )
    yield "PS256 with a key of RS256", of_web(algorithm="PS256"), Reason.WRONG_ALGORITHM
    yield "ES256 with the kid of an Ed25519 key", of_devices(kid="ed"), Reason.WRONG_ALGORITHM
    yield "the algorithm of another issuer", of_web(claims(DEVICES)), Reason.WRONG_ALGORITHM
    yield (
        "our own secret for another issuer",
        hmac({"alg": "HS256"}, claims(WEB), SECRET.encode()),
        Reason.WRONG_ALGORITHM,
    )


def _injected_key_ids(evil: str) -> Iterator[Attack]:
    known = {
        "/dev/null": b"",
        "../../../../../../dev/null": b"",
        "/proc/sys/kernel/randomize_va_space": b"2\n",
        "' UNION SELECT 'key'; -- ": b"key",
        "rsa' OR '1'='1": b"",
        "| whoami": b"root",
        evil: b"ok",
        f"file://{evil}": b"",
        "rsa\0": b"",
        "RSA": b"",
        "": b"",
        "rsa\n": b"",
        "__proto__": b"",
        "🔑" * 100: b"",
    }
    for kid, secret in known.items():
        yield (
            f"kid {kid[:30]!r} with a secret",
            hmac({"alg": "HS256", "kid": kid}, claims(WEB), secret),
            Reason.WRONG_ALGORITHM,
        )
        yield f"kid {kid[:30]!r} of a stranger", of_web(key=STRANGER, kid=kid), Reason.UNKNOWN_KEY
    others: list[Any] = [["rsa"], {"": "rsa"}, 0, True]
    for other in others:
        header = {"alg": "RS256", "kid": other}
        yield f"kid {other!r}", made(header, claims(WEB), b"\0" * 256), Reason.MALFORMED


def _brought_keys(evil: str) -> Iterator[Attack]:
    jwk = {**RSAAlgorithm.to_jwk(STRANGER.public_key(), as_dict=True), "kid": "rsa"}
    brought: dict[str, Any] = {
        "jwk": jwk,
        "jku": f"{evil}/jwks.json",
        "x5u": f"{evil}/certificate",
        "x5c": [base64.b64encode(b"certificate").decode()],
        "x5t": base64url(sha256(b"certificate").digest()[:20]),
    }
    for name, value in brought.items():
        yield f"a key brought as {name}", of_web(key=STRANGER, **{name: value}), Reason.BAD_SIGNATURE
        yield f"a key brought as {name}, no kid", of_web(key=STRANGER, kid=None, **{name: value}), Reason.BAD_SIGNATURE
    of_evil = {**claims(WEB), "iss": evil}
    yield "an issuer of the sender's own", of_web(of_evil, key=STRANGER, jku=f"{evil}/jwks"), Reason.WRONG_ISSUER


def _made_up_signatures() -> Iterator[Attack]:
    header, n = {"alg": "ES256", "kid": "ec"}, ORDER_P256
    pairs = {"0, 0": (0, 0), "0, 1": (0, 1), "1, 0": (1, 0), "n, n": (n, n), "0, n": (0, n), "1, 1": (1, 1)}
    for name, (r, s) in pairs.items():
        raw = r.to_bytes(32) + s.to_bytes(32)
        yield f"psychic signature r, s = {name}", made(header, claims(DEVICES), raw), Reason.BAD_SIGNATURE
        der = encode_dss_signature(r, s)
        yield f"psychic signature r, s = {name} in DER", made(header, claims(DEVICES), der), Reason.BAD_SIGNATURE
    for size in (1, 63, 65, 128):
        yield f"{size} zeros", made(header, claims(DEVICES), bytes(size)), Reason.BAD_SIGNATURE
    text, _, signature = of_devices().rpartition(b".")
    raw = base64.urlsafe_b64decode(signature + b"==")
    der = encode_dss_signature(int.from_bytes(raw[:32]), int.from_bytes(raw[32:]))
    yield "a good signature in DER", text + b"." + base64url(der).encode(), Reason.BAD_SIGNATURE
    text, _, signature = of_devices(ED_KEY, "EdDSA", "ed").rpartition(b".")
    raw = base64.urlsafe_b64decode(signature + b"==")
    larger = raw[:32] + (int.from_bytes(raw[32:], "little") + ORDER_25519).to_bytes(32, "little")
    yield "a good EdDSA signature with s + L", text + b"." + base64url(larger).encode(), Reason.BAD_SIGNATURE
    yield "an EdDSA signature of zeros", text + b"." + base64url(bytes(64)).encode(), Reason.BAD_SIGNATURE
    text, _, signature = of_web().rpartition(b".")
    raw, modulus = base64.urlsafe_b64decode(signature + b"=="), RSA_KEY.public_key().public_numbers().n
    larger = (int.from_bytes(raw) + modulus).to_bytes(257)
    for name, other in {
        "s + n": larger,
        "a zero before": b"\0" + raw,
        "a zero behind": raw + b"\0",
        "0": bytes(256),
        "1": bytes(255) + b"\1",
    }.items():
        yield f"an RSA signature, {name}", text + b"." + base64url(other).encode(), Reason.BAD_SIGNATURE


def _other_parties() -> Iterator[Attack]:
    yield "of one issuer, by the key of another", of_web(claims(WEB), key=STRANGER), Reason.BAD_SIGNATURE
    yield (
        "of devices, by the key of the web",
        made({"alg": "ES256", "kid": "rsa"}, claims(DEVICES), bytes(64)),
        Reason.UNKNOWN_KEY,
    )
    yield "of devices, RS256 by the key of the web", of_web(claims(DEVICES)), Reason.WRONG_ALGORITHM
    for audience in ("devices", ["devices"], None, [], "", "API", ["devices", None], {"api": 1}):
        yield f"audience {audience!r}", of_web(claims(WEB, aud=audience)), Reason.WRONG_AUDIENCE
    yield "the audience of another issuer", of_devices(aud="api"), Reason.WRONG_AUDIENCE
    for issuer in (WEB.rstrip("/"), WEB.upper(), WEB + "\0", f" {WEB}", [WEB], None, {WEB: 1}, "", 0):
        yield f"issuer {issuer!r}", of_web(claims(WEB, iss=issuer)), Reason.WRONG_ISSUER
    for kind in ("secevent+jwt", "logout+jwt", "dpop+jwt", "application/dpop+jwt", "DPoP+JWT", "vc+jwt"):
        yield f"a token of type {kind}", of_web(typ=kind), Reason.WRONG_TYPE


def _other_forms() -> Iterator[Attack]:
    nested = of_web()
    yield "a token within a token", of_web(nested), Reason.MALFORMED
    yield "a token within a token, named", of_web(cty="JWT"), Reason.UNSUPPORTED
    headers: list[dict[str, Any]] = [
        {"crit": ["exp"], "exp": 1},
        {"crit": []},
        {"b64": False, "crit": ["b64"]},
        {"b64": False},
        {"crit": ["http://openbankingtest"]},
    ]
    for header in headers:
        yield f"header {header}", of_own({"alg": "HS256", **header}), Reason.UNSUPPORTED
    twice = json.dumps(claims(OWN))[:-1].encode()
    yield "alg twice", of_own(b'{"alg":"none","alg":"HS256"}'), Reason.MALFORMED
    yield "iss twice", of_own(payload=twice + b',"iss":"https://web.example/"}'), Reason.MALFORMED
    yield "org_id twice", of_own(payload=twice + b',"org_id":"globex"}'), Reason.MALFORMED
    yield "org_id twice, escaped", of_own(payload=twice + b',"org\\u005fid":"globex"}'), Reason.MALFORMED
    for claim in ("exp", "nbf", "iat", "sub", "jti", "sid"):
        yield f"{claim} is null", of_own(payload=claims(OWN, **{claim: None})), Reason.MALFORMED
    for number in (b"1e400", b"9" * 400, b"9" * 5000, b"-1e400", b"NaN", b"Infinity", b"0x7fffffff", b'"9999999999"'):
        text = json.dumps({name: value for name, value in claims(OWN).items() if name != "exp"})[:-1].encode()
        yield (
            f"exp is {number[:10]!r}, {len(number)} long",
            of_own(payload=text + b',"exp":' + number + b"}"),
            Reason.MALFORMED,
        )
    yield "deep arrays", of_own(payload=twice + b',"a":' + b"[" * 2000 + b"]" * 2000 + b"}"), Reason.MALFORMED
    jwe = "eyJhbGciOiJSU0EtT0FFUCIsImVuYyI6IkEyNTZHQ00ifQ.AAAA.AAAA.AAAA.AAAA"
    yield "a JWE", jwe.encode(), Reason.MALFORMED
    yield (
        "a header of a JWE",
        made({"alg": "RSA-OAEP", "enc": "A256GCM"}, claims(WEB), bytes(16)),
        Reason.WRONG_ALGORITHM,
    )
    for name, changed in {
        "a dot behind": of_web() + b".",
        "dots behind": of_web() + b"...",
        "a dot before": b"." + of_web(),
        "an empty part": of_web().replace(b".", b"..", 1),
        "padding": of_web() + b"==",
        "a line feed behind": of_web() + b"\n",
        "a zero behind": of_web() + b"\0",
        "standard base64": of_web().partition(b".")[0] + b".a+b/." + of_web().rpartition(b".")[2],
        "JSON serialization": json.dumps({"payload": encoded(claims(WEB)), "signatures": []}).encode(),
        "a polyglot": b'{"%b":"","protected":"x"}' % of_web(),
        "not ASCII": of_web() + "\uff41".encode(),
    }.items():
        yield name, changed, Reason.MALFORMED
