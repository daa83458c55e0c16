"""Limits guesses of secrets: after some wrong ones an address has to wait, and so does whoever tries at one secret.

    await ctx.guesses.check(Guess.ACTIVATION, client, code_id)   # raises TooManyGuesses: 429
    …look the secret up, compare it in constant time…
    await ctx.guesses.count(Guess.ACTIVATION, client, code_id)   # it was wrong, or there is none: the same answer

An endpoint that takes secrets also has `dependencies=[TakesSecrets]` (control/http/secrets.py).

All processes count together, in Redis. While Redis is away each process counts alone.
"""

import asyncio
from dataclasses import dataclass
from enum import Enum
from hashlib import sha256
from math import ceil
from typing import Final

import structlog

from common.clock import Clock, system_clock
from common.networks import address_of
from quota.calls.guesses import decode_guess, guess_call
from quota.ledger import Ledger, LedgerUnavailable

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Limit:
    at_once: int
    each_ms: int
    """Until there is another one."""


WRONG: Final = Limit(10, 6000)
REQUESTS: Final = Limit(100, 200)
"""Of an address, at all endpoints that take secrets, right ones too. Many sites of one host have one address."""
NAMES_MAX: Final = 10_000  # that a process remembers
V6_PREFIX_BITS: Final = 64  # what one customer of a provider has
REDIS_SECONDS: Final = 0.25  # who calls waits no longer for a count
PAUSE_SECONDS: Final = 5.0  # without Redis, after it did not answer


Bucket = tuple[str, str]
"""What is limited, and of whom: both are in its name in Redis."""


class Guess(Enum):
    """What is guessed. Each kind has its own buckets; the value is its name in Redis."""

    BEARER = "bearer"
    """The bearer token of an admin or of a machine."""
    ACTIVATION = "activation"
    REFRESH = "refresh"
    SIGN_IN = "sign_in"
    KEY = "key"
    """A report of keys that were found in public, by its signature."""


class TooManyGuesses(Exception):
    """They have to wait, whatever the next try is: if the right one passed, that would show that it is right."""

    def __init__(self, retry_seconds: int, first: bool) -> None:
        super().__init__(retry_seconds)
        self.retry_seconds = retry_seconds
        self.first = first
        """Whether they did not have to wait before."""


class Guesses:
    def __init__(self, ledger: Ledger | None = None, clock: Clock = system_clock) -> None:
        """`ledger`: the Redis in which all processes count; None: this one counts alone."""
        self._ledger = ledger
        self._clock = clock
        self._wrong = Buckets(WRONG)
        self._requests = Buckets(REQUESTS)
        self._waiting: set[Bucket] = set()
        self._without_redis_until = float("-inf")

    async def check(self, kind: Guess, address: str, subject: str = "") -> None:
        """`subject`: what names the secret among others, such as the id of a code, or all of it; empty: none does. It
        is stored as a digest. Raises TooManyGuesses."""
        now_ms = self._now_ms()
        for name in _names(address, subject):
            bucket = (kind.value, name)
            wait_ms = self._wrong.wait_ms(bucket, now_ms) or await self._in_redis(bucket, WRONG, now_ms, adds=False)
            self._refuse(bucket, wait_ms)

    async def count(self, kind: Guess, address: str, subject: str = "") -> None:
        """One was wrong."""
        now_ms = self._now_ms()
        for name in _names(address, subject):
            self._wrong.add((kind.value, name), now_ms)
            await self._in_redis((kind.value, name), WRONG, now_ms, adds=True)

    async def admit(self, address: str) -> None:
        """A request of an endpoint that takes secrets, whatever comes of it. Raises TooManyGuesses."""
        now_ms, bucket = self._now_ms(), ("requests", network_of(address))
        wait_ms = self._requests.wait_ms(bucket, now_ms)
        if not wait_ms:
            self._requests.add(bucket, now_ms)
            wait_ms = await self._in_redis(bucket, REQUESTS, now_ms, adds=True)
        self._refuse(bucket, wait_ms)

    def _now_ms(self) -> int:
        return int(self._clock() * 1000)

    def _refuse(self, bucket: Bucket, wait_ms: int) -> None:
        if wait_ms <= 0:
            self._waiting.discard(bucket)
            return
        first = bucket not in self._waiting
        if len(self._waiting) < NAMES_MAX:
            self._waiting.add(bucket)
        raise TooManyGuesses(ceil(wait_ms / 1000), first)

    async def _in_redis(self, bucket: Bucket, limit: Limit, now_ms: int, *, adds: bool) -> int:
        """The ms to wait; 0 also where nobody knows."""
        loop = asyncio.get_running_loop()
        if self._ledger is None or loop.time() < self._without_redis_until:
            return 0
        call = guess_call(*bucket, now_ms, tries=limit.at_once, each_ms=limit.each_ms, adds=adds)
        try:
            async with asyncio.timeout(REDIS_SECONDS):
                return decode_guess(await self._ledger.run(call))
        except (LedgerUnavailable, TimeoutError) as e:
            self._without_redis_until = loop.time() + PAUSE_SECONDS
            log.warning("guesses are counted by this process alone", reason=str(e) or "Redis did not answer in time")
            return 0


class Buckets:
    """Leaky buckets of this process, each as the moment in ms at which it will be empty again. Bounded."""

    def __init__(self, limit: Limit) -> None:
        self._limit = limit
        self._empty_at: dict[Bucket, int] = {}

    def __len__(self) -> int:
        return len(self._empty_at)

    def wait_ms(self, bucket: Bucket, now_ms: int) -> int:
        at_once, each_ms = self._limit.at_once, self._limit.each_ms
        # A clock that was set back must not keep anybody out for longer than a full bucket does.
        held = min(self._empty_at.get(bucket, now_ms) - now_ms, at_once * each_ms)
        return max(0, held - (at_once - 1) * each_ms)

    def add(self, bucket: Bucket, now_ms: int) -> None:
        """A try, if there is room."""
        if bucket not in self._empty_at and len(self._empty_at) >= NAMES_MAX:
            self._make_room(now_ms)
        if self.wait_ms(bucket, now_ms) == 0:
            self._empty_at[bucket] = max(self._empty_at.get(bucket, now_ms), now_ms) + self._limit.each_ms

    def _make_room(self, now_ms: int) -> None:
        self._empty_at = {bucket: empty_at for bucket, empty_at in self._empty_at.items() if empty_at > now_ms}
        if len(self._empty_at) >= NAMES_MAX:
            del self._empty_at[min(self._empty_at, key=self._empty_at.__getitem__)]


def _names(address: str, subject: str) -> list[str]:
    """The names of the buckets. The digest of a subject tells nobody who reads Redis what it was."""
    return [network_of(address)] + ([f"s-{sha256(subject.encode()).hexdigest()[:32]}"] if subject else [])


def network_of(address: str) -> str:
    parsed = address_of(address)
    if parsed is None or parsed.version == 4:
        return address
    return f"{int(parsed) >> (128 - V6_PREFIX_BITS):x}::/{V6_PREFIX_BITS}"
