"""Prometheus' text of numbers that are counted elsewhere: prometheus_client writes it, and counts nothing itself."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from prometheus_client.core import Metric
from prometheus_client.exposition import generate_latest

Labels = Mapping[str, str]


class _Collected:
    """A collector of what is collected already."""

    def __init__(self, metrics: Iterable[Metric]) -> None:
        self._metrics = list(metrics)

    def collect(self) -> list[Metric]:
        return self._metrics


def metric(name: str, kind: Literal["counter", "gauge"], about: str, values: Iterable[tuple[Labels, float]]) -> Metric:
    """The name of a counter ends in `_total`."""
    found = Metric(name.removesuffix("_total") if kind == "counter" else name, about, kind)
    for labels, value in values:
        found.add_sample(name, dict(labels), value)
    return found


def histogram(name: str, about: str) -> Metric:
    return Metric(name, about, "histogram")


def add_buckets(found: Metric, labels: Labels, buckets: Sequence[tuple[str, int]], total: float) -> None:
    """`buckets`: upper bounds, `+Inf` last, and how many values are not above; `total`: the sum of the values."""
    for bound, count in buckets:
        found.add_sample(f"{found.name}_bucket", {**labels, "le": bound}, count)
    found.add_sample(f"{found.name}_sum", dict(labels), total)
    found.add_sample(f"{found.name}_count", dict(labels), buckets[-1][1])


def exposition(metrics: Iterable[Metric]) -> str:
    """Text format 0.0.4."""
    return generate_latest(_Collected(metrics)).decode()
