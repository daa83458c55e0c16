"""Who waits for long work is told what is done, and how far it is."""

from contextlib import AbstractContextManager, nullcontext
from typing import Protocol


class Tick(Protocol):
    """Is called with how many parts are done since the last call."""

    def __call__(self, parts: int, /) -> None: ...


class Watch(Protocol):
    def say(self, what: str) -> None:
        """Something is done."""

    def part(self, what: str, length: int) -> AbstractContextManager[Tick]:
        """Of something that takes a while, `length` parts in all, or about so many."""


class Unwatched:
    """Of what nobody waits for."""

    def say(self, what: str) -> None: ...

    def part(self, what: str, length: int) -> AbstractContextManager[Tick]:
        return nullcontext(unwatched)


def unwatched(parts: int, /) -> None: ...
