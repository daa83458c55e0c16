"""What will be used on the coming days, with an interval that holds it four times out of five. Pure.

A forecast is a level, a trend and the weekdays' shares, all by the days that have passed. Which of a few fits is
taken, and how wide the interval is, is learned from what each would have forecast on earlier days of the same history,
by as many days ahead: so bursts, gaps and drifts widen it where there were some, and it need not be symmetric. Where a
history is too short to say, the constants below speak. They were chosen by other made-up histories than those that
`python -m bench.forecast` reports on.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import ceil, floor, log, sqrt
from typing import Final

HISTORY_DAYS: Final = 140
"""More is not looked at."""
HISTORY_DAYS_MIN: Final = 7
AHEAD_DAYS_MAX: Final = 366
COVERAGE_PERCENT: Final = 80

_WINDOW_DAYS: Final = 56  # that a level is fitted to
_BACK_DAYS: Final = 84  # of which forecasts are made and compared with what came
_ORIGIN_DAYS: Final = 3  # from one of those to the next
_WEEKDAYS_DAYS: Final = 14  # of history before the weekdays' shares are looked at
_LEARNED_DAYS: Final = 31  # ahead
_BANDS: Final = ((1, 2), (3, 5), (6, 10), (11, 17), (18, _LEARNED_DAYS))
"""Days ahead that are learned from together."""

_LOW, _HIGH = 0.1, 0.9
_PRIOR: Final = (-1.2, 1.3)
"""The deviations, in units of what the fit expects, that 10 % are below and 10 % above, until a history tells more."""
_PRIOR_WEIGHT: Final = 6.0
_GROWTH_WEIGHT: Final = 3.0
_GROWTH: Final = 1.25
"""By which deviations grow from one band to the next, unless a history tells better."""
_DEVIATION_MIN: Final = 0.2
_DRIFTS: Final = (0.0, 0.005, 0.01, 0.02, 0.04, 0.08)  # of a level, in a day
_TREND_UNSEEN: Final = 0.0007  # of a level, in a day
_GROWTH_DAILY_MAX: Final = 0.03
_TREND_DOUBT: Final = 2.0  # a trend below so many squared standard errors is none
_SHARE_MIN: Final = 0.02


@dataclass(frozen=True, slots=True)
class History:
    units: Sequence[int]
    """Of whole days, the oldest first."""
    weekday: int
    """Of the first of them, 0 to 6."""

    def until(self, day: int) -> "History":
        return History(self.units[:day], self.weekday)


@dataclass(frozen=True)
class Outlook:
    """Units from the beginning of the first day that was not over to the end of each day: those that are expected, and
    by how many fewer and more it may be."""

    likely: Sequence[float]
    fewer: Sequence[float]
    more: Sequence[float]

    def between(self, start: float, end: float) -> tuple[float, float, float]:
        """The lower bound, what is expected, and the upper bound of what is used from `start` to `end`, in days."""
        likely = _at(self.likely, end) - _at(self.likely, start)
        ahead = end - start
        return max(0.0, likely - _at(self.fewer, ahead)), likely, likely + _at(self.more, ahead)

    def reached(self, units: float, start: float, end: float) -> tuple[float | None, float | None, float | None]:
        """When so many units after `start` are used, in days: at the earliest, probably, at the latest. None: not
        before `end`."""
        steps = sorted({start, *map(float, range(ceil(start), ceil(end))), end})
        found: list[float | None] = []
        for which in (2, 1, 0):
            before, used_before, at = start, 0.0, None
            for step in steps[1:]:
                used = self.between(start, step)[which]
                if used >= units and used > used_before:
                    at = before + (step - before) * max(0.0, units - used_before) / (used - used_before)
                    break
                before, used_before = step, max(used, used_before)
            found.append(at)
        earliest, likely, latest = found
        return earliest, likely, latest


@dataclass(frozen=True, slots=True)
class Backtest:
    """How often intervals held what was used in the week after them, on days of this very history."""

    weeks: int
    held: int


def outlook(history: History, days: int) -> Outlook | None:
    """For so many days after the history; None: it is too short, or nothing was used in it."""
    units = history.units
    if len(units) < HISTORY_DAYS_MIN or not any(units):
        return None
    history = _newest(history)
    learned = _learn(history)
    now = _Origin.of(history, len(history.units))
    fit = now.fit(learned.way)
    likely, scales = now.cumulative(fit, days), fit.scales(days, learned.drift)
    bounds = [learned.deviations(day) for day in range(1, days + 1)]
    return Outlook(
        likely,
        [-low * scale for (low, _), scale in zip(bounds, scales, strict=True)],
        [high * scale for (_, high), scale in zip(bounds, scales, strict=True)],
    )


def backtest(history: History, weeks_max: int = 8) -> Backtest:
    """Each week is forecast by what was known before it."""
    weeks = held = 0
    last = len(history.units)
    for day in range(last - 7, max(2 * HISTORY_DAYS_MIN, last - 7 * weeks_max) - 1, -7):
        seen = outlook(history.until(day), 7)
        if seen is not None:
            low, _, high = seen.between(0, 7)
            weeks += 1
            held += low <= sum(history.units[day : day + 7]) <= high
    return Backtest(weeks, held)


@dataclass(frozen=True, slots=True)
class _Way:
    """How a level is found."""

    half_life_days: float
    """A day counts half as much as one so much later."""
    trend: bool


_WAYS: Final = (_Way(7, False), _Way(21, False), _Way(60, False), _Way(14, True), _Way(40, True))


@dataclass(frozen=True, slots=True)
class _Fit:
    level: float
    """Of the last day."""
    growth: float
    """By which each day is more than the one before, a fraction."""
    spread: float
    """The standard deviation of a day."""
    weight: float
    """The number of days that the level is made of."""

    def scales(self, days: int, drift: float) -> list[float]:
        """The deviation that is to be expected of the sum of 1, 2, … days: of days apart, of the level that was found,
        of a level that goes on by a random step of `drift` a day, and of a trend that nothing has shown yet."""
        variance = max(1.0, self.spread) ** 2
        step, trend = (drift * self.level) ** 2 / 3, (_TREND_UNSEEN * self.level / 2) ** 2
        return [
            sqrt(variance * day * (1 + day / self.weight) + step * day**3 + trend * day**4)
            for day in range(1, days + 1)
        ]


@dataclass(frozen=True)
class _Origin:
    """A day that a forecast is made on, with what was known then."""

    weekday: int
    shares: Sequence[float]
    """Of each weekday, 1 on average."""
    levels: Sequence[float]
    """Units of each day in the window, as if its weekday had the share 1."""
    certainties: Sequence[float]
    """Of each level: a Sunday without any says little of one."""

    @classmethod
    def of(cls, history: History, day: int) -> "_Origin":
        first = max(0, day - _WINDOW_DAYS)
        window = history.units[first:day]
        weekday = history.weekday + first
        shares = _shares(window, weekday)
        certainties = [shares[(weekday + n) % 7] for n in range(len(window))]
        levels = [units / share for units, share in zip(window, certainties, strict=True)]
        return cls((history.weekday + day) % 7, shares, levels, certainties)

    @cached_property
    def _fits(self) -> dict[_Way, _Fit]:
        return {}

    def fit(self, way: _Way) -> _Fit:
        if way not in self._fits:
            self._fits[way] = _fit(self.levels, self.certainties, way)
        return self._fits[way]

    def cumulative(self, fit: _Fit, days: int) -> list[float]:
        """What is expected of 1, 2, … days."""
        sums, total, level = [], 0.0, fit.level
        for day in range(days):
            if day < _LEARNED_DAYS:  # nobody knows how long a trend goes on
                level *= 1 + fit.growth
            total += level * self.shares[(self.weekday + day) % 7]
            sums.append(total)
        return sums


@dataclass(frozen=True, slots=True)
class _Learned:
    way: _Way
    drift: float
    bands: Sequence[tuple[float, float, float]]
    """The middle of each band in days ahead, and the deviations that 10 % are below and above."""

    def deviations(self, day: int) -> tuple[float, float]:
        """Between two bands, in between by the logarithm of the days."""
        before = self.bands[0]
        for band in self.bands:
            if day <= band[0]:
                part = 1.0 if band == before else log(day / before[0]) / log(band[0] / before[0])
                return before[1] + part * (band[1] - before[1]), before[2] + part * (band[2] - before[2])
            before = band
        return before[1], before[2]


def _learn(history: History) -> _Learned:
    """The way that would have been nearest, and how far from it days were."""
    last = len(history.units)
    first = max(HISTORY_DAYS_MIN, last - _BACK_DAYS)
    origins = {day: _Origin.of(history, day) for day in range(last - 1, first - 1, -_ORIGIN_DAYS)}
    sums = [0]
    for units in history.units:
        sums.append(sums[-1] + units)
    missed = {way: list(_misses(origins, sums, way)) for way in _WAYS}
    way = min(_WAYS, key=lambda each: sum(abs(off) / ahead**0.2 for ahead, off, _ in missed[each]))
    drift = min(_DRIFTS, key=lambda each: _unlikelihood(missed[way], each))
    seen: dict[int, list[float]] = {}
    for ahead, off, fit in missed[way]:
        seen.setdefault(ahead, []).append(off / fit.scales(_LEARNED_DAYS, drift)[ahead - 1])
    return _Learned(way, drift, list(_bands(seen, last - min(origins, default=last))))


def _misses(origins: Mapping[int, _Origin], sums: Sequence[int], way: _Way) -> Iterator[tuple[int, float, _Fit]]:
    """Of each origin and each number of days ahead: by how much the sum was missed, and by which fit."""
    last = len(sums) - 1
    for day, origin in origins.items():
        fit = origin.fit(way)
        for ahead, likely in enumerate(origin.cumulative(fit, min(_LEARNED_DAYS, last - day)), 1):
            yield ahead, sums[day + ahead] - sums[day] - likely, fit


def _unlikelihood(missed: Sequence[tuple[int, float, _Fit]], drift: float) -> float:
    """Of what was missed, if the level drifts so: the negative logarithm."""
    scales: dict[_Fit, list[float]] = {}
    total = 0.0
    for ahead, off, fit in missed:
        if fit not in scales:
            scales[fit] = fit.scales(_LEARNED_DAYS, drift)
        scale = scales[fit][ahead - 1]
        total += log(scale) + off * off / (2 * scale * scale)
    return total


def _bands(seen: Mapping[int, Sequence[float]], span_days: int) -> Iterator[tuple[float, float, float]]:
    """What a band lacks of its own it has from the one before it, by as much wider as the bands were until then."""
    low, high = _PRIOR
    growth, width_before = _GROWTH, 0.0
    for number, (first, last) in enumerate(_BANDS):
        if number:
            low, high = low * growth, high * growth
        middle = (first + last) / 2
        deviations = sorted(each for ahead in range(first, last + 1) for each in seen.get(ahead, ()))
        if deviations:
            times = max(0.0, span_days - middle) / middle  # sums that overlap tell the same again
            below, above = _quantile(deviations, _LOW), _quantile(deviations, _HIGH)
            if width_before > 0:
                weight = times / (times + _GROWTH_WEIGHT)
                grown = min(1.8, max(0.8, (above - below) / width_before))
                growth = min(1.6, max(1.0, weight * grown + (1 - weight) * growth))
            width_before = above - below
            weight = times / (times + _PRIOR_WEIGHT)
            low, high = weight * below + (1 - weight) * low, weight * above + (1 - weight) * high
        low, high = min(low, -_DEVIATION_MIN), max(high, _DEVIATION_MIN)
        yield middle, low, high


def _fit(levels: Sequence[float], certainties: Sequence[float], way: _Way) -> _Fit:
    """The weighted line through the levels, or their weighted mean."""
    last = len(levels) - 1
    weights: list[float] = [each * 0.5 ** ((last - n) / way.half_life_days) for n, each in enumerate(certainties)]
    total = sum(weights)
    days = total * total / sum(weight * weight for weight in weights)
    middle = sum(weight * (n - last) for n, weight in enumerate(weights)) / total
    mean = sum(weight * level for weight, level in zip(weights, levels, strict=True)) / total

    def variance(slope: float) -> float:
        off = (level - mean - slope * (n - last - middle) for n, level in enumerate(levels))
        return sum(weight * each * each for weight, each in zip(weights, off, strict=True)) / total

    slope = 0.0
    if way.trend and len(levels) >= 10:
        across = sum(weight * (n - last - middle) ** 2 for n, weight in enumerate(weights)) / total
        slope = sum(w * (n - last - middle) * y for n, (w, y) in enumerate(zip(weights, levels, strict=True)))
        slope /= total * across
        if slope:  # a doubtful one is made smaller, as Stein does it
            slope *= max(0.0, 1 - _TREND_DOUBT * variance(slope) / (days * across * slope * slope))
    level = max(0.0, mean - slope * middle)
    growth = 0.0 if not level else min(_GROWTH_DAILY_MAX, max(-_GROWTH_DAILY_MAX, slope / level))
    return _Fit(level, growth, sqrt(variance(slope)), days)


def _shares(window: Sequence[int], weekday: int) -> list[float]:
    """By how much each weekday differs from the week around it, as far as it is more than chance."""
    even = [1.0] * 7
    if len(window) < _WEEKDAYS_DAYS:
        return even
    rows = []
    for n, units in enumerate(window):
        first = max(0, min(n - 3, len(window) - 7))
        week = sum(window[first : first + 7])
        if week > 0:
            rows.append(((weekday + n) % 7, 7 * units / week))
    if not rows:
        return even
    of_day = [[share for day, share in rows if day == each] for each in range(7)]
    means = [sum(shares) / len(shares) if shares else 1.0 for shares in of_day]
    chance = sum((share - means[day]) ** 2 for day, share in rows) / max(1, len(rows) - 7) / (len(rows) / 7)
    between = sum((mean - 1) ** 2 for mean in means) / 6
    belief = max(0.0, 1 - chance / between) if between > 0 else 0.0
    shares = [max(_SHARE_MIN, 1 + belief * (mean - 1)) for mean in means]
    average = sum(shares) / 7
    return [share / average for share in shares]


def _newest(history: History) -> History:
    """The days that count; where more was given back than used, nothing was used."""
    spare = max(0, len(history.units) - HISTORY_DAYS)
    return History([max(0, units) for units in history.units[spare:]], (history.weekday + spare) % 7)


def _quantile(ascending: Sequence[float], part: float) -> float:
    place = min(len(ascending) - 1.0, max(0.0, part * (len(ascending) + 1) - 1))
    below = floor(place)
    above = min(len(ascending) - 1, below + 1)
    return ascending[below] + (place - below) * (ascending[above] - ascending[below])


def _at(sums: Sequence[float], days: float) -> float:
    """Of sums at the ends of days, the one after so many days; within a day in proportion."""
    whole = min(len(sums), floor(days))
    before = sums[whole - 1] if whole else 0.0
    if whole == len(sums):
        return before
    return before + (sums[whole] - before) * (days - whole)
