"""A token and what the settings say of its issuer -> Claims. Only that issuer's algorithms, keys and audiences count.

Sources: RFC 7519 (claims), RFC 8725 (best practice), RFC 9068 (roles and scopes of access tokens).
"""

from collections.abc import Callable, Collection, Sequence
from typing import Any, Final, Protocol

from jwt import get_algorithm_by_name
from jwt.algorithms import Algorithm

from identity.claims import NONE, Claims
from identity.jws import UNFIT, Compact, text_of, time_of
from identity.keysets.jwk import Key
from identity.refusals import KeyRefreshDue, Reason, TokenRefused
from identity.settings import IssuerSettings
from quota.keys import is_org

SETS_SHARED_MAX: Final = 1024  # of roles or scopes: few differ, and one takes half the memory of remembered claims
KEYS_TRIED_MAX: Final = 4  # for a token without `kid`: anyone can cause these signature checks
_ABSENT: Final = object()


class Keys(Protocol):
    @property
    def usable(self) -> bool:
        """Whether there are any."""

    @property
    def due(self) -> bool:
        """Whether a token that no key verifies may cause a new read of the keys now."""

    def find(self, kid: str | None) -> Sequence[Key]:
        """The keys of that id, or all keys for a token that names none."""

    def on_removed(self, callback: Callable[[Collection[str]], None]) -> None:
        """Calls back with the ids of keys that are no longer trusted."""


class Issuer:
    def __init__(self, settings: IssuerSettings, keys: Keys) -> None:
        # PyJWT's algorithms are used directly: its decode() would parse the token again, at twenty times their cost.
        # A name that is missing here is refused.
        self._algorithms: dict[str, Algorithm] = {name: get_algorithm_by_name(name) for name in settings.algorithms}
        self._name = settings.issuer
        audience = settings.audience
        self._audience = frozenset((audience,) if isinstance(audience, str) else audience or ())
        # Clerk's tokens have no `azp` when the browser sent no origin. Clerk's own SDKs accept those, too.
        parties = settings.authorized_parties
        self._parties = None if parties is None else frozenset((*parties, None))
        self._org_claim = settings.org_claim
        self._user_claim = settings.user_claim
        self._roles_claim = settings.roles_claim
        self._scopes_claim = settings.scopes_claim
        self._leeway = settings.leeway_seconds
        self._keys = keys
        self._sets: dict[frozenset[str], frozenset[str]] = {}

    def claims(self, token: Compact, now: float) -> Claims:
        """Whom a token that names this issuer speaks for. Raises TokenRefused, or its subclass KeyRefreshDue."""
        signed_by = self._verify_signature(token)
        payload = token.payload
        expires = self._verify_times(payload, now)
        if not self._for_us(payload.get("aud", [])):
            raise TokenRefused(Reason.WRONG_AUDIENCE)
        if self._parties is not None and text_of(payload, "azp") not in self._parties:
            raise TokenRefused(Reason.WRONG_PARTY)
        subject = text_of(payload, "sub")
        if subject and UNFIT.search(subject):
            raise TokenRefused(Reason.MALFORMED)
        site = payload.get("site")  # a claim of our own tokens, which may mean something else in others
        return Claims(
            self._organization(payload),
            subject,
            expires + self._leeway,
            signed_by,
            user=_identifier(_found(payload, self._user_claim)),
            issued_at=time_of(payload, "iat"),
            issuer=self._name,
            token_id=_identifier(payload.get("jti", _ABSENT)),
            session=_identifier(payload.get("sid", _ABSENT)),
            site=site if isinstance(site, str) and not UNFIT.search(site) else None,
            roles=self._names(_found(payload, self._roles_claim)),
            scopes=self._scopes(payload),
        )

    def _verify_signature(self, token: Compact) -> str:
        """The id of the key that signed. Of the header only `alg` and `kid` are read: keys and addresses in it (`jwk`,
        `jku`, `x5c`, `x5u`) are claims of the sender that nothing proves."""
        name, kid = token.header.get("alg"), text_of(token.header, "kid")
        algorithm = self._algorithms.get(name) if isinstance(name, str) else None
        if algorithm is None:
            raise TokenRefused(Reason.WRONG_ALGORITHM)
        keys = self._keys.find(kid)
        if not keys:
            raise self._unverified(Reason.UNKNOWN_KEY if self._keys.usable else Reason.NO_KEYS)
        fitting = [key for key in keys if name in key.algorithms]
        if not fitting:
            raise self._unverified(Reason.WRONG_ALGORITHM)
        for key in fitting[:KEYS_TRIED_MAX]:
            if algorithm.verify(token.signed, key.material, token.signature):
                return key.id
        raise self._unverified(Reason.BAD_SIGNATURE)

    def _unverified(self, reason: Reason) -> TokenRefused:
        # The issuer may have replaced a key since the last read, also under the same `kid`.
        return KeyRefreshDue(reason, self._name) if self._keys.due else TokenRefused(reason)

    def _verify_times(self, payload: dict[str, Any], now: float) -> float:
        """When it expires, by its own words."""
        # PyJWT's own claim checks are not used: they read the wall clock and round times; here time is a parameter.
        expires = time_of(payload, "exp")
        if expires is None:
            raise TokenRefused(Reason.NO_EXPIRY)
        if expires + self._leeway <= now:
            raise TokenRefused(Reason.EXPIRED)
        for claim in ("nbf", "iat"):
            if (time_of(payload, claim) or 0) > now + self._leeway:
                raise TokenRefused(Reason.NOT_YET_VALID)
        return expires

    def _for_us(self, audience: Any) -> bool:
        named = [audience] if isinstance(audience, str) else audience
        if not isinstance(named, list) or not all(isinstance(name, str) for name in named):
            return False
        return not self._audience.isdisjoint(named) if self._audience else not named

    def _organization(self, payload: dict[str, Any]) -> str:
        claim = _found(payload, self._org_claim)
        if isinstance(claim, int) and not isinstance(claim, bool):
            claim = str(claim)
        if not isinstance(claim, str) or not is_org(claim):
            raise TokenRefused(Reason.NO_ORGANIZATION)
        return claim

    def _scopes(self, payload: dict[str, Any]) -> frozenset[str]:
        path = self._scopes_claim
        if path is None:
            path = "scope" if "scope" in payload else "scp"
        found = _found(payload, path)
        return self._names(found.split(" ") if isinstance(found, str) else found)

    def _names(self, value: Any) -> frozenset[str]:
        """Roles or scopes. What is none of the forms allows nothing."""
        if isinstance(value, str):
            value = [value]
        if not isinstance(value, list):
            return NONE
        names = frozenset([name for name in value if isinstance(name, str) and name and not UNFIT.search(name)])
        if len(self._sets) >= SETS_SHARED_MAX:
            self._sets.clear()
        return self._sets.setdefault(names, names)


def _found(payload: dict[str, Any], path: str | tuple[str, ...]) -> Any:
    """The claim at the path; `_ABSENT` where there is none."""
    if isinstance(path, str):
        path = (path,) if path in payload else tuple(path.split("."))
    claim: Any = payload
    for step in path:
        claim = claim.get(step, _ABSENT) if isinstance(claim, dict) else _ABSENT
    return claim


def _identifier(value: Any) -> str | None:
    """A name of the issuer's, of which access may be withdrawn, so that no other type passes for none; some issuers
    count instead of naming."""
    if value is _ABSENT:
        return None
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str) or UNFIT.search(value):
        raise TokenRefused(Reason.MALFORMED)
    return value or None
