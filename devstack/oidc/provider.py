"""What the provider remembers: its keys, who is signed in, and codes that wait to be exchanged.

Sources: OpenID Connect Core 1.0, RFC 6749 (codes), RFC 7636 (PKCE), RFC 9207 (`iss` in the answer).
"""

import hmac
import json
import secrets
from base64 import urlsafe_b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any
from uuid import uuid4

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm

from devstack.oidc.directory import Client, Person

CODE_SECONDS = 60
TOKEN_SECONDS = 300
ALGORITHM = "RS256"
SCOPES = {"email": ("email", "email_verified"), "profile": ("name", "preferred_username")}


class RequestRefused(Exception):
    """An OAuth error: its code, and what to do about it."""

    def __init__(self, error: str, description: str) -> None:
        super().__init__(description)
        self.error = error


@dataclass(frozen=True)
class Authorization:
    """A valid request of a client, before anybody has signed in."""

    client: Client
    redirect_uri: str
    state: str
    nonce: str
    challenge: str
    scopes: frozenset[str]
    prompt: str


@dataclass(frozen=True)
class _Code:
    authorization: Authorization
    person: Person
    authenticated_at: float
    expires_at: float


@dataclass
class SigningKey:
    kid: str = field(default_factory=lambda: uuid4().hex[:8])
    private: rsa.RSAPrivateKey = field(default_factory=lambda: rsa.generate_private_key(65537, 2048))

    def public(self) -> dict[str, Any]:
        jwk: dict[str, Any] = json.loads(RSAAlgorithm.to_jwk(self.private.public_key()))
        return {**jwk, "kid": self.kid, "use": "sig", "alg": ALGORITHM, "key_ops": ["verify"]}


class Provider:
    def __init__(self, issuer: str, clock: Callable[[], float]) -> None:
        self.issuer = issuer
        self.keys = [SigningKey()]
        self._clock = clock
        self._codes: dict[str, _Code] = {}
        self._access: dict[str, tuple[Person, frozenset[str], float]] = {}
        self._signed_in: dict[str, tuple[str, float]] = {}

    def rotate(self) -> None:
        """The new key signs; the one before it can still be read."""
        self.keys = [SigningKey(), *self.keys[:1]]

    def sign_in(self, person: Person) -> str:
        """The cookie of the person's session at the provider."""
        cookie = secrets.token_urlsafe(32)
        self._signed_in[cookie] = (person.username, self._clock())
        return cookie

    def signed_in(self, cookie: str) -> tuple[str, float] | None:
        """User name, and when the password was given."""
        return self._signed_in.get(cookie)

    def sign_out(self, cookie: str) -> None:
        self._signed_in.pop(cookie, None)

    def authorize(self, authorization: Authorization, person: Person, authenticated_at: float) -> str:
        """A code for the client."""
        code = secrets.token_urlsafe(32)
        self._codes[code] = _Code(authorization, person, authenticated_at, self._clock() + CODE_SECONDS)
        return code

    def exchange(self, client: Client, form: Mapping[str, str]) -> dict[str, Any]:
        """Tokens for a code. Raises RequestRefused."""
        if form.get("grant_type") != "authorization_code":
            raise RequestRefused("unsupported_grant_type", "only authorization_code is supported")
        code = self._codes.pop(form.get("code", ""), None)  # whoever failed with a code has used it up, too
        if code is None or code.expires_at < self._clock() or code.authorization.client != client:
            raise RequestRefused("invalid_grant", "the code is unknown, used, expired, or another client's")
        if form.get("redirect_uri") != code.authorization.redirect_uri:
            raise RequestRefused("invalid_grant", "the redirect_uri is not the one of the authorization request")
        if not hmac.compare_digest(challenge_of(form.get("code_verifier", "")), code.authorization.challenge):
            raise RequestRefused("invalid_grant", "the code_verifier does not fit the code_challenge")
        access_token = secrets.token_urlsafe(32)
        scopes = code.authorization.scopes
        self._access[access_token] = (code.person, scopes, self._clock() + TOKEN_SECONDS)
        return {
            "access_token": access_token,
            "token_type": "Bearer",
            "expires_in": TOKEN_SECONDS,
            "scope": " ".join(sorted(scopes)),
            "id_token": self._id_token(code, access_token),
        }

    def user_info(self, access_token: str) -> dict[str, Any] | None:
        person, scopes, expires_at = self._access.get(access_token, (None, frozenset[str](), 0.0))
        return None if person is None or expires_at < self._clock() else _claims(person, scopes)

    def _id_token(self, code: _Code, access_token: str) -> str:
        now, key = int(self._clock()), self.keys[0]
        thin = code.authorization.client.thin_id_tokens
        claims = {
            **({"sub": code.person.subject} if thin else _claims(code.person, code.authorization.scopes)),
            "iss": self.issuer,
            "aud": code.authorization.client.client_id,
            "iat": now,
            "exp": now + TOKEN_SECONDS,
            "auth_time": int(code.authenticated_at),
            "nonce": code.authorization.nonce,
            "at_hash": _encoded(sha256(access_token.encode()).digest()[:16]),
        }
        return jwt.encode(claims, key.private, ALGORITHM, {"kid": key.kid})


def _claims(person: Person, scopes: frozenset[str]) -> dict[str, Any]:
    """What these scopes show; what belongs to no scope is always shown."""
    hidden = {name for scope, names in SCOPES.items() if scope not in scopes for name in names}
    return {name: value for name, value in person.claims.items() if name not in hidden}


def challenge_of(verifier: str) -> str:
    """RFC 7636 section 4.2, S256."""
    return _encoded(sha256(verifier.encode()).digest())


def _encoded(raw: bytes) -> str:
    return urlsafe_b64encode(raw).rstrip(b"=").decode()
