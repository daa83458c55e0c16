"""Token -> Claims, by what the settings say of its issuer. A token is verified once; after that a digest of it is
enough until it expires. This module does not know where in a request the token is.
"""

from collections.abc import Collection, Mapping
from functools import partial
from hashlib import sha256

from common.clock import Clock
from identity.api_key import ApiKeys
from identity.bearer import TOKEN_BYTES_MAX, bearer_token
from identity.claims import Claims
from identity.issuer import Issuer, Keys
from identity.jws import parse
from identity.refusals import ApiKeyPresented, Reason, TokenRefused
from identity.settings import Auth


class TokenVerifier:
    def __init__(self, settings: Auth, keys: Mapping[str, Keys], clock: Clock) -> None:
        """`keys` are those of each issuer, by its name."""
        self._api_keys = ApiKeys(settings.keys)
        self._issuers = {each.issuer: Issuer(each, keys[each.issuer]) for each in settings.trusted}
        self.epoch = 0
        """Grows when verified claims are dropped: a caller that stored claims of an earlier epoch must verify again."""
        for issuer in self._issuers:
            keys[issuer].on_removed(partial(self.forget, issuer))
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
            raise _expired(claims, digest)
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
            raise _expired(claims, digest)
        return claims

    def remember(self, digest: bytes, claims: Claims) -> None:
        """Also for what was looked up: `digest` is `ApiKeyPresented.remembered_as`."""
        if len(self._young) >= self._generation_max:
            self._old, self._young = self._young, {}
        self._young[digest] = claims

    def forget(self, issuer: str, key_ids: Collection[str]) -> None:
        """Drops the claims of tokens that these keys of the issuer verified, since they are no longer trusted."""
        self.epoch += 1
        self._young = _others(self._young, issuer, key_ids)
        self._old = _others(self._old, issuer, key_ids)

    def _examine(self, token: bytes, digest: bytes) -> Claims:
        key = self._api_keys.digest16(token)
        if key is not None:
            raise ApiKeyPresented(key, digest)
        parsed = parse(token)
        # The name decides only who judges, before anything is verified: whoever names an issuer must be signed by it.
        name = parsed.payload.get("iss")
        issuer = self._issuers.get(name) if isinstance(name, str) else None
        if issuer is None:
            raise TokenRefused(Reason.WRONG_ISSUER)
        return issuer.claims(parsed, self.clock())


def _others(known: dict[bytes, Claims], issuer: str, key_ids: Collection[str]) -> dict[bytes, Claims]:
    return {
        digest: claims for digest, claims in known.items() if claims.issuer != issuer or claims.signed_by not in key_ids
    }


def _expired(claims: Claims, digest: bytes) -> TokenRefused:
    """A key's expiry may have been put off since it was looked up."""
    return TokenRefused(Reason.EXPIRED) if claims.api_key is None else ApiKeyPresented(claims.api_key, digest)
