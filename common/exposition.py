"""The Prometheus text of numbers that are counted elsewhere. prometheus_client only writes it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from prometheus_client.core import Metric
from prometheus_client.exposition import generate_latest

from common.histogram import Histogram

Kind = Literal["counter", "gauge", "histogram"]
Values = tuple[str, ...]
"""Of a family's labels, in their order."""
Labels = TypeVar("Labels", bound=Values)


@dataclass(frozen=True, slots=True)
class Family:
    """A metric as it is declared, once. docs/metrics.md is the table of all of them."""

    name: str
    """That of a counter ends in `_total`, of a moment in `_timestamp_seconds`, of a ratio in `_ratio`."""
    kind: Kind
    about: str
    labels: tuple[str, ...] = ()
    buckets: tuple[str, ...] = ()
    """Of a histogram: its upper bounds without `+Inf`, as they are written."""

    def of(self, values: Mapping[Labels, float]) -> Metric:
        """Of a counter or gauge: the values by their labels."""
        family = self._empty()
        for labels, value in values.items():
            family.add_sample(self.name, self._named(labels), value)
        return family

    def one(self, value: float) -> Metric:
        """Of a counter or gauge without labels."""
        return self.of({(): value})

    def bucketed(self, values: Mapping[Labels, tuple[Sequence[tuple[str, int]], float]]) -> Metric:
        """Of a histogram: upper bounds, `+Inf` last, each with the number of values up to it; and the sum of the
        values."""
        family = self._empty()
        for labels, (buckets, total) in values.items():
            named = self._named(labels)
            for bound, count in buckets:
                family.add_sample(f"{self.name}_bucket", {**named, "le": bound}, count)
            family.add_sample(f"{self.name}_sum", named, total)
            family.add_sample(f"{self.name}_count", named, buckets[-1][1])
        return family

    def durations(self, values: Mapping[Labels, Histogram]) -> Metric:
        """Of a histogram in seconds."""
        return self.bucketed({labels: (each.buckets(), each.seconds) for labels, each in values.items()})

    @property
    def samples(self) -> tuple[str, ...]:
        """The names of its samples."""
        return (
            tuple(f"{self.name}_{part}" for part in ("bucket", "sum", "count"))
            if self.kind == "histogram"
            else (self.name,)
        )

    def _empty(self) -> Metric:
        return Metric(self.name.removesuffix("_total") if self.kind == "counter" else self.name, self.about, self.kind)

    def _named(self, values: Values) -> dict[str, str]:
        return dict(zip(self.labels, values, strict=True))


class _Collected:
    """A collector of metrics that exist already."""

    def __init__(self, metrics: Iterable[Metric]) -> None:
        self._metrics = list(metrics)

    def collect(self) -> list[Metric]:
        return self._metrics


def exposition(metrics: Iterable[Metric]) -> str:
    """Text format 0.0.4."""
    return generate_latest(_Collected(metrics)).decode()
