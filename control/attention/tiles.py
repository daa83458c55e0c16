"""The tiles: numbers of one moment in PostgreSQL, with the position that says which moment it was."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from control import sql
from control.attention.kinds import KINDS, Tile, kinds_of
from control.db import Database
from control.sql.tiles import Look

COUNTED_MAX: Final = 10_000
"""Of each number: counting on would cost more than it tells."""
WAITS_SECONDS: Final = 60.0
"""A message that waits for so long is no message on its way any more."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One of the numbers that a tile is made of."""

    name: str
    """A kind of incident; or whose messages, and what became of them, as in `stripe_waiting`."""
    number: int
    since: datetime | None
    """Of the oldest."""


@dataclass(frozen=True, slots=True)
class TileNumbers:
    number: int
    more: bool
    """There are more: nobody counted on."""
    since: datetime | None
    needs_attention: bool
    figures: Sequence[Figure]
    """Those that are not 0."""


@dataclass(frozen=True, slots=True)
class Tiles:
    at: datetime
    snapshot: str
    """PostgreSQL's transactions that are included, as `pg_current_snapshot()` writes them."""
    watermarks: Mapping[str, str]
    """By shard: the last usage event that is included, by its id in the stream."""
    tiles: Mapping[Tile, TileNumbers]
    open: int
    """Incidents."""
    unacknowledged: int
    """Of them."""


QUEUES: Final[Mapping[Tile, Sequence[str]]] = {
    Tile.WEBHOOK_BACKLOG: ("stripe_waiting", "notifications_pending", "clerk_waiting"),
    Tile.DEAD_LETTERS: ("stripe_dead", "notifications_given_up", "overage_given_up"),
}
"""Tiles that count messages, not incidents."""


async def read(db: Database) -> Tiles:
    """Raises StoreUnavailable."""
    async with db.connection() as connection:
        return tiles_of(await sql.tiles.look(connection, kinds=list(KINDS), most=COUNTED_MAX + 1))


def tiles_of(look: Look) -> Tiles:
    """Pure."""
    figures = {name: _figure(name, *values) for name, values in look.figures.items()}
    return Tiles(
        look.at,
        look.snapshot,
        look.watermarks,
        {tile: _numbers(tile, [figures[name] for name in _names_of(tile)], look.at) for tile in Tile},
        figures["open"].number,
        figures["unacknowledged"].number,
    )


def _names_of(tile: Tile) -> Sequence[str]:
    return QUEUES.get(tile) or kinds_of(tile)


def _numbers(tile: Tile, figures: Sequence[Figure], at: datetime) -> TileNumbers:
    shown = [figure for figure in figures if figure.number]
    number = sum(figure.number for figure in shown)
    since = min((figure.since for figure in shown if figure.since is not None), default=None)
    old = since is not None and (at - since).total_seconds() > WAITS_SECONDS
    return TileNumbers(
        number,
        any(figure.number > COUNTED_MAX for figure in shown),
        since,
        old if tile is Tile.WEBHOOK_BACKLOG else number > 0,
        shown,
    )


def _figure(name: str, number: int, since: Any) -> Figure:
    return Figure(name, number, None if since is None else datetime.fromtimestamp(float(since), UTC))
