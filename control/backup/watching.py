"""Who waits for a backup or a restore is told what is done, and how far it is."""

import io
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol


class Tick(Protocol):
    """Is called with how much is done since the last call."""

    def __call__(self, parts: int, /) -> None: ...


def unwatched(parts: int, /) -> None:
    """Of what nobody waits for."""


class Watch(Protocol):
    def say(self, what: str) -> None:
        """Something is done."""

    def part(self, what: str, length: int) -> AbstractContextManager[Tick]:
        """Of something that takes a while, `length` parts in all, or about so many."""


class WatchedFile(io.FileIO):
    """Tells how many bytes of it were read."""

    def __init__(self, path: Path, tick: Tick) -> None:
        super().__init__(path)
        self._tick = tick

    def readinto(self, buffer: Any) -> int | None:
        count = super().readinto(buffer)
        self._tick(count or 0)
        return count
