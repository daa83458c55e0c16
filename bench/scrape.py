"""Metrics as Prometheus would read them, before and after a run."""

import math
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

TIMEOUT_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Scrape:
    samples: Mapping[tuple[str, tuple[tuple[str, str], ...]], float]

    def since(self, before: "Scrape") -> "Scrape":
        """What counters and histograms have counted meanwhile; of gauges it says nothing."""
        return Scrape({key: value - before.samples.get(key, 0.0) for key, value in self.samples.items()})

    def total(self, name: str, **labels: str) -> float:
        """Over all samples of this name that have these labels."""
        wanted = labels.items()
        return sum(value for (of, has), value in self.samples.items() if of == name and wanted <= dict(has).items())

    def by(self, name: str, label: str) -> dict[str, float]:
        sums: dict[str, float] = {}
        for (of, has), value in self.samples.items():
            if of == name and label in dict(has):
                sums[dict(has)[label]] = sums.get(dict(has)[label], 0.0) + value
        return {of: value for of, value in sums.items() if value}

    def quantile_bound(self, name: str, share: float) -> float | None:
        """Of a histogram: the upper bound of the bucket in which that share is reached, so the quantile is at most
        this. None where nothing was counted."""
        counts: dict[float, float] = {}
        for (of, has), value in self.samples.items():
            if of == f"{name}_bucket":
                bound = float(dict(has)["le"])
                counts[bound] = counts.get(bound, 0.0) + value
        total = counts.get(math.inf, 0.0)
        if not total:
            return None
        return min(bound for bound, count in counts.items() if count >= share * total)


def read(text: str) -> Scrape:
    return Scrape(
        {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }
    )


def scrape(url: str) -> Scrape:
    """Raises OSError."""
    with urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as answer:  # noqa: S310 - an address of a stack's own
        return read(answer.read().decode())
