"""How far long work is, on a terminal only: in a pipe, a log or beside JSON it would be noise."""

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING

import typer

from quotagate.output import note

if TYPE_CHECKING:
    from control.progress import Tick


@contextmanager
def progress(what: str, length: int, *, as_json: bool = False) -> "Iterator[Tick]":
    """A bar on stderr for work of `length` parts, with the time that is left."""
    from control.progress import unwatched

    if as_json or length == 0 or not sys.stderr.isatty():
        yield unwatched
        return
    with typer.progressbar(length=length, label=what, file=sys.stderr, show_pos=True, show_eta=True) as bar:

        def tick(parts: int, /) -> None:
            bar.update(parts)

        yield tick


class Shown:
    """Work that a command waits for (control/progress.py): a line for what is done, and a bar on a terminal.

    `bar_length`: what has fewer parts is done at once, and has none."""

    def __init__(self, as_json: bool, bar_length: int = 1) -> None:
        self._as_json = as_json
        self._bar_length = bar_length

    def say(self, what: str) -> None:
        note(what, self._as_json)

    def part(self, what: str, length: int) -> "AbstractContextManager[Tick]":
        return progress(what, length if length >= self._bar_length else 0, as_json=self._as_json)
