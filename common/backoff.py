"""How long to wait before something that failed is tried again: each time longer, up to a bound."""

from dataclasses import dataclass

EXPONENT_MAX = 64  # far beyond every bound, and no overflow


@dataclass(frozen=True, slots=True)
class Backoff:
    first_seconds: float
    max_seconds: float
    factor: float = 2.0
    jitter: float = 0.0
    """The share by which a pause is longer or shorter, by chance, so that what failed together is tried apart."""

    def seconds(self, failures: int, chance: float = 0.0) -> float:
        """The pause after so many failures in a row, from 1 on. `chance`: from -1 to 1."""
        exponent = min(max(0, failures - 1), EXPONENT_MAX)
        return float(min(self.first_seconds * self.factor**exponent, self.max_seconds) * (1 + self.jitter * chance))
