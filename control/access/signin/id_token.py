"""An id token -> the claims of a person. Pure.

Keys are judged as everywhere here (`identity.keysets.jwk`: no weak ones, no shared secrets), PyJWT verifies the
signature, and Authlib the claims of OpenID Connect Core 1.0 section 3.1.3.7.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import jwt
from authlib.oidc.core import CodeIDToken
from joserfc.errors import JoseError

from control.settings.signin import IdentityProvider
from identity.keysets.jwk import Key

KEYS_TRIED_MAX: Final = 4
SUBJECT_CHARACTERS_MAX: Final = 255  # Core 1.0 section 2


class IdTokenRefused(Exception):
    """The provider's token does not say what it must. The message is for the log."""


class SignatureUnknown(IdTokenRefused):
    """None of the known keys made the signature: newer ones may be published."""


class AuthenticationTooWeak(IdTokenRefused):
    """The provider did not authenticate the person as the settings ask, such as with a second factor."""


def read(
    token: str, keys: Sequence[Key], provider: IdentityProvider, *, nonce: str, access_token: str | None, now: float
) -> Mapping[str, Any]:
    """Raises IdTokenRefused."""
    header, claims = _verified(token, keys, provider.algorithms)
    asked = {"nonce": nonce, "client_id": provider.client_id, "access_token": access_token}
    options = {
        "iss": {"essential": True, "value": provider.issuer},
        "aud": {"essential": True, "value": provider.client_id},
    }
    try:
        CodeIDToken(claims, header, options, asked).validate(now=int(now), leeway=provider.leeway_seconds)
    except (JoseError, ValueError, TypeError, AttributeError) as e:
        raise IdTokenRefused(f"a claim of the id token is not acceptable: {e}") from e
    subject = claims.get("sub")
    if not isinstance(subject, str) or not 0 < len(subject) <= SUBJECT_CHARACTERS_MAX or not _is_plain(subject):
        raise IdTokenRefused("the id token has no usable sub")
    _check_strength(claims, provider, now)
    return claims


def _verified(
    token: str, keys: Sequence[Key], algorithms: Sequence[str]
) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Header and claims."""
    try:
        header = jwt.get_unverified_header(token)
    except jwt.PyJWTError as e:
        raise IdTokenRefused(f"the id token is no JWT: {e}") from e
    algorithm, kid = header.get("alg"), header.get("kid")
    if algorithm not in algorithms:
        raise IdTokenRefused("the id token is signed with an algorithm that the settings do not name")
    fitting = [key for key in keys if algorithm in key.algorithms and kid in (None, key.kid)]
    for key in fitting[:KEYS_TRIED_MAX]:
        try:
            # The claims are looked at afterwards, all in one place.
            content = jwt.decode_complete(token, key.material, [str(algorithm)], options=_SIGNATURE_ONLY)
        except jwt.InvalidSignatureError:
            continue
        except jwt.PyJWTError as e:
            raise IdTokenRefused(f"the id token cannot be read: {e}") from e
        return content["header"], content["payload"]
    raise SignatureUnknown("none of the provider's keys made the signature of the id token")


_SIGNATURE_ONLY: Final[Any] = {
    "verify_signature": True,
    **{f"verify_{claim}": False for claim in ("exp", "nbf", "iat", "aud", "iss", "sub", "jti")},
}


def _is_plain(subject: str) -> bool:
    return subject.isascii() and subject.isprintable()


def _check_strength(claims: Mapping[str, Any], provider: IdentityProvider, now: float) -> None:
    if provider.require_acr and claims.get("acr") not in provider.require_acr:
        raise AuthenticationTooWeak("acr is none of those that are required")
    methods = claims.get("amr")
    if provider.require_amr and not set(provider.require_amr) <= set(methods if isinstance(methods, list) else ()):
        raise AuthenticationTooWeak("amr lacks a method that is required")
    if provider.max_age_seconds is not None:
        at = claims.get("auth_time")
        if not isinstance(at, int | float) or now - at > provider.max_age_seconds + provider.leeway_seconds:
            raise AuthenticationTooWeak("the person was authenticated too long ago, or the token does not say when")
