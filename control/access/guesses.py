"""Limits guesses of the admin token: after some wrong tokens an address has to wait. Each process counts its own."""

from math import ceil
from typing import Final

from common.networks import address_of

BURST: Final = 10  # wrong tokens that an address has at once
SECONDS_EACH: Final = 6.0  # until it has another one
ADDRESSES_MAX: Final = 10_000
V6_PREFIX_BITS: Final = 64  # what one customer of a provider has


class TooManyGuesses(Exception):
    """The address has to wait, whatever its next token is: if the right one passed, that would show that it is
    right."""

    def __init__(self, retry_seconds: int, first: bool) -> None:
        super().__init__(retry_seconds)
        self.retry_seconds = retry_seconds
        self.first = first
        """Whether the address did not have to wait before."""


class Guesses:
    """A leaky bucket for each address, as the moment at which it will be empty again."""

    def __init__(self) -> None:
        self._empty_at: dict[str, float] = {}
        self._waiting: set[str] = set()

    def check(self, address: str, now: float) -> None:
        """`now` is of a clock that nobody sets back. Raises TooManyGuesses."""
        key = _key(address)
        wait = self._empty_at.get(key, now) - now - (BURST - 1) * SECONDS_EACH
        if wait > 0:
            first = key not in self._waiting
            self._waiting.add(key)
            raise TooManyGuesses(ceil(wait), first)
        self._waiting.discard(key)

    def count(self, address: str, now: float) -> None:
        """One was wrong."""
        key = _key(address)
        if key not in self._empty_at and len(self._empty_at) >= ADDRESSES_MAX:
            self._make_room(now)
        self._empty_at[key] = max(self._empty_at.get(key, now), now) + SECONDS_EACH

    def _make_room(self, now: float) -> None:
        self._empty_at = {key: empty_at for key, empty_at in self._empty_at.items() if empty_at > now}
        if len(self._empty_at) >= ADDRESSES_MAX:
            del self._empty_at[min(self._empty_at, key=self._empty_at.__getitem__)]
        self._waiting &= self._empty_at.keys()


def _key(address: str) -> str:
    parsed = address_of(address)
    if parsed is None or parsed.version == 4:
        return address
    return f"{int(parsed) >> (128 - V6_PREFIX_BITS):x}::/{V6_PREFIX_BITS}"
