"""How full the buckets of rate limits were, between two bounds. Pure.

An event tells the millisecond of its take, and a rate limit (GCRA) counts microseconds. So of each bucket there is the
earliest and the latest time at which it may be full again. The bounds never part by more than a millisecond.
"""

from dataclasses import dataclass, field
from typing import Final

from quota.terms import Pace

ORGANIZATION: Final = ""
"""In place of a node: the organization's own rate limit."""
ROUNDED_US: Final = 1.0


@dataclass(slots=True)
class Paces:
    """By node, in microseconds since 1970."""

    least: dict[str, float] = field(default_factory=dict)
    most: dict[str, float] = field(default_factory=dict)

    def admit(self, node: str, pace: Pace, earliest_us: int, latest_us: int) -> None:
        """A request passed between these moments."""
        self.least[node] = max(self.least.get(node, 0.0), earliest_us) + pace.interval_us
        self.most[node] = max(self.most.get(node, 0.0), latest_us) + pace.interval_us

    def surely_admits(self, node: str, pace: Pace, now_us: int) -> bool:
        """Whether a request of that moment passes however full the bucket was."""
        return max(self.most.get(node, 0.0), now_us) + pace.interval_us - pace.burst_us <= now_us

    def may_be(self, node: str, arrival_us: float) -> bool:
        """Whether the bucket may have been so full as a refusal tells, which is rounded up to a microsecond."""
        return self.least.get(node, 0.0) <= arrival_us and arrival_us - ROUNDED_US <= self.most.get(node, 0.0)
