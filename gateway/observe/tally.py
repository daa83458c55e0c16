"""What is counted of finished exchanges, as plain numbers."""

from dataclasses import dataclass

BUCKETS = 47


def histogram() -> list[int]:
    """Durations by the bit length of their microseconds, and last their sum: counting one is one addition to each."""
    return [0] * (BUCKETS + 1)


@dataclass(slots=True)
class Tally:
    """How often a route's exchanges ended in this way."""

    route: str
    verdict: str
    status: int
    latency: list[int]
    """From forwarding to the head of the answer, of all exchanges of the route."""
    fields: bytes
    """JSON members."""
    count: int = 0
