"""Bearer token -> Claims. PyJWT verifies a token once; after that a digest of it is enough until it expires.

Sources: RFC 6750 (bearer tokens, WWW-Authenticate), RFC 7515 (JWS), RFC 7519 (claims), RFC 8725 (best practice).
"""

import json
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as Base64Error
from collections.abc import Callable, Collection, Sequence
from enum import StrEnum
from hashlib import sha256
from typing import Any, Final, Protocol

from jwt import get_algorithm_by_name
from jwt.algorithms import Algorithm

from gateway.keysets import Key
from gateway.settings import Auth
from quota.claims import Claims
from quota.clock import Clock
from quota.keys import is_org

REALM: Final = "quotagate"
AUTHORIZATION_BYTES_MAX: Final = 8192 + len("Bearer ")
KEYS_TRIED_MAX: Final = 4  # for a token without `kid`: each try costs a signature check that anyone can ask for

_TOKEN: Final = re.compile(rb"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)")
_UNFIT: Final = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")  # in a field or a log: controls, and what has no encoding


class Reason(StrEnum):
    """Why a token is refused, for logs and metrics. The set is closed, so a label of it is bounded."""

    MISSING = "missing"
    INVALID_REQUEST = "invalid_request"
    MALFORMED = "malformed"
    UNSUPPORTED = "unsupported"
    WRONG_ALGORITHM = "wrong_algorithm"
    UNKNOWN_KEY = "unknown_key"
    BAD_SIGNATURE = "bad_signature"
    NO_EXPIRY = "no_expiry"
    EXPIRED = "expired"
    NOT_YET_VALID = "not_yet_valid"
    WRONG_ISSUER = "wrong_issuer"
    WRONG_AUDIENCE = "wrong_audience"
    NO_ORGANIZATION = "no_organization"


DESCRIPTIONS: Final = {
    Reason.MISSING: "a bearer token is required",
    Reason.INVALID_REQUEST: "the Authorization field is not one bearer token of at most 8 KiB",
    Reason.MALFORMED: "the token is malformed",
    Reason.UNSUPPORTED: "the token needs an extension that is not supported",
    Reason.WRONG_ALGORITHM: "the token is signed with an algorithm that is not accepted",
    Reason.UNKNOWN_KEY: "the token is signed with an unknown key",
    Reason.BAD_SIGNATURE: "the token's signature is wrong",
    Reason.NO_EXPIRY: "the token does not expire",
    Reason.EXPIRED: "the token has expired",
    Reason.NOT_YET_VALID: "the token is not yet valid",
    Reason.WRONG_ISSUER: "the token is from another issuer",
    Reason.WRONG_AUDIENCE: "the token is for another audience",
    Reason.NO_ORGANIZATION: "the token names no organization",
}
"""What the client is told: characters of RFC 6750 section 3 only, and nothing of the token or of the settings."""


def _challenge(reason: Reason) -> bytes:
    challenge = f'Bearer realm="{REALM}"'
    if reason is not Reason.MISSING:  # RFC 6750 section 3.1: no error for a request that tried no token
        error = "invalid_request" if reason is Reason.INVALID_REQUEST else "invalid_token"
        challenge += f', error="{error}", error_description="{DESCRIPTIONS[reason]}"'
    return challenge.encode()


CHALLENGES: Final = {reason: _challenge(reason) for reason in Reason}


class TokenRefused(Exception):
    """The request carries no token that is believed: 401."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(DESCRIPTIONS[reason])
        self.reason = reason

    @property
    def description(self) -> str:
        """What the client is told."""
        return DESCRIPTIONS[self.reason]

    @property
    def challenge(self) -> bytes:
        """The value of the WWW-Authenticate field."""
        return CHALLENGES[self.reason]


class UnknownKey(TokenRefused):
    """The key may be newer than the key set: ask for `KeySet.refresh_for(kid)`, then verify once more."""

    def __init__(self, kid: str) -> None:
        super().__init__(Reason.UNKNOWN_KEY)
        self.kid = kid


class Keys(Protocol):
    def find(self, kid: str | None) -> Sequence[Key]:
        """The keys of that id, or all keys for a token that names none."""

    def on_removed(self, callback: Callable[[Collection[str]], None]) -> None:
        """Call back with the ids of keys that are no longer believed."""


class TokenVerifier:
    def __init__(self, settings: Auth, keys: Keys, clock: Clock) -> None:
        # PyJWT's algorithms themselves, since its decode() would take the token apart once more at twenty times their
        # cost. A name that is not here is not looked up elsewhere.
        self._algorithms: dict[str, Algorithm] = {name: get_algorithm_by_name(name) for name in settings.algorithms}
        self._issuer = settings.issuer
        audience = settings.audience
        self._audience = frozenset((audience,) if isinstance(audience, str) else audience or ())
        self._org_claim = settings.org_claim
        self._leeway = settings.leeway_seconds
        self.epoch = 0
        """Grows when verified claims are forgotten: who kept some of an earlier epoch verifies anew."""
        self._keys = keys
        keys.on_removed(self.forget)
        self.clock = clock
        # Two generations: a full young one becomes the old one, and what the old one still held unused is forgotten.
        self._generation_max = settings.cache_entries_max // 2
        self._young: dict[bytes, Claims] = {}
        self._old: dict[bytes, Claims] = {}

    def verify(self, authorization: bytes | None) -> Claims:
        """Whom the value of the Authorization field speaks for. Raises TokenRefused, or its subclass UnknownKey."""
        if authorization is None:
            raise TokenRefused(Reason.MISSING)
        if len(authorization) > AUTHORIZATION_BYTES_MAX:
            raise TokenRefused(Reason.INVALID_REQUEST)
        # Not the text itself: a digest is as good, an eighth of the size, and no token lies in memory for long.
        digest = sha256(authorization).digest()
        claims = self._young.get(digest)
        if claims is None:
            claims = self._old.pop(digest, None) or self._examine(authorization)
            self._remember(digest, claims)
        if claims.expires_at <= self.clock():
            raise TokenRefused(Reason.EXPIRED)
        return claims

    def forget(self, key_ids: Collection[str]) -> None:
        """The keys are no longer believed: neither are the tokens that were verified with them."""
        self.epoch += 1
        self._young = {digest: claims for digest, claims in self._young.items() if claims.key_id not in key_ids}
        self._old = {digest: claims for digest, claims in self._old.items() if claims.key_id not in key_ids}

    def _remember(self, digest: bytes, claims: Claims) -> None:
        if len(self._young) >= self._generation_max:
            self._old, self._young = self._young, {}
        self._young[digest] = claims

    def _examine(self, authorization: bytes) -> Claims:
        token = _bearer_token(authorization)
        if not (segments := _TOKEN.fullmatch(token)):
            raise TokenRefused(Reason.MALFORMED)
        header, payload, signature = [_base64url(segment) for segment in segments.groups()]
        key_id = self._verify_signature(token[: segments.end(2)], signature, _json_object(header))
        return self._claims(_json_object(payload), key_id)

    def _verify_signature(self, signed: bytes, signature: bytes, header: dict[str, Any]) -> str:
        """The id of the key that signed. Of the header only `alg`, `kid`, `crit` and `b64` are read: keys and
        addresses that a token brings along (`jwk`, `jku`, `x5c`, `x5u`) are the sender's word."""
        if "crit" in header or header.get("b64", True) is not True:
            raise TokenRefused(Reason.UNSUPPORTED)
        name, kid = header.get("alg"), header.get("kid")
        if not isinstance(kid, str | None):
            raise TokenRefused(Reason.MALFORMED)
        algorithm = self._algorithms.get(name) if isinstance(name, str) else None
        if algorithm is None:
            raise TokenRefused(Reason.WRONG_ALGORITHM)
        keys = self._keys.find(kid)
        if not keys:
            raise UnknownKey(kid or "")
        fitting = [key for key in keys if name in key.algorithms]
        if not fitting:
            raise TokenRefused(Reason.WRONG_ALGORITHM)
        for key in fitting[:KEYS_TRIED_MAX]:
            if algorithm.verify(signed, key.material, signature):
                return key.id
        raise TokenRefused(Reason.BAD_SIGNATURE)

    def _claims(self, payload: dict[str, Any], key_id: str) -> Claims:
        # PyJWT's own claim checks read the wall clock and round times; here time is a parameter.
        now = self.clock()
        expires = _time(payload, "exp")
        if expires is None:
            raise TokenRefused(Reason.NO_EXPIRY)
        if expires + self._leeway <= now:
            raise TokenRefused(Reason.EXPIRED)
        for claim in ("nbf", "iat"):
            if (_time(payload, claim) or 0) > now + self._leeway:
                raise TokenRefused(Reason.NOT_YET_VALID)
        if payload.get("iss") != self._issuer:
            raise TokenRefused(Reason.WRONG_ISSUER)
        if not self._for_us(payload.get("aud")):
            raise TokenRefused(Reason.WRONG_AUDIENCE)
        subject = payload.get("sub")
        if not isinstance(subject, str | None) or (subject and _UNFIT.search(subject)):
            raise TokenRefused(Reason.MALFORMED)
        return Claims(self._organization(payload), subject, expires + self._leeway, key_id)

    def _for_us(self, audience: Any) -> bool:
        if not self._audience:
            return audience is None or audience == []
        named = [audience] if isinstance(audience, str) else audience
        return (
            isinstance(named, list)
            and all(isinstance(name, str) for name in named)
            and not self._audience.isdisjoint(named)
        )

    def _organization(self, payload: dict[str, Any]) -> str:
        path = self._org_claim
        if isinstance(path, str):
            path = (path,) if path in payload else tuple(path.split("."))
        found: Any = payload
        for step in path:
            found = found.get(step) if isinstance(found, dict) else None
        if isinstance(found, int) and not isinstance(found, bool):
            found = str(found)
        if not isinstance(found, str) or not is_org(found):
            raise TokenRefused(Reason.NO_ORGANIZATION)
        return found


def _bearer_token(authorization: bytes) -> bytes:
    scheme, _, rest = authorization.strip(b" \t").partition(b" ")
    if scheme.lower() != b"bearer":
        raise TokenRefused(Reason.MISSING)  # another scheme is no attempt at a token
    token = rest.lstrip(b" ")
    if not token or b" " in token or b"," in token:
        raise TokenRefused(Reason.INVALID_REQUEST)
    return token


def _base64url(segment: bytes) -> bytes:
    """Strict: a segment whose unused bits are set has two spellings of one token, so it is refused."""
    try:
        decoded = urlsafe_b64decode(segment + b"=" * (-len(segment) % 4))
    except Base64Error:
        raise TokenRefused(Reason.MALFORMED) from None
    if urlsafe_b64encode(decoded).rstrip(b"=") != segment:
        raise TokenRefused(Reason.MALFORMED)
    return decoded


def _json_object(text: bytes) -> dict[str, Any]:
    try:
        found = json.loads(text.decode(), object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise TokenRefused(Reason.MALFORMED) from None
    if not isinstance(found, dict):
        raise TokenRefused(Reason.MALFORMED)
    return found


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a member is given twice: parsers differ on which one counts")
    return found


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _time(payload: dict[str, Any], claim: str) -> float | None:
    """A NumericDate (RFC 7519 section 2) in seconds, None when absent."""
    value = payload.get(claim)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e15:
        raise TokenRefused(Reason.MALFORMED)
    return float(value)
