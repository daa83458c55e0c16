"""What a provider's claims say about a person. Pure."""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from control.settings.signin import Provider

NAME_CHARACTERS_MAX: Final = 200
EMAIL_CHARACTERS_MAX: Final = 254
_UNFIT: Final = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody whom a provider has identified."""

    issuer: str
    subject: str
    """The provider's own id of the person: it never changes, and an e-mail address may."""
    email: str | None
    """In lower case; None where the provider has not verified one."""
    name: str | None
    roles: frozenset[str]
    """The admin roles that the claim gives."""


def person_of(claims: Mapping[str, Any], provider: Provider) -> Person:
    email = _text(claims.get("email"), EMAIL_CHARACTERS_MAX)
    # Whoever may type any address into a profile must not get the role of the address's owner. Some providers send
    # this boolean as a text.
    said = claims.get("email_verified")
    verified = said is True or said == "true"
    name = _text(claims.get("name"), NAME_CHARACTERS_MAX) or _text(
        claims.get("preferred_username"), NAME_CHARACTERS_MAX
    )
    return Person(
        issuer=provider.issuer,
        subject=str(claims["sub"]),
        email=email.lower() if email is not None and verified else None,
        name=name,
        roles=roles_of(claims, provider.roles_claim, provider.roles),
    )


def roles_of(claims: Mapping[str, Any], path: str | None, roles: Mapping[str, str]) -> frozenset[str]:
    return frozenset(roles[value] for value in texts_at(claims, path) if value in roles)


def texts_at(claims: Mapping[str, Any], path: str | None) -> Sequence[str]:
    """The claim may be a text, a list of texts, or an object whose names count."""
    found = None if path is None else value_at(claims, path)
    values: Collection[Any] = [found] if isinstance(found, str) else found if isinstance(found, list | dict) else ()
    return [value for value in values if isinstance(value, str)]


def value_at(claims: Mapping[str, Any], path: str) -> Any:
    """The claim of this whole name, which may be an address with dots in it; otherwise the one at the end of the
    path."""
    if path in claims:
        return claims[path]
    value: Any = claims
    for name in path.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _text(value: Any, characters_max: int) -> str | None:
    if not isinstance(value, str) or not 0 < len(value) <= characters_max or _UNFIT.search(value):
        return None
    return value
