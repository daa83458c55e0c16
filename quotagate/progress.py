"""How far long work is, on a terminal only: in a pipe or a log it would be noise."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import typer


@contextmanager
def progress(what: str, length: int) -> Iterator[Callable[[], None]]:
    """What is given is called after each of `length` parts. The bar is on stderr."""
    if length == 0 or not sys.stderr.isatty():
        yield lambda: None
        return
    with typer.progressbar(length=length, label=what, file=sys.stderr, show_pos=True) as bar:
        yield lambda: bar.update(1)
