"""`python -m bench.forecast`: of 100 forecasts, how many intervals hold what was used, on days that were held out.

Each history is made up, and cut off on rolling days; what comes after is not shown to the forecast. An interval
promises 80 of 100. The seeds are others than those that the constants of `control/analytics/forecast.py` were chosen
by. Exits with 1 where a kind of history is outside of 75 to 85."""

import argparse
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from math import exp, log
from random import Random
from typing import Final

from control.analytics.forecast import History, outlook

DAYS: Final = 150
AHEAD: Final = (3, 7, 14, 30)
ORIGINS: Final = (14, 21, 31, 45, 60, 75, 90, 105, 120)
"""Days of history that a forecast sees."""
RUNS_OUT: Final = "runs out"
LOWEST, HIGHEST = 75.0, 85.0

Column = int | str


def steady(random: Random) -> Sequence[float]:
    spread = random.uniform(0.05, 0.3)
    return [max(0.0, random.gauss(1, spread)) for _ in range(DAYS)]


def weekly(random: Random) -> Sequence[float]:
    weekend, spread, first = random.uniform(0.05, 0.6), random.uniform(0.05, 0.25), random.randrange(7)
    return [(weekend if (day + first) % 7 >= 5 else 1) * exp(random.gauss(0, spread)) for day in range(DAYS)]


def growing(random: Random) -> Sequence[float]:
    """Two of three; the third shrinks. Of some, weekends are quieter."""
    daily = random.uniform(0.002, 0.015) * random.choice((1, 1, -1))
    weekend, spread = random.choice((1, 1, 0.4)), random.uniform(0.05, 0.25)
    return [exp(daily * day) * (weekend if day % 7 >= 5 else 1) * exp(random.gauss(0, spread)) for day in range(DAYS)]


def drifting(random: Random) -> Sequence[float]:
    """The level takes a random walk."""
    level, spread, step = 0.0, random.uniform(0.05, 0.25), random.uniform(0.005, 0.03)
    units = []
    for _ in range(DAYS):
        level += random.gauss(0, step)
        units.append(exp(level + random.gauss(0, spread)))
    return units


def bursty(random: Random) -> Sequence[float]:
    """Now and then three to twelve times as much, for up to three days."""
    often, spread, left, size = random.uniform(0.03, 0.12), random.uniform(0.1, 0.3), 0, 1.0
    units = []
    for _ in range(DAYS):
        if not left and random.random() < often:
            left, size = random.randint(1, 3), random.uniform(3, 12)
        units.append((size if left else 1) * exp(random.gauss(0, spread)))
        left = max(0, left - 1)
    return units


def sparse(random: Random) -> Sequence[float]:
    """Most days without any."""
    often = random.uniform(0.08, 0.35)
    return [exp(random.gauss(0, 0.6)) if random.random() < often else 0.0 for _ in range(DAYS)]


KINDS: Final[Sequence[Callable[[Random], Sequence[float]]]] = (steady, weekly, growing, drifting, bursty, sparse)


def trace(kind: Callable[[Random], Sequence[float]], seed: str) -> list[int]:
    """Of an organization that uses 50 to 50,000 units a day."""
    random = Random(seed)  # noqa: S311  a made-up history, no secret
    size = exp(random.uniform(log(50), log(50_000)))
    return [int(size * units) for units in kind(random)]


def measure(traces: int, seed: str) -> dict[tuple[str, Column], list[bool]]:
    """Whether each interval held, by kind of history and days ahead, and for the day on which something runs out."""
    held: dict[tuple[str, Column], list[bool]] = defaultdict(list)
    for kind in KINDS:
        for number in range(traces):
            units = trace(kind, f"{seed} {kind.__name__} {number}")
            for origin in ORIGINS:
                seen = outlook(History(units[:origin], 0), max(AHEAD))
                if seen is None:
                    continue
                came = [sum(units[origin : origin + days]) for days in range(max(AHEAD) + 1)]
                for days in AHEAD:
                    low, _, high = seen.between(0, days)
                    held[kind.__name__, days].append(low <= came[days] <= high)
                remaining = seen.between(0, 3 + number % 20)[1]
                earliest, _, latest = seen.reached(remaining, 0, max(AHEAD))
                if remaining and earliest is not None and latest is not None:
                    ran_out = next((day for day, used in enumerate(came) if used >= remaining), max(AHEAD) + 1)
                    held[kind.__name__, RUNS_OUT].append(int(earliest) < ran_out <= int(latest) + 1)
    return held


def main() -> int:
    options = argparse.ArgumentParser(prog="python -m bench.forecast", description=__doc__)
    options.add_argument("--traces", type=int, default=100, help="histories of each kind")
    options.add_argument("--seed", default="held out")
    asked = options.parse_args()
    started = time.process_time()
    held = measure(asked.traces, asked.seed)
    seconds = time.process_time() - started
    columns: tuple[Column, ...] = (*AHEAD, RUNS_OUT)
    print(
        f"{'':10}"
        + "".join(f"{f'{each} days' if isinstance(each, int) else each:>10}" for each in columns)
        + "       all"
    )
    failed = []
    for name in (kind.__name__ for kind in KINDS):
        rows = [held[name, column] for column in columns]
        of_sums = [each for row in rows[: len(AHEAD)] for each in row]
        share = _percent(of_sums)
        print(f"{name:10}" + "".join(f"{_percent(row):>9.1f}%" for row in rows) + f"{share:>9.1f}%")
        if not LOWEST <= share <= HIGHEST:
            failed.append(name)
    forecasts = sum(len(held[kind.__name__, AHEAD[0]]) for kind in KINDS)
    everything = [each for (_, column), row in held.items() if column != RUNS_OUT for each in row]
    took = f"{1000 * seconds / forecasts:.1f} ms a forecast"
    print(f"{'all':10}{_percent(everything):.1f}% of {len(everything):,} intervals, {took}")
    if failed:
        print(f"outside of {LOWEST:.0f} to {HIGHEST:.0f} %: {', '.join(failed)}")
    return 1 if failed else 0


def _percent(held: Sequence[bool]) -> float:
    return 100 * sum(held) / max(1, len(held))


if __name__ == "__main__":
    sys.exit(main())
