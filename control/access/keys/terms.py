"""What is decided about a key, what of it the journal says, and what a hash from elsewhere looks like. Pure."""

import re
import secrets
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import Enum
from typing import Any, Final, TypedDict

from control.entitlements.rates import RateColumns, rate_columns, rate_content, rate_of
from control.sql.keys import Key
from quota.access import Quota
from quota.model import RateLimit

ID_CHARACTERS: Final = 12
SHOWN_CHARACTERS: Final = 4  # of the random part: enough to tell keys apart, and nothing to guess the rest from
GRACE_SECONDS_MAX: Final = 30 * 86_400
_ALPHABET: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_HEX: Final = re.compile(r"[0-9a-fA-F]{64}")
_BASE64: Final = re.compile(r"[A-Za-z0-9+/_-]{43}=?")


class State(Enum):
    """What is stored. That a key has expired follows from the time."""

    ACTIVE = "active"
    DISABLED = "disabled"
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True)
class Terms:
    """What can be changed about a key."""

    name: str
    scopes: tuple[str, ...] = ()
    networks: tuple[str, ...] = ()
    quotas: tuple[Quota, ...] = ()
    rate: RateLimit | None = None
    expires_at: datetime | None = None
    enabled: bool = True


@dataclass(frozen=True, slots=True)
class Identity:
    """What stays as it is for a key's whole life."""

    digest: bytes
    """SHA-256 of the key, 32 bytes."""
    environment: str
    user: str | None = None
    starts_with: str = ""
    last_four: str | None = None
    imported: bool = False


class TermColumns(RateColumns):
    name: str
    scopes: list[str]
    networks: list[str]
    quotas: list[list[Any]]
    state: str
    expires_at: datetime | None


class IdentityColumns(TypedDict):
    digest: bytes
    environment: str
    user_id: str | None
    starts_with: str
    last_four: str | None
    imported: bool


def terms_of(key: Key) -> Terms:
    return Terms(
        name=key.name,
        scopes=tuple(key.scopes),
        networks=tuple(key.networks),
        quotas=quotas_of(key.quotas),
        rate=rate_of(key.rate_requests, key.rate_seconds, key.rate_burst),
        expires_at=key.expires_at,
        enabled=key.state == State.ACTIVE.value,
    )


def term_columns(terms: Terms) -> TermColumns:
    return {
        "name": terms.name,
        "scopes": list(terms.scopes),
        "networks": list(terms.networks),
        "quotas": [list(quota) for quota in terms.quotas],
        "state": (State.ACTIVE if terms.enabled else State.DISABLED).value,
        "expires_at": terms.expires_at,
        **rate_columns(terms.rate),
    }


def identity_columns(identity: Identity) -> IdentityColumns:
    return {
        "digest": identity.digest,
        "environment": identity.environment,
        "user_id": identity.user,
        "starts_with": identity.starts_with,
        "last_four": identity.last_four,
        "imported": identity.imported,
    }


def quotas_of(stored: list[list[Any]]) -> tuple[Quota, ...]:
    return tuple(Quota(*each) for each in stored)


def identity_of(text: str, digest: bytes, environment: str, user: str | None) -> Identity:
    """Of a key that was just made. It keeps what people recognise it by, and not the text."""
    begins = text.rindex("_", 0, text.rindex("_")) + 1 + SHOWN_CHARACTERS
    return Identity(digest, environment, user, text[:begins], text[-SHOWN_CHARACTERS:])


def new_id() -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(ID_CHARACTERS))


def rolled(terms: Terms, grace_seconds: int, ends_at: datetime) -> Terms:
    """What the old key is after a roll: with a grace it expires at its end, without one it is revoked instead."""
    if grace_seconds == 0 or (terms.expires_at is not None and terms.expires_at <= ends_at):
        return terms
    return replace(terms, expires_at=ends_at)


def digest_of_hash(text: str) -> bytes | None:
    """The SHA-256 that an import names, in hex or in base64; None for anything else."""
    if _HEX.fullmatch(text):
        return bytes.fromhex(text)
    if not _BASE64.fullmatch(text):
        return None
    try:
        digest = b64decode(text.rstrip("=").replace("-", "+").replace("_", "/") + "=", validate=True)
    except Base64Error:
        return None
    return digest if len(digest) == 32 else None


def journaled(key_id: str, terms: Terms, identity: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """For the journal: nothing that a key could be found by, or computed from."""
    content: dict[str, Any] = {"id": key_id, **(identity or {}), "name": terms.name, "enabled": terms.enabled}
    if terms.scopes:
        content["scopes"] = list(terms.scopes)
    if terms.networks:
        content["networks"] = list(terms.networks)
    if terms.quotas:
        content["quotas"] = [quota._asdict() for quota in terms.quotas]
    if terms.rate is not None:
        content["rate"] = rate_content(terms.rate)
    if terms.expires_at is not None:
        content["expires_at"] = terms.expires_at.isoformat()
    return content


def journaled_identity(environment: str, user: str | None) -> dict[str, Any]:
    return {"environment": environment, **({"user": user} if user else {})}
