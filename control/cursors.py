"""Pages of a list, and the cursors between them: each page ends with an entry, by which the next one is asked for.

A cursor that no entry has is refused. A page behind nothing is empty, which looks like the end of the list.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

Row = TypeVar("Row")
Cursor = TypeVar("Cursor")


class CursorUnknown(Exception):
    """The list has no entry with this id, or has it no more."""

    def __init__(self, parameter: str) -> None:
        super().__init__("is not the id of an entry in this list: begin with the first page")
        self.parameter = parameter


@dataclass(frozen=True, slots=True)
class Page(Generic[Row, Cursor]):
    rows: Sequence[Row]
    next: Cursor | None
    """Names the last row, where more rows may follow; None on the last page."""


async def read_page(
    parameter: Literal["after", "before"],
    cursor: Cursor | None,
    limit: int,
    *,
    exists: Callable[[Cursor], Awaitable[object]],
    read: Callable[[Cursor | None, int], Awaitable[Sequence[Row]]],
    cursor_of: Callable[[Row], Cursor],
) -> Page[Row, Cursor]:
    """The rows behind `cursor`, at most `limit` of them; None: from the beginning of the list.

    `parameter`: what the client calls its cursor. `exists`: whether the list has that entry. Raises CursorUnknown."""
    if cursor is not None and not await exists(cursor):
        raise CursorUnknown(parameter)
    rows = await read(cursor, limit)
    return Page(rows, cursor_of(rows[-1]) if len(rows) == limit else None)
