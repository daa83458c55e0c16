"""What sessions and one-time links of console and portal have in common: secrets, of which only a hash is stored, and
when each of them ends."""

import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Final, Self

SECRET_BYTES: Final = 32
BROWSER_CHARACTERS_MAX: Final = 300
TOUCH_SECONDS: Final = 60.0  # of idleness nobody needs to know more exactly, and each use would be a write
KEPT: Final = timedelta(days=30)  # after its end
LISTED_MAX: Final = 500


@dataclass(frozen=True, slots=True)
class Seen:
    """From where a person signed in, for people who look at the list."""

    address: str
    browser: str

    @property
    def browser_stored(self) -> str:
        return self.browser[:BROWSER_CHARACTERS_MAX].replace("\x00", "")


@dataclass(frozen=True, slots=True)
class Lifetimes:
    idle: timedelta
    """A session that was not used for so long has ended."""
    lasts: timedelta
    """After so long it has ended in any case."""

    @classmethod
    def of(cls, idle_minutes: float, session_hours: float) -> Self:
        return cls(timedelta(minutes=idle_minutes), timedelta(hours=session_hours))

    def is_touched(self, used_at: datetime, now: datetime) -> bool:
        """Whether a use is written down, which puts off the end by idleness."""
        return now - used_at > min(timedelta(seconds=TOUCH_SECONDS), self.idle / 2)


@dataclass(frozen=True, slots=True, repr=False)
class Link:
    """Opens a session once."""

    code: str
    expires_at: datetime

    @classmethod
    def new(cls, at: datetime, minutes: float) -> Self:
        return cls(new_secret(), at + timedelta(minutes=minutes))


def new_secret() -> str:
    return secrets.token_urlsafe(SECRET_BYTES)


def digest_of(secret: str) -> bytes:
    """What is stored. The secret is random, so a plain hash is enough."""
    return sha256(secret.encode("utf-8", "surrogatepass")).digest()
