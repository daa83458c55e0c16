"""When an organization of the demo history calls, who does, and what it costs. Pure."""

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

DAY: Final = 86_400
_HOURS: Final = tuple(1 + 6 * math.exp(-(((hour - 14) / 4.5) ** 2)) for hour in range(24))
_WEEKEND: Final = 0.35
_REPORT_SHARE: Final = 0.25
"""Of the calls that make a report, too, where the plan has that meter."""


@dataclass(frozen=True, slots=True)
class Habits:
    """How an organization uses what it has."""

    seed: str
    appetite: float
    growth: float
    since: int
    """Seconds since 1970: its growth is counted from then."""
    users: Sequence[str]
    keys: Sequence[str]


@dataclass(frozen=True, slots=True)
class Call:
    at_ms: int
    user: str | None
    key: str | None
    costs: Mapping[str, int]


def calls_of_day(habits: Habits, day: int, allowances: Mapping[str, int]) -> Iterator[Call]:
    """The calls of one day (seconds since 1970, of its midnight), in their order.

    `allowances`: of a month; who has more to use, uses more."""
    draw = random.Random(f"{habits.seed}/{day}")  # noqa: S311  # repeatable, not secret
    months = max(0.0, (day - habits.since) / (30 * DAY))
    weekend = (day // DAY + 3) % 7 >= 5  # 1970-01-01 was a Thursday
    level = (
        habits.appetite * (1 + habits.growth) ** months * (_WEEKEND if weekend else 1.26) * draw.lognormvariate(0, 0.3)
    )
    count = 1 + draw.randrange(1 if weekend else 3)
    times = sorted(
        (draw.choices(range(24), _HOURS)[0] * 3600 + draw.randrange(3600)) * 1000 + draw.randrange(1000)
        for _ in range(count)
    )
    for at_ms in times:
        share = level / 30 / count * draw.uniform(0.6, 1.4)
        costs = {"api_calls": max(1, round(allowances.get("api_calls", 0) * share))}
        if "reports" in allowances and draw.random() < _REPORT_SHARE:
            costs["reports"] = max(1, round(allowances["reports"] * share * 2))
        by_key = bool(habits.keys) and draw.random() < 0.6
        user = None if not habits.users else habits.users[min(int(draw.expovariate(1.1)), len(habits.users) - 1)]
        key = habits.keys[min(int(draw.expovariate(1.4)), len(habits.keys) - 1)] if by_key else None
        yield Call(day * 1000 + at_ms, None if by_key else user, key, costs)
