"""How far long work is, on a terminal only: in a pipe, a log or beside JSON it would be noise."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import typer


class Tick(Protocol):
    """Is called with how many parts are done since the last call."""

    def __call__(self, parts: int = 1, /) -> None: ...


@contextmanager
def progress(what: str, length: int, *, as_json: bool = False) -> Iterator[Tick]:
    """A bar on stderr for work of `length` parts, with the time that is left."""
    if as_json or length == 0 or not sys.stderr.isatty():
        yield silent
        return
    with typer.progressbar(length=length, label=what, file=sys.stderr, show_pos=True, show_eta=True) as bar:

        def tick(parts: int = 1, /) -> None:
            bar.update(parts)

        yield tick


def silent(parts: int = 1, /) -> None:
    """For work that nobody watches."""
