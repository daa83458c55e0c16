"""What each signing key does at a moment, and when the next one is due. Pure.

    waiting --signs_from--> signing --the next one signs--> verifying --its last token has expired--> leaving
                                                                          any of them --retire--> retired

A waiting key is published and does not sign: who verifies has read it before it does. A leaving key is out of the key
set already, and its private part is destroyed by the next look.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from control.access.issuing.key_pairs import Algorithm

MARGIN_SECONDS: Final = 60
"""For a clock that differs, an answer that is slow, and the leeway of those who verify."""
CACHE_SECONDS_MIN: Final = 30  # the gateway reads no key set more often (identity/keysets.py)


class KeyState(Enum):
    WAITING = "waiting"
    SIGNING = "signing"
    VERIFYING = "verifying"
    LEAVING = "leaving"
    RETIRED = "retired"

    @property
    def published(self) -> bool:
        return self in (KeyState.WAITING, KeyState.SIGNING, KeyState.VERIFYING)


@dataclass(frozen=True, slots=True)
class StoredKey:
    """As it is in the database; moments are seconds since 1970."""

    id: str
    algorithm: Algorithm
    public_jwk: dict[str, Any]
    sealed: bytes | None
    """The private part; None: it is destroyed."""
    created_s: float
    signs_from_s: float
    token_seconds: int
    """The longest life of a token that it may have signed."""
    retired_s: float | None


@dataclass(frozen=True, slots=True)
class KeyLife:
    """A key with what follows from the others."""

    key: StoredKey
    state: KeyState
    stops_s: float | None
    """When the next one signs; None: there is none."""
    leaves_s: float | None
    """When it leaves the key set."""


def lives(keys: Sequence[StoredKey], now: float) -> list[KeyLife]:
    """The oldest first."""
    kept = sorted((key for key in keys if key.retired_s is None), key=lambda key: (key.signs_from_s, key.id))
    stops = [*(key.signs_from_s for key in kept[1:]), None]
    return [
        *(KeyLife(key, KeyState.RETIRED, None, key.retired_s) for key in keys if key.retired_s is not None),
        *(_life(key, stops_s, now) for key, stops_s in zip(kept, stops, strict=False)),
    ]


def _life(key: StoredKey, stops_s: float | None, now: float) -> KeyLife:
    leaves_s = None if stops_s is None else stops_s + key.token_seconds + MARGIN_SECONDS
    if now < key.signs_from_s:
        state = KeyState.WAITING
    elif stops_s is None or leaves_s is None or now < stops_s:
        state = KeyState.SIGNING
    else:
        state = KeyState.VERIFYING if now < leaves_s else KeyState.LEAVING
    return KeyLife(key, state, stops_s, leaves_s)


def of_state(of_all: Sequence[KeyLife], state: KeyState) -> list[KeyLife]:
    return [life for life in of_all if life.state is state]


def overlap_seconds(jwks_max_age_seconds: int) -> int:
    """For how long a new key is published before it signs: longer than the key set is kept anywhere."""
    return max(jwks_max_age_seconds, CACHE_SECONDS_MIN) + MARGIN_SECONDS


def is_due(of_all: Sequence[KeyLife], rotate_seconds: float, now: float) -> bool:
    """Whether the newest key has signed for so long, or there is none."""
    newest = max((life.key.signs_from_s for life in of_all if life.state is not KeyState.RETIRED), default=None)
    return newest is None or newest + rotate_seconds <= now
