"""Token -> Claims. PyJWT verifies a token once; after that a digest of it is enough until it expires.

Sources: RFC 7515 (JWS), RFC 7519 (claims), RFC 8725 (best practice). This module does not know
where in a request the token is.
"""

import json
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as Base64Error
from collections.abc import Callable, Collection, Sequence
from hashlib import sha256
from typing import Any, Final, Protocol

from jwt import get_algorithm_by_name
from jwt.algorithms import Algorithm

from common.clock import Clock
from identity.api_key import ApiKeys
from identity.bearer import TOKEN_BYTES_MAX, bearer_token
from identity.claims import Claims
from identity.jwk import Key
from identity.refusals import ApiKeyPresented, KeyRefreshDue, Reason, TokenRefused
from identity.settings import Auth
from quota.keys import is_org

KEYS_TRIED_MAX: Final = 4  # for a token without `kid`: anyone can cause these signature checks
TIME_SECONDS_END: Final = 10**15  # since the epoch

_TOKEN: Final = re.compile(rb"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)")
_UNFIT: Final = re.compile(
    r"[\x00-\x1f\x7f\ud800-\udfff]"
)  # not for a field or a log: control characters, and what has no encoding
_ABSENT: Final = object()


class Keys(Protocol):
    @property
    def due(self) -> bool:
        """Whether a token that no key verifies may cause a new read of the keys now."""

    def find(self, kid: str | None) -> Sequence[Key]:
        """The keys of that id, or all keys for a token that names none."""

    def on_removed(self, callback: Callable[[Collection[str]], None]) -> None:
        """Calls back with the ids of keys that are no longer trusted."""


class TokenVerifier:
    def __init__(self, settings: Auth, keys: Keys, clock: Clock) -> None:
        # PyJWT's algorithms are used directly: its decode() would parse the token again, at twenty times their cost.
        # A name that is missing here is refused.
        self._algorithms: dict[str, Algorithm] = {name: get_algorithm_by_name(name) for name in settings.algorithms}
        self._issuer = settings.issuer
        audience = settings.audience
        self._audience = frozenset((audience,) if isinstance(audience, str) else audience or ())
        # Clerk's tokens have no `azp` when the browser sent no origin. Clerk's own SDKs accept those, too.
        parties = settings.authorized_parties
        self._parties = None if parties is None else frozenset((*parties, None))
        self._org_claim = settings.org_claim
        self._leeway = settings.leeway_seconds
        self.epoch = 0
        """Grows when verified claims are dropped: a caller that stored claims of an earlier epoch must verify again."""
        self._api_keys = ApiKeys(settings.keys)
        self._keys = keys
        keys.on_removed(self.forget)
        self.clock = clock
        # Two generations: a full young one replaces the old one, and claims that were not used since are dropped.
        self._generation_max = settings.cache_entries_max // 2
        self._young: dict[bytes, Claims] = {}
        self._old: dict[bytes, Claims] = {}

    def verify(self, token: bytes) -> Claims:
        """Whom the token speaks for. Raises TokenRefused, or its subclass KeyRefreshDue; for an API key that is not
        remembered, its subclass ApiKeyPresented."""
        if len(token) > TOKEN_BYTES_MAX:
            raise TokenRefused(Reason.INVALID_REQUEST)
        # A digest instead of the text: it identifies the token as well at an eighth of the size, and no token stays in
        # memory. No field begins with a line feed, so this digest is never that of a field (`verify_field`).
        digest = sha256(b"\n" + token).digest()
        claims = self._young.get(digest)
        if claims is None:
            claims = self._old.pop(digest, None) or self._examine(token, digest)
            self.remember(digest, claims)
        if claims.expires_at <= self.clock():
            raise TokenRefused(Reason.EXPIRED)
        return claims

    def verify_field(self, authorization: bytes | None) -> Claims:
        """As `verify`, for the value of the Authorization field. A value that was verified before is not parsed."""
        if authorization is None:
            raise TokenRefused(Reason.MISSING)
        digest = sha256(authorization).digest()
        claims = self._young.get(digest)
        if claims is None:
            claims = self._old.pop(digest, None) or self._examine(bearer_token(authorization), digest)
            self.remember(digest, claims)
        if claims.expires_at <= self.clock():
            raise TokenRefused(Reason.EXPIRED)
        return claims

    def forget(self, key_ids: Collection[str]) -> None:
        """Drops the claims of tokens that these keys verified, since the keys are no longer trusted."""
        self.epoch += 1
        self._young = {digest: claims for digest, claims in self._young.items() if claims.signed_by not in key_ids}
        self._old = {digest: claims for digest, claims in self._old.items() if claims.signed_by not in key_ids}

    def remember(self, digest: bytes, claims: Claims) -> None:
        """Also for what was looked up: `digest` is `ApiKeyPresented.remembered_as`."""
        if len(self._young) >= self._generation_max:
            self._old, self._young = self._young, {}
        self._young[digest] = claims

    def _examine(self, token: bytes, digest: bytes) -> Claims:
        key = self._api_keys.digest16(token)
        if key is not None:
            raise ApiKeyPresented(key, digest)
        if not (segments := _TOKEN.fullmatch(token)):
            raise TokenRefused(Reason.MALFORMED)
        header, payload, signature = [_base64url(segment) for segment in segments.groups()]
        key_id = self._verify_signature(token[: segments.end(2)], signature, _json_object(header))
        return self._claims(_json_object(payload), key_id)

    def _verify_signature(self, signed: bytes, signature: bytes, header: dict[str, Any]) -> str:
        """The id of the key that signed. Of the header only `alg`, `kid`, `crit` and `b64` are read: keys and
        addresses in it (`jwk`, `jku`, `x5c`, `x5u`) are claims of the sender that nothing proves."""
        if "crit" in header or header.get("b64", True) is not True:
            raise TokenRefused(Reason.UNSUPPORTED)
        name, kid = header.get("alg"), _text(header, "kid")
        algorithm = self._algorithms.get(name) if isinstance(name, str) else None
        if algorithm is None:
            raise TokenRefused(Reason.WRONG_ALGORITHM)
        keys = self._keys.find(kid)
        if not keys:
            raise self._unverified(Reason.UNKNOWN_KEY)
        fitting = [key for key in keys if name in key.algorithms]
        if not fitting:
            raise self._unverified(Reason.WRONG_ALGORITHM)
        for key in fitting[:KEYS_TRIED_MAX]:
            if algorithm.verify(signed, key.material, signature):
                return key.id
        raise self._unverified(Reason.BAD_SIGNATURE)

    def _unverified(self, reason: Reason) -> TokenRefused:
        # The issuer may have replaced a key since the last read, also under the same `kid`.
        return KeyRefreshDue(reason) if self._keys.due else TokenRefused(reason)

    def _claims(self, payload: dict[str, Any], key_id: str) -> Claims:
        # PyJWT's own claim checks are not used: they read the wall clock and round times; here time is a parameter.
        # A registered claim that is null has none of RFC 7519's types: it is refused, and not treated as absent.
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
        if not self._for_us(payload.get("aud", [])):
            raise TokenRefused(Reason.WRONG_AUDIENCE)
        if self._parties is not None and _text(payload, "azp") not in self._parties:
            raise TokenRefused(Reason.WRONG_PARTY)
        subject = _text(payload, "sub")
        if subject and _UNFIT.search(subject):
            raise TokenRefused(Reason.MALFORMED)
        return Claims(
            self._organization(payload),
            subject,
            expires + self._leeway,
            key_id,
            user=subject,
            issued_at=_time(payload, "iat"),
            issuer=self._issuer,
            token_id=_identifier(payload, "jti"),
            session=_identifier(payload, "sid"),
        )

    def _for_us(self, audience: Any) -> bool:
        named = [audience] if isinstance(audience, str) else audience
        if not isinstance(named, list) or not all(isinstance(name, str) for name in named):
            return False
        return not self._audience.isdisjoint(named) if self._audience else not named

    def _organization(self, payload: dict[str, Any]) -> str:
        path = self._org_claim
        if isinstance(path, str):
            path = (path,) if path in payload else tuple(path.split("."))
        claim: Any = payload
        for step in path:
            claim = claim.get(step) if isinstance(claim, dict) else None
        if isinstance(claim, int) and not isinstance(claim, bool):
            claim = str(claim)
        if not isinstance(claim, str) or not is_org(claim):
            raise TokenRefused(Reason.NO_ORGANIZATION)
        return claim


def _base64url(segment: bytes) -> bytes:
    """Refuses a segment whose unused bits are set: one token would have two spellings."""
    try:
        decoded = urlsafe_b64decode(segment + b"=" * (-len(segment) % 4))
    except Base64Error:
        raise TokenRefused(Reason.MALFORMED) from None
    if urlsafe_b64encode(decoded).rstrip(b"=") != segment:
        raise TokenRefused(Reason.MALFORMED)
    return decoded


def _json_object(text: bytes) -> dict[str, Any]:
    try:
        members = json.loads(text.decode(), object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise TokenRefused(Reason.MALFORMED) from None
    if not isinstance(members, dict):
        raise TokenRefused(Reason.MALFORMED)
    return members


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        raise ValueError("a member occurs twice, and parsers differ on which one counts")
    return members


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _text(members: dict[str, Any], name: str) -> str | None:
    """A string; None when it is absent."""
    value = members.get(name, _ABSENT)
    if value is _ABSENT:
        return None
    if not isinstance(value, str):
        raise TokenRefused(Reason.MALFORMED)
    return value


def _identifier(members: dict[str, Any], name: str) -> str | None:
    """As `_text`, but some issuers number what they name."""
    value = members.get(name)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    text = _text(members, name)
    if text is not None and _UNFIT.search(text):
        raise TokenRefused(Reason.MALFORMED)
    return text


def _time(payload: dict[str, Any], claim: str) -> float | None:
    """A NumericDate (RFC 7519 section 2) in seconds; None when it is absent."""
    value = payload.get(claim, _ABSENT)
    if value is _ABSENT:
        return None
    if isinstance(value, float):
        if -TIME_SECONDS_END < value < TIME_SECONDS_END:
            return value
    # Compared as an integer, since it may have more digits than a float can.
    elif isinstance(value, int) and not isinstance(value, bool) and -TIME_SECONDS_END < value < TIME_SECONDS_END:
        return float(value)
    raise TokenRefused(Reason.MALFORMED)
