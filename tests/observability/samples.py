"""What was scraped of a real stack, as hours of a Prometheus: a clean hour, and then its cause for hours.

A counter goes on by what it rose between the first and the last scrape; a minute of the clean hour has what a second
of the scrapes had, so that causes need not outdo it. A gauge of the clean hour repeats what was scraped, and is
afterwards as it was at the end; an age that grew like the clock goes on growing. A moment keeps its distance from the
time of its scrape, or stays where it is while its cause lasts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from prometheus_client.parser import text_string_to_metric_families

from quotagate.observability.catalogue import BY_SAMPLE

STEP_SECONDS: Final = 60
CLEAN_MINUTES: Final = 60
GROWS: Final = 0.5  # of the clock's pace: gateways tell what they were a second ago

Series = tuple[str, tuple[tuple[str, str], ...]]
"""A name and its labels."""


@dataclass(frozen=True, slots=True)
class Scrape:
    at: float
    """Seconds since 1970."""
    values: Mapping[Series, float]

    def without(self, name: str) -> "Scrape":
        """As if there were no such metric."""
        return Scrape(self.at, {series: value for series, value in self.values.items() if series[0] != name})


def read(text: str, job: str, instance: str) -> dict[Series, float]:
    """An exposition as Prometheus keeps it."""
    found: dict[Series, float] = {("up", tuple(sorted({"job": job, "instance": instance}.items()))): 1.0}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = {**sample.labels, "job": job, "instance": instance}
            found[sample.name, tuple(sorted(labels.items()))] = sample.value
    return found


def down(job: str, instance: str) -> dict[Series, float]:
    return {("up", tuple(sorted({"job": job, "instance": instance}.items()))): 0.0}


def series_of(clean: Sequence[Scrape], cause: Sequence[Scrape], minutes: int) -> dict[Series, list[float | None]]:
    """Each series with a value for each minute, of the clean hour and of the minutes that the cause lasts; None: it is
    not there."""
    names = sorted({series for scrape in (*clean, *cause) for series in scrape.values})
    return {series: _steps(series, clean, cause, minutes) for series in names}


def moves(name: str, cause: Sequence[Scrape]) -> bool:
    """Whether a metric of this name rose from the first scrape to the last; an age, like the clock."""
    first, last = cause[0].values, cause[-1].values
    alike = [series for series in last if series[0] == name and series in first]
    if name.endswith("_seconds"):
        return any(_ages(series, cause) for series in alike)
    return any(last[series] > first[series] for series in alike)


def written(values: Sequence[float | None]) -> str:
    """As promtool reads them. A series that ends is marked, as Prometheus does."""
    words: list[str] = []
    for before, value in zip((None, *values), values, strict=False):
        if value is None:
            words.append("_" if before is None else "stale")
        else:
            words.append(repr(value))
    return " ".join(words)


def _steps(series: Series, clean: Sequence[Scrape], cause: Sequence[Scrape], minutes: int) -> list[float | None]:
    name = series[0]
    family = BY_SAMPLE.get(name)
    if family is not None and family.kind != "gauge":
        return _counter(series, clean, cause, minutes)
    steps = [_repeated(series, clean, step) for step in range(CLEAN_MINUTES)]
    if not cause:
        return steps
    return steps + [_lasting(series, cause, step) for step in range(minutes)]


def _counter(series: Series, clean: Sequence[Scrape], cause: Sequence[Scrape], minutes: int) -> list[float | None]:
    """It begins with 0 where its first scrape lacks it: nothing of this kind has happened before."""
    steps: list[float | None] = []
    value = 0.0
    for scrapes, count in ((clean, CLEAN_MINUTES), (cause, minutes)):
        if not scrapes or all(series not in scrape.values for scrape in scrapes):
            steps += [None] * (count if scrapes else 0)
            continue
        first, last = scrapes[0].values.get(series, 0.0), scrapes[-1].values.get(series, 0.0)
        if scrapes is cause and (before := clean[-1].values.get(series)) is not None:
            value += max(0.0, first - before)  # what happened between the last clean scrape and this one
        else:
            value = first
        pace = max(0.0, last - first) / max(scrapes[-1].at - scrapes[0].at, 0.001)
        for _ in range(count):
            steps.append(value)
            value += pace * (STEP_SECONDS if scrapes is cause else 1)
    return steps


def _repeated(series: Series, scrapes: Sequence[Scrape], minute: int) -> float | None:
    """Of the clean hour."""
    scrape = scrapes[minute % len(scrapes)]
    value = scrape.values.get(series)
    if value is None or not series[0].endswith("_timestamp_seconds"):
        return value
    return value - scrape.at + minute * STEP_SECONDS


def _lasting(series: Series, cause: Sequence[Scrape], minute: int) -> float | None:
    """Of the time that the cause lasts; `minute`: of it."""
    first, last = cause[0].values.get(series), cause[-1].values.get(series)
    if last is None:
        return None
    if series[0].endswith("_timestamp_seconds"):
        begins = CLEAN_MINUTES * STEP_SECONDS
        moves = len(cause) > 1 and first != last
        return last - cause[-1].at + begins + (minute * STEP_SECONDS if moves else 0)
    return last + minute * STEP_SECONDS if first is not None and _ages(series, cause) else last


def _ages(series: Series, cause: Sequence[Scrape]) -> bool:
    first, last = cause[0], cause[-1]
    grown = last.values[series] - first.values[series]
    return series[0].endswith("_seconds") and grown > GROWS * (last.at - first.at)
