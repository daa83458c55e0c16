"""What a worker writes down for the metrics, and how that of several workers is added up."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TypedDict

from gateway.observe.tally import histogram


class Counts(TypedDict):
    """What only grows."""

    exchanges: list[tuple[str, str, int, int]]
    """Route, verdict, status, count."""
    upstream: Mapping[str, list[int]]
    """Histograms by route."""
    take: list[int]
    """A histogram."""
    batches: int
    breaks: int
    dropped: int
    replayed: int
    given_back: int
    capped: int
    shortfall: Mapping[str, int]
    """Units by meter."""
    reports: list[tuple[str, str, int]]
    """Route, outcome, count."""
    looks: list[tuple[str, str, int]]
    """Kind of the principal, outcome, count."""
    stale: int
    refusals_skipped: int
    refusals_lost: int
    turned: Mapping[str, int]
    """Connections that were closed before a request, by why."""
    telemetry_dropped: Mapping[str, int]
    """By signal, of those that are sent."""


class WorkerCounts(Counts):
    """And what is so now."""

    clients: int
    in_flight: int
    connections: Mapping[str, int]
    """By upstream and state, with a space between."""
    link_up: int
    open_settlements: int
    receipts_lost: int
    unwritten_seconds: float
    journal_open: int
    key_set_age: float | None


def sum_of(parts: Iterable[Counts]) -> Counts:
    exchanges: Counter[tuple[str, str, int]] = Counter()
    upstream: dict[str, list[int]] = {}
    take = histogram()
    batches = breaks = dropped = replayed = given_back = capped = stale = skipped = lost = 0
    shortfall: Counter[str] = Counter()
    reports: Counter[tuple[str, str]] = Counter()
    looks: Counter[tuple[str, str]] = Counter()
    turned: Counter[str] = Counter()
    telemetry: Counter[str] = Counter()
    for part in parts:
        turned.update(part["turned"])
        telemetry.update(part["telemetry_dropped"])
        for route, verdict, status, count in part["exchanges"]:
            exchanges[route, verdict, status] += count
        for route, values in part["upstream"].items():
            upstream[route] = _added(upstream.get(route, histogram()), values)
        take = _added(take, part["take"])
        batches += part["batches"]
        breaks += part["breaks"]
        dropped += part["dropped"]
        replayed += part["replayed"]
        given_back += part["given_back"]
        capped += part["capped"]
        shortfall.update(part["shortfall"])
        for route, outcome, count in part["reports"]:
            reports[route, outcome] += count
        for kind, outcome, count in part["looks"]:
            looks[kind, outcome] += count
        stale += part["stale"]
        skipped += part["refusals_skipped"]
        lost += part["refusals_lost"]
    return {
        "exchanges": [(*key, count) for key, count in sorted(exchanges.items())],
        "upstream": upstream,
        "take": take,
        "batches": batches,
        "breaks": breaks,
        "replayed": replayed,
        "dropped": dropped,
        "given_back": given_back,
        "capped": capped,
        "shortfall": shortfall,
        "reports": [(*key, count) for key, count in sorted(reports.items())],
        "looks": [(*key, count) for key, count in sorted(looks.items())],
        "stale": stale,
        "refusals_skipped": skipped,
        "refusals_lost": lost,
        "turned": turned,
        "telemetry_dropped": telemetry,
    }


def _added(one: list[int], other: list[int]) -> list[int]:
    return [a + b for a, b in zip(one, other, strict=True)]
