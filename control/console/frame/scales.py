"""What a chart's vertical axis shows. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor, log10
from typing import Final

WIDTH: Final = 720.0
HEIGHT: Final = 200.0
STEPS: Final = (1, 2, 2.5, 5, 10)
TICKS: Final = 4


@dataclass(frozen=True, slots=True)
class Scale:
    low: float
    high: float
    ticks: Sequence[float]
    """From the lowest to the highest, which are the ends of the axis."""

    def y(self, value: float) -> float:
        """From above, as SVG counts."""
        return HEIGHT - (value - self.low) / (self.high - self.low) * HEIGHT


def scale_of(values: Sequence[float]) -> Scale:
    """Round numbers around all of these."""
    low, high = ends_of(values)
    rough = (high - low) / TICKS
    power = 10.0 ** floor(log10(rough))
    step = next(each * power for each in STEPS if each * power >= rough * 0.999)
    first, last = floor(low / step), ceil(high / step)
    return Scale(first * step, last * step, [each * step for each in range(first, last + 1)])


def ends_of(values: Sequence[float]) -> tuple[float, float]:
    """The lowest and the highest, never the same."""
    low, high = min(values), max(values)
    return (low, high) if high > low else (min(low, 0.0), max(high, low + 1.0, 1.0))
