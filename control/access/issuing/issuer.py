"""Mints tokens, and says with which keys they are verified."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import uuid4

import jwt
import structlog

from common.clock import Clock
from control.access.issuing import key_life
from control.access.issuing.key_life import KeyLife, KeyState, StoredKey
from control.access.issuing.store import OpenedKey, SigningKeys, SigningKeyUnreadable
from control.db import StoreUnavailable
from control.settings.issuing import Issuing

log = structlog.get_logger()

ORG_CLAIM: Final = "org_id"
KEYS_SECONDS: Final = 1.0
"""The keys are read again when they were read so long ago: another process may have rotated or retired one."""
FAILURE_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class Minted:
    token: str = field(repr=False)
    token_id: str
    """Its `jti`: a mark of this id revokes it."""
    expires_s: int


class Issuer:
    def __init__(
        self,
        settings: Issuing,
        keys: SigningKeys,
        clock: Clock,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`clock` says when tokens are issued, and which key signs: this machine's."""
        self.settings = settings
        self.keys = keys
        self._clock = clock
        self._monotonic = monotonic
        self._stored: Sequence[StoredKey] = ()
        self._read_at = float("-inf")
        self._reading = asyncio.Lock()
        self._failure: tuple[float, StoreUnavailable] | None = None
        """When the keys could last not be read, and why."""
        self._opened: dict[tuple[str, bytes | None], OpenedKey | SigningKeyUnreadable] = {}
        """By the id and the sealed text."""

    async def mint(
        self,
        org: str,
        *,
        user: str | None = None,
        site: str | None = None,
        roles: Sequence[str] = (),
        scopes: Sequence[str] = (),
        seconds: int | None = None,
    ) -> Minted:
        """A token of the organization. `seconds`: of its life; none, or more than the settings allow: as long as they
        do. Raises StoreUnavailable, SigningKeyUnreadable."""
        now = self._clock()
        key = self._readable(_signing(key_life.lives(await self._fresh_keys(), now)))
        issued_at = int(now)
        expires_s = issued_at + min(seconds or self.settings.token_seconds, self.settings.token_seconds)
        token_id = uuid4().hex
        claims: dict[str, Any] = {
            "iss": self.settings.issuer,
            "aud": self.settings.audience,
            "iat": issued_at,
            "exp": expires_s,
            "jti": token_id,
            ORG_CLAIM: org,
        }
        optional = {"sub": user, "site": site, "roles": list(roles), "scope": " ".join(scopes)}
        claims |= {name: value for name, value in optional.items() if value}
        token = jwt.encode(claims, key.private_key, key.algorithm, {"kid": key.id})
        return Minted(token, token_id, expires_s)

    async def key_set(self) -> dict[str, Any]:
        """The JWK set (RFC 7517). While Postgres is away it is the last one that was read. Raises StoreUnavailable
        where none was."""
        try:
            stored = self._stored if self._stored and self._failed_lately() else await self._fresh_keys()
        except StoreUnavailable:
            if not self._stored:
                raise
            stored = self._stored
        published = [self._open(life.key) for life in key_life.lives(stored, self._clock()) if life.state.published]
        # One that does not open is not ours: whoever can write to the database could have put it there.
        return {"keys": [key.public_jwk for key in published if isinstance(key, OpenedKey)]}

    async def unreadable_keys(self) -> list[SigningKeyUnreadable]:
        """Why keys that sign, will sign or verify cannot be read. Raises StoreUnavailable."""
        of_all = key_life.lives(await self._fresh_keys(), self._clock())
        opened = [self._open(life.key) for life in of_all if life.state.published]
        return [reason for reason in opened if isinstance(reason, SigningKeyUnreadable)]

    async def _fresh_keys(self) -> Sequence[StoredKey]:
        if self._monotonic() - self._read_at < KEYS_SECONDS:
            return self._stored
        asked_at = self._monotonic()
        async with self._reading:  # who comes meanwhile waits, and finds them read, or that they cannot be
            if self._failure is not None and self._failure[0] >= asked_at:
                raise self._failure[1]
            if self._read_at < asked_at:
                begun_at = self._monotonic()
                try:
                    self._stored = await self.keys.read()
                except StoreUnavailable as e:
                    self._failure = (self._monotonic(), e)
                    raise
                self._read_at = begun_at
                held = {(key.id, key.sealed) for key in self._stored}
                self._opened = {name: opened for name, opened in self._opened.items() if name in held}
        return self._stored

    def _failed_lately(self) -> bool:
        """Who asks for the key set does not wait for a database that does not answer."""
        return self._failure is not None and self._monotonic() - self._failure[0] < FAILURE_SECONDS

    def forget(self) -> None:
        """The keys have changed: they are read before the next use."""
        self._read_at = float("-inf")

    def _readable(self, key: StoredKey) -> OpenedKey:
        opened = self._open(key)
        if isinstance(opened, SigningKeyUnreadable):
            raise opened
        return opened

    def _open(self, key: StoredKey) -> OpenedKey | SigningKeyUnreadable:
        name = (key.id, key.sealed)
        opened = self._opened.get(name)
        if opened is None:
            try:
                opened = self.keys.open(key)
            except SigningKeyUnreadable as e:
                opened = e
            self._opened[name] = opened
        return opened


def _signing(of_all: Sequence[KeyLife]) -> StoredKey:
    for state in (KeyState.SIGNING, KeyState.WAITING):
        # Only waiting ones: the first key was made by a process whose clock is a little ahead of this one's.
        if found := key_life.of_state(of_all, state):
            return found[0].key
    raise StoreUnavailable("Postgres: the database has no signing key yet")
