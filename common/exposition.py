"""The Prometheus text of numbers that are counted elsewhere. prometheus_client only writes it."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from prometheus_client.core import Metric
from prometheus_client.exposition import generate_latest

Labels = Mapping[str, str]


class _Collected:
    """A collector of metrics that exist already."""

    def __init__(self, metrics: Iterable[Metric]) -> None:
        self._metrics = list(metrics)

    def collect(self) -> list[Metric]:
        return self._metrics


def metric(name: str, kind: Literal["counter", "gauge"], about: str, values: Iterable[tuple[Labels, float]]) -> Metric:
    """The name of a counter ends in `_total`."""
    result = Metric(name.removesuffix("_total") if kind == "counter" else name, about, kind)
    for labels, value in values:
        result.add_sample(name, dict(labels), value)
    return result


def histogram(name: str, about: str) -> Metric:
    return Metric(name, about, "histogram")


def add_buckets(to: Metric, labels: Labels, buckets: Sequence[tuple[str, int]], total: float) -> None:
    """`buckets`: upper bounds, `+Inf` last, each with the number of values up to it; `total`: the sum of the values."""
    for bound, count in buckets:
        to.add_sample(f"{to.name}_bucket", {**labels, "le": bound}, count)
    to.add_sample(f"{to.name}_sum", dict(labels), total)
    to.add_sample(f"{to.name}_count", dict(labels), buckets[-1][1])


def exposition(metrics: Iterable[Metric]) -> str:
    """Text format 0.0.4."""
    return generate_latest(_Collected(metrics)).decode()
