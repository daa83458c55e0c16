"""The region's side: how much of each account it needs, by what was drawn lately. Pure."""

from dataclasses import dataclass
from math import ceil

HORIZON_SECONDS = 4.0
"""A region holds what it draws in this time: it asks when it has half of that, and returns what is above twice that."""
PRESSED_SECONDS = 1.0
"""The same while another region waits."""
HALF_LIFE_SECONDS = 2.0
"""How fast a use that ends is forgotten."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast units of one account are drawn."""

    drawn: int
    at: float
    """When it was looked at, by a clock that only goes forward."""
    per_second: float = 0.0
    moved: bool = False
    """Whether anything was drawn since the look before."""


def paced(before: Pace | None, drawn: int, at: float) -> Pace:
    """After a look that found so many units drawn. A new period begins at zero, and refunds may make it less."""
    if before is None:
        return Pace(drawn, at, 0.0, drawn > 0)
    seconds = at - before.at
    if seconds <= 0:
        return before
    more = max(0, drawn - before.drawn)
    rate = more / seconds
    kept = 0.5 ** (seconds / HALF_LIFE_SECONDS)
    # A use that begins is believed at once.
    return Pace(drawn, at, max(rate, before.per_second * kept), more > 0)


@dataclass(frozen=True, slots=True)
class Need:
    """Ceilings that the region would like. None: as it is."""

    lower: int | None = None
    """To be returned first."""
    wanted: int | None = None


def need(pace: Pace, held: int, spare: int, least: int, pressed: bool) -> Need:
    """Of one account. `held`: the ceiling that is enforced; `spare`: as the lease says; `least`: the cost of a request
    that was refused since; `pressed`: another region waits."""
    left = held - pace.drawn
    if pressed and not pace.moved and left < least:
        # Too little for what it is asked for. It may complete what another region has.
        return Need(pace.drawn if left > 0 else None, pace.drawn + least)
    if pressed:
        kept = ceil(pace.per_second * PRESSED_SECONDS) if pace.moved else 0
    else:
        kept = max(ceil(pace.per_second * HORIZON_SECONDS), spare)
    kept = max(kept, least)
    if left > 2 * kept:
        return Need(lower=pace.drawn + kept)
    if left < kept / 2 or left < least:
        return Need(wanted=pace.drawn + kept)
    return Need()
