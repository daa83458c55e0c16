"""What Prometheus would scrape, as OTLP writes it: opentelemetry/proto/metrics/v1/metrics.proto. Pure.

Names, labels and numbers are those of the exposition: a counter's name keeps its `_total`, and bounds are the same.
Counters and histograms are cumulative.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from prometheus_client.core import Metric
from prometheus_client.samples import Sample

from common.otlp.wire import DOUBLE, FIXED64, attributes, sized, text

_CUMULATIVE: Final = b"\x10\x02"
_MONOTONIC: Final = b"\x18\x01"

Series = tuple[str, ...]
"""The name of a sample, and the values of its labels."""


class Report(NamedTuple):
    """All metrics of one moment."""

    time_ns: int
    """Since the epoch."""
    metrics: Sequence[Metric]


class Starts:
    """Since when each counter counts: since the process began, or since it was lower than before."""

    def __init__(self, began_ns: int) -> None:
        self._began_ns = began_ns
        self._reported_ns = began_ns
        self._known: dict[Series, tuple[int, float]] = {}
        """Since when, and the last value."""

    def of(self, series: Series, value: float) -> int:
        """Of the report that is being written."""
        since_ns, before = self._known.get(series, (self._began_ns, 0.0))
        if value < before:
            since_ns = self._reported_ns
        self._known[series] = since_ns, value
        return since_ns

    def reported(self, time_ns: int) -> None:
        """The report of that time is written."""
        self._reported_ns = time_ns


def encode_report(report: Report, starts: Starts) -> list[bytes]:
    """Its metrics, without those that have no sample."""
    time = b"\x19" + FIXED64(report.time_ns)
    encoded = [_encode(metric, time, starts) for metric in report.metrics if metric.samples]
    starts.reported(report.time_ns)
    return encoded


def _encode(metric: Metric, time: bytes, starts: Starts) -> bytes:
    about = b"\x12" + text(metric.documentation)
    if metric.type == "histogram":
        points = b"".join([b"\x0a" + sized(point) for point in _histograms(metric, time, starts)])
        return b"\x0a" + text(metric.name) + about + b"\x4a" + sized(points + _CUMULATIVE)
    counts = metric.type == "counter"
    points = b"".join([b"\x0a" + sized(_number(sample, time, starts if counts else None)) for sample in metric.samples])
    data = b"\x3a" + sized(points + _CUMULATIVE + _MONOTONIC) if counts else b"\x2a" + sized(points)
    return b"\x0a" + text(metric.samples[0].name) + about + data


def _number(sample: Sample, time: bytes, starts: Starts | None) -> bytes:
    value = float(sample.value)
    start = b"" if starts is None else b"\x11" + FIXED64(starts.of((sample.name, *sample.labels.values()), value))
    return start + time + b"\x21" + DOUBLE(value) + attributes(b"\x3a", sample.labels)


def _histograms(metric: Metric, time: bytes, starts: Starts) -> Iterator[bytes]:
    """A point for each combination of labels. Its samples come in this order: buckets, sum, count."""
    bounds: list[float] = []
    counts: list[int] = []
    total, before = 0.0, 0
    for sample in metric.samples:
        if sample.name.endswith("_bucket"):
            bounds.append(float(sample.labels["le"]))
            counts.append(int(sample.value) - before)
            before = int(sample.value)
        elif sample.name.endswith("_sum"):
            total = float(sample.value)
        else:
            yield _histogram(sample, time, starts, total, bounds[:-1], counts)
            bounds, counts, before = [], [], 0


def _histogram(
    count: Sample, time: bytes, starts: Starts, total: float, bounds: Sequence[float], counts: Sequence[int]
) -> bytes:
    labels: Mapping[str, str] = count.labels
    start = FIXED64(starts.of((count.name, *labels.values()), float(count.value)))
    return b"\x11%b%b\x21%b\x29%b\x32%b\x3a%b%b" % (
        start,
        time,
        FIXED64(int(count.value)),
        DOUBLE(total),
        sized(b"".join(map(FIXED64, counts))),
        sized(b"".join(map(DOUBLE, bounds))),
        attributes(b"\x4a", labels),
    )
