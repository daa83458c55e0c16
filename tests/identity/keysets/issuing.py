"""An issuer of keys over real HTTP, and a clock that only the test moves."""

import asyncio
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from identity.issuer import Keys
from identity.refusals import TokenRefused
from identity.settings import Algorithm, Auth, IssuerSettings
from identity.tokens import TokenVerifier

CONFIGURATION = "/.well-known/openid-configuration"
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


class Issuer:
    """A real HTTP server that answers with what the test put there, and counts."""

    def __init__(self) -> None:
        self.body = key_set(public(OLD_KEY, "old"))
        self.status = 200
        self.fields: dict[str, str] = {}
        self.bodies: dict[str, bytes] = {}
        """By path, in place of `body`."""
        self.asked = 0
        self.paths: list[str] = []
        self.answering = threading.Event()
        self.answering.set()
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                issuer.asked += 1
                issuer.paths.append(self.path)
                issuer.answering.wait()
                self.send_response(issuer.status)
                for name, value in issuer.fields.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(issuer.bodies.get(self.path, issuer.body))

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.origin = f"http://127.0.0.1:{self.server.server_port}"
        self.url = f"{self.origin}/keys"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def publishes(self, *jwks: dict[str, Any], name: str | None = None) -> None:
        """A configuration (of this issuer, or of another `name`), and these keys where it says that they are."""
        configuration = {"issuer": name or self.origin, "jwks_uri": self.url}
        self.bodies = {CONFIGURATION: json.dumps(configuration).encode(), "/keys": key_set(*jwks)}

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


def settings(source: str, **changes: Any) -> IssuerSettings:
    return IssuerSettings(algorithms=ACCEPTED, jwks=source, issuer="issuer", **changes)


def verifier_with(source: str, keys: Keys, **changes: Any) -> TokenVerifier:
    """Of the one issuer that has these keys."""
    return TokenVerifier(Auth(issuers=(settings(source, **changes),)), {"issuer": keys}, lambda: NOW)


def verified(verifier: TokenVerifier, token: bytes) -> str:
    """The organization, or the reason of the refusal."""
    try:
        return verifier.verify(token).org
    except TokenRefused as refused:
        return refused.reason
