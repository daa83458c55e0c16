"""The issuer's public keys: read from a file or a URL, kept fresh, and never lost to an outage."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from functools import partial
from pathlib import Path
from typing import Final, Protocol, Self

import structlog

from identity.keysets.discovery import configuration_url, key_set_url
from identity.keysets.jwk import Key, KeySetUnavailable, parse_key_set
from identity.keysets.source import KeyDocument, Read, read_file
from identity.settings import IssuerSettings

RETRY_SECONDS: Final = (
    30  # after a failure, between two reads that tokens cause, and the shortest `max-age` that counts
)

log = structlog.get_logger()


class _Client(Protocol):
    """What the keys are fetched with."""

    async def aclose(self) -> None: ...


def source_of(settings: IssuerSettings) -> str:
    """The file or URL of the key set, for people: without its query, which may hold a credential."""
    source = configuration_url(settings.issuer) if settings.discovery else settings.jwks
    return (source or "").partition("?")[0]


async def look(settings: IssuerSettings) -> list[Key]:
    """The usable keys that the source has now, for a check of the settings. Raises KeySetUnavailable.

    A shared secret has no source: the list is empty."""
    read, client = _reader(settings)
    if read is None:
        return []
    try:
        document = await read()
    finally:
        if client is not None:
            await client.aclose()
    return parse_key_set(document.body, settings.algorithms)


def _reader(settings: IssuerSettings) -> tuple[Read | None, _Client | None]:
    """What reads the key set, and what it is fetched with. Neither for a shared secret."""
    source = settings.jwks
    if source is not None and "://" not in source:
        return partial(read_file, Path(source)), None
    if source is None and not settings.discovery:
        return None, None
    from identity.keysets import fetch  # see there

    client = fetch.client()

    async def discovered() -> KeyDocument:
        configuration = await fetch.fetch(client, configuration_url(settings.issuer))
        return await fetch.fetch(client, key_set_url(configuration.body, settings.issuer))

    return discovered if source is None else partial(fetch.fetch, client, source), client


class KeySet:
    """The keys that verify tokens. Call `start` before the first use, and `close` at the end."""

    def __init__(
        self,
        read: Read | None,
        settings: IssuerSettings,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        *,
        keys: Sequence[Key] = (),
        client: _Client | None = None,
        retry_seconds: float = RETRY_SECONDS,
    ) -> None:
        """`read` returns the JWK set; None for keys that only the settings can change."""
        self.retry_seconds = retry_seconds
        self._read = read
        self._settings = settings
        self._client = client
        self._clock = clock
        self._sleep = sleep
        self._body = b""
        self._keys: tuple[Key, ...] = tuple(keys)
        self._by_kid: dict[str, tuple[Key, ...]] = {}
        self._callbacks: list[Callable[[Collection[str]], None]] = []
        self._attempted_at = self._read_at = float("-inf")
        self._valid_seconds: float = settings.jwks_refresh_seconds
        self._reading: asyncio.Task[bool] | None = None
        self._refreshing: asyncio.Task[None] | None = None

    @classmethod
    def of(
        cls,
        settings: IssuerSettings,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> Self:
        """The key set that the settings name: a file, a URL, the one that the issuer's configuration names, or the one
        shared secret."""
        if settings.secret is not None:
            secret = settings.secret.get_secret_value().encode()
            return cls(None, settings, clock, sleep, keys=[Key("secret", None, frozenset(settings.algorithms), secret)])
        read, client = _reader(settings)
        return cls(read, settings, clock, sleep, client=client)

    def find(self, kid: str | None) -> Sequence[Key]:
        """The keys of that id; all keys for a token that names none, and where there is one shared secret."""
        return self._keys if kid is None or self._read is None else self._by_kid.get(kid, ())

    @property
    def due(self) -> bool:
        """Whether a token that fits no key may cause a new read: one at a time, and at most one in `retry_seconds`."""
        if self._read is None:
            return False
        return self._reading is not None or self._clock() - self._attempted_at >= self.retry_seconds

    def on_removed(self, callback: Callable[[Collection[str]], None]) -> None:
        """Calls back with the ids of keys that are no longer trusted."""
        self._callbacks.append(callback)

    @property
    def changes(self) -> bool:
        """Whether it is read from somewhere."""
        return self._read is not None

    @property
    def usable(self) -> bool:
        """Whether any token can be verified."""
        return bool(self._keys)

    @property
    def age_seconds(self) -> float | None:
        """Seconds since the keys were last read; None when they were not, or are a secret of the settings."""
        return None if self._read_at == float("-inf") else self._clock() - self._read_at

    async def start(self) -> None:
        """Reads the keys, and then again and again. While the issuer is not reachable the reads are repeated; until the
        first one succeeds no token is trusted."""
        if self._read is not None:
            fresh = await self.refresh()
            self._refreshing = asyncio.create_task(self._keep_fresh(fresh))

    async def run(self) -> None:
        """As `start`, but runs until it is cancelled. A token before the first answer waits for that read."""
        await self._keep_fresh(await self.refresh())

    async def close(self) -> None:
        tasks = [task for task in (self._refreshing, self._reading) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._client is not None:
            await self._client.aclose()

    async def refresh_if_due(self) -> None:
        """Reads the keys again, since a token fits none of them. `due` bounds how often, for all tokens together."""
        if self.due:
            await self.refresh()

    async def refresh(self) -> bool:
        """Reads the keys again, now (SIGHUP). Callers at the same time share one read. False: the old keys stay."""
        if self._read is None:
            return True
        if self._reading is None:
            self._reading = asyncio.create_task(self._refresh(self._read))
            self._reading.add_done_callback(self._read_done)
        # A caller that stops waiting must not cancel the read for the others.
        return await asyncio.shield(self._reading)

    async def _keep_fresh(self, fresh: bool) -> None:
        while True:
            pause = self._valid_seconds if fresh else min(self.retry_seconds, self._settings.jwks_refresh_seconds)
            # A random share less, so that workers do not read at the same moment, and none reads too late.
            await self._sleep(pause * random.uniform(0.8, 1.0))  # noqa: S311  spreads load, guards nothing
            fresh = await self.refresh()

    def _read_done(self, _: asyncio.Task[bool]) -> None:
        self._reading = None

    async def _refresh(self, read: Read) -> bool:
        self._attempted_at = self._clock()
        try:
            document = await read()
            if document.body != self._body:
                # In a thread: hundreds of keys take longer to build than a request may wait.
                self._install(await asyncio.to_thread(parse_key_set, document.body, self._settings.algorithms))
                self._body = document.body
            self._valid_seconds = self._bounded(document.max_age_seconds)
            self._read_at = self._clock()
        except KeySetUnavailable as error:
            log.error(
                "key set not refreshed, the known keys serve on",
                source=self._source,
                reason=str(error),
                keys=len(self._keys),
            )
            return False
        return True

    def _bounded(self, max_age_seconds: float | None) -> float:
        seconds = self._settings.jwks_refresh_seconds
        if max_age_seconds is None:
            return seconds
        return max(min(self.retry_seconds, seconds), min(max_age_seconds, self._settings.jwks_refresh_seconds_max))

    @property
    def _source(self) -> str:
        return source_of(self._settings)

    def _install(self, keys: list[Key]) -> None:
        removed = {key.id for key in self._keys} - {key.id for key in keys}
        by_kid: dict[str, tuple[Key, ...]] = {}
        for key in keys:
            if key.kid is not None:
                by_kid[key.kid] = (*by_kid.get(key.kid, ()), key)
        self._keys, self._by_kid = tuple(keys), by_kid
        log.info("keys installed", source=self._source, keys=len(keys), removed=len(removed))
        if removed:
            for callback in self._callbacks:
                callback(removed)
