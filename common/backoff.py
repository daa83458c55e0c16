"""The pause before something that failed is tried again: longer after each failure, up to a bound."""

from dataclasses import dataclass

EXPONENT_MAX = 64  # far above every bound, and below an overflow


@dataclass(frozen=True, slots=True)
class Backoff:
    first_seconds: float
    max_seconds: float
    factor: float = 2.0
    jitter: float = 0.0
    """The share by which a pause is randomly longer or shorter: clients that failed together retry at other moments."""

    def seconds(self, failures: int, chance: float = 0.0) -> float:
        """The pause after this number of failures in a row, which is at least 1. `chance`: from -1 to 1."""
        exponent = min(max(0, failures - 1), EXPONENT_MAX)
        return float(min(self.first_seconds * self.factor**exponent, self.max_seconds) * (1 + self.jitter * chance))
