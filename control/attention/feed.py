"""The live tiles: one reader for all viewers of a process, who are each sent the newest look, never an old one.

It reads only while somebody watches. Whether a viewer may still watch is looked at every few seconds, once for each
session or token; nobody is shown a number whose right to see it was not confirmed lately. While a store is away,
viewers are told so, and the stream goes on.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final

import structlog

from control.db import StoreUnavailable

log = structlog.get_logger()

LOOK_SECONDS: Final = 0.25
CHECK_SECONDS: Final = 2.0
CONFIRMED_SECONDS: Final = 6.0
VIEWERS_MAX: Final = 256
READ_SECONDS: Final = 2.0

Event = bytes
"""Of a stream, as https://html.spec.whatwg.org/multipage/server-sent-events.html has it."""
MayWatch = Callable[[], Awaitable[bool]]
"""Raises StoreUnavailable where nobody can tell."""

AWAY: Final = "The database does not answer. What is shown may be old."
OVER: Final = "You may not see this any more. Sign in again."


def event(name: str, data: Any) -> Event:
    return f"event: {name}\ndata: {json.dumps(data, separators=(',', ':'))}\n\n".encode()


_AWAY: Final = event("away", {"detail": AWAY})


@dataclass(slots=True, eq=False)
class _Viewer:
    credential: bytes
    """The same for all viewers that have one session, or one token."""
    may_watch: MayWatch
    confirmed_at: float
    over: bool = False
    seen: int = 0
    """The number of the look that it was sent last."""


@dataclass(slots=True)
class Feed:
    """`read` returns what viewers are shown, as JSON. Raises StoreUnavailable."""

    read: Callable[[], Awaitable[Any]]
    look_seconds: float = LOOK_SECONDS
    check_seconds: float = CHECK_SECONDS
    confirmed_seconds: float = CONFIRMED_SECONDS
    _viewers: set[_Viewer] = field(default_factory=set)
    _shown: Event = b""
    _is_away: bool = False
    _number: int = 0
    """Of the newest look."""
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _tasks: tuple[asyncio.Task[None], ...] = ()
    _stopped: bool = False

    @property
    def viewers(self) -> int:
        return len(self._viewers)

    @property
    def is_full(self) -> bool:
        """So many watch already that another one would be in the way of those who work."""
        return len(self._viewers) >= VIEWERS_MAX

    async def follow(self, credential: bytes, may_watch: MayWatch) -> AsyncIterator[Event]:
        """What a viewer is sent, until it leaves, loses its right, or we stop. Whoever asks may watch now."""
        viewer = _Viewer(credential, may_watch, asyncio.get_running_loop().time())
        self._viewers.add(viewer)
        self._begin()
        try:
            yield b"retry: 2000\n\n"
            while not self._stopped and not viewer.over:
                if viewer.seen != self._number:
                    viewer.seen = self._number
                    yield self._shown if self._is_away or self._is_confirmed(viewer) else _AWAY
                else:
                    await self._changed.wait()
            if viewer.over:
                yield event("over", {"detail": OVER})
        finally:
            self._viewers.discard(viewer)
            if not self._viewers:
                self._end()

    def stop(self) -> None:
        """Ends all streams, and no other begins."""
        self._stopped = True
        self._end()
        self._wake()

    def _begin(self) -> None:
        if not self._tasks and not self._stopped:
            self._tasks = (asyncio.create_task(self._look()), asyncio.create_task(self._check()))

    def _end(self) -> None:
        for task in self._tasks:
            task.cancel()
        self._tasks, self._shown, self._number = (), b"", 0

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def _is_confirmed(self, viewer: _Viewer) -> bool:
        return asyncio.get_running_loop().time() - viewer.confirmed_at < self.confirmed_seconds

    async def _look(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            try:
                async with asyncio.timeout(READ_SECONDS):
                    self._shown, self._is_away = event("tiles", await self.read()), False
            except (StoreUnavailable, TimeoutError) as e:
                if not self._is_away:
                    log.warning("the tiles cannot be read", reason=str(e) or "no answer in time")
                self._shown, self._is_away = _AWAY, True
            except Exception:
                log.exception("the tiles could not be read")
                self._shown, self._is_away = _AWAY, True
            self._number += 1
            self._wake()
            await asyncio.sleep(max(0.0, began + self.look_seconds - loop.time()))

    async def _check(self) -> None:
        """One after the other, so that all viewers together take one connection of the database."""
        while True:
            await asyncio.sleep(self.check_seconds)
            by_credential: dict[bytes, list[_Viewer]] = {}
            for viewer in self._viewers:
                by_credential.setdefault(viewer.credential, []).append(viewer)
            for viewers in by_credential.values():
                try:
                    async with asyncio.timeout(READ_SECONDS):
                        may_watch = await viewers[0].may_watch()
                except (StoreUnavailable, TimeoutError):
                    continue  # they are shown nothing more, soon
                except Exception:
                    log.exception("nobody could tell whether a viewer may still watch")
                    continue
                for viewer in viewers:
                    viewer.confirmed_at = asyncio.get_running_loop().time()
                    viewer.over = not may_watch
            self._wake()
