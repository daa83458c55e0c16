"""How many users there are when: a share of all of them by the share of the time that is over. Pure."""

import math
from collections.abc import Callable, Mapping

Curve = Callable[[float], float]
"""From 0 to 1, of the time, to a share from 0 to 1 of the users."""
RAMP = 0.1  # of the time, until a steady load is there
SECONDS_DEFAULT, USERS_DEFAULT = 60, 200


def steady(over: float) -> float:
    """All users, soon after the start."""
    return min(1.0, over / RAMP)


def ramp(over: float) -> float:
    """Ever more users."""
    return over


def steps(over: float) -> float:
    """A quarter of the users, then half of them, then three quarters, then all."""
    return min(4, math.floor(over * 4) + 1) / 4


def spike(over: float) -> float:
    """A fifth of the users, five times as many for a while, and a fifth again."""
    return 1.0 if 0.4 <= over < 0.6 else 0.2


def day(over: float) -> float:
    """A fifth of the users in the night, and all of them at noon."""
    return 0.2 + 0.8 * (1 - math.cos(2 * math.pi * over)) / 2


CURVES: Mapping[str, Curve] = {"steady": steady, "ramp": ramp, "steps": steps, "spike": spike, "day": day}


def users_at(curve: Curve, over: float, most: float) -> int | None:
    """At least one; None when the time is over."""
    return None if over >= 1 else max(1, round(most * curve(over)))
