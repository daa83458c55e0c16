"""The gateway's metrics as Prometheus reads them: names, labels and help texts."""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Final

from prometheus_client.core import Metric

from common.exposition import Family
from gateway.observe.tally import BUCKETS
from gateway.process.worker_counts import Counts, WorkerCounts

BOUNDS: Final = range(7, 27)  # of the histograms' buckets: powers of two from 128 us to 67 s


def _bound(bits: int) -> str:
    return f"{(1 << bits) / 1e6:g}"


def _counter(name: str, about: str, *labels: str) -> Family:
    return Family(f"quotagate_{name}", "counter", about, labels)


def _gauge(name: str, about: str, *labels: str) -> Family:
    return Family(f"quotagate_{name}", "gauge", about, labels)


def _histogram(name: str, about: str, *labels: str) -> Family:
    return Family(f"quotagate_{name}", "histogram", about, labels, tuple(map(_bound, BOUNDS)))


DECISIONS: Final = _counter("decisions_total", "Finished exchanges by what was decided on them.", "route", "verdict")
RESPONSES: Final = _counter(
    "responses_total", "Finished exchanges by status; a client that left is 4xx.", "route", "class"
)
TAKE: Final = _histogram("take_seconds", "From sending a take to its reply.")
UPSTREAM: Final = _histogram("upstream_seconds", "From forwarding a request to the head of its answer.", "route")
BATCHES: Final = _counter("link_batches_total", "Script calls that carried takes.")
BREAKS: Final = _counter("redis_breaks_total", "How often the breaker in front of Redis opened.")
DROPPED: Final = _counter("access_log_dropped_total", "Lines that a slow or full disk did not take.")
GIVEN_BACK: Final = _counter("charges_given_back_total", "Charges given back in full.")
CAPPED: Final = _counter("refunds_capped_total", "Refunds refused: their period had had its share.")
REPLAYED: Final = _counter("journal_replayed_total", "Requests forwarded in an outage that were charged afterwards.")
JOURNAL_OPEN: Final = _gauge("journal_open", "Requests forwarded in an outage that are not charged yet.")
RECEIPTS_DROPPED: Final = _gauge(
    "receipts_dropped",
    "Takes that no worker remembers any more and that may not be written: a flush of Redis would lose them.",
)
UNWRITTEN: Final = _gauge(
    "unwritten_seconds", "For how long the oldest take waits that is not known to be in PostgreSQL."
)
IN_FLIGHT: Final = _gauge("in_flight", "Exchanges under way.")
CLIENTS: Final = _gauge("client_connections", "Connections of clients.")
WORKERS: Final = _gauge("workers", "Workers that run.")
LINK_UP: Final = _gauge("redis_link_up", "Workers whose link to Redis is up.")
OPEN_SETTLEMENTS: Final = _gauge("open_settlements", "Corrections of charges that the ledger has not confirmed.")
REPORTS: Final = _counter("usage_reports_total", "What upstreams told of the units used.", "route", "outcome")
SHORTFALL: Final = _counter(
    "shortfall_units_total", "Units used that could not be charged: a hard limit is never exceeded.", "meter"
)
LOOKS: Final = _counter(
    "looks_total",
    "Readings of how a token or an API key stands: at first sight, and whenever its organization has changed.",
    "principal",
    "outcome",
)
STALE: Final = _counter(
    "stale_takes_total", "Takes that said another version of their organization than the published one."
)
NOT_KEPT: Final = _counter(
    "refusals_not_kept_total",
    "Refused requests that nobody can look up: beyond the bounds of a second, or while Redis was away.",
    "reason",
)
TURNED_AWAY: Final = _counter(
    "connections_turned_away_total",
    "Connections that were closed before a request: for their TLS, or their PROXY header.",
    "reason",
)
TELEMETRY_DROPPED: Final = _counter(
    "telemetry_dropped_total",
    "What no collector got: recorded requests (traces), lines of the log (logs), reports (metrics).",
    "signal",
)
KEY_SET_AGE: Final = _gauge(
    "key_set_age_seconds",
    "Since the key set was last read, of the issuer and in the worker where that is longest ago.",
)
UPSTREAM_CONNECTIONS: Final = _gauge("upstream_connections", "Connections to upstreams.", "upstream", "state")

OF_WORKERS: Final = (
    DECISIONS,
    RESPONSES,
    TAKE,
    UPSTREAM,
    BATCHES,
    BREAKS,
    DROPPED,
    GIVEN_BACK,
    CAPPED,
    REPLAYED,
    JOURNAL_OPEN,
    RECEIPTS_DROPPED,
    UNWRITTEN,
    IN_FLIGHT,
    CLIENTS,
    WORKERS,
    LINK_UP,
    OPEN_SETTLEMENTS,
    REPORTS,
    SHORTFALL,
    LOOKS,
    STALE,
    NOT_KEPT,
    TURNED_AWAY,
    TELEMETRY_DROPPED,
    KEY_SET_AGE,
    UPSTREAM_CONNECTIONS,
)
"""What workers count."""


def families(counted: Counts, living: list[WorkerCounts]) -> Iterator[Metric]:
    """`counted` by all workers that there ever were; `living`: those that run."""
    yield from _exchanges(counted)
    yield from _latencies(counted)
    yield from _totals(counted)
    yield from _gauges(living)
    yield from _usage(counted)
    yield from _looks(counted)
    yield NOT_KEPT.of({("bounds",): counted["refusals_skipped"], ("redis_away",): counted["refusals_lost"]})
    yield TURNED_AWAY.of({(why,): count for why, count in sorted(counted["turned"].items())})
    yield from _key_sets(living)
    yield from _upstream_connections(living)


def telemetry_dropped(counted: Counts, own: Mapping[str, int]) -> Metric:
    """`own`: of the process that answers for all."""
    totals = Counter(counted["telemetry_dropped"])
    totals.update(own)
    return TELEMETRY_DROPPED.of({(signal,): count for signal, count in sorted(totals.items())})


def _exchanges(counted: Counts) -> Iterator[Metric]:
    decisions: Counter[tuple[str, ...]] = Counter()
    responses: Counter[tuple[str, ...]] = Counter()
    for route, verdict, status, count in counted["exchanges"]:
        decisions[route, verdict] += count
        responses[route, f"{status // 100}xx"] += count
    yield DECISIONS.of(decisions)
    yield RESPONSES.of(responses)


def _latencies(counted: Counts) -> Iterator[Metric]:
    yield TAKE.bucketed({(): _buckets(counted["take"])})
    yield UPSTREAM.bucketed({(route,): _buckets(values) for route, values in sorted(counted["upstream"].items())})


def _totals(counted: Counts) -> Iterator[Metric]:
    yield BATCHES.one(counted["batches"])
    yield BREAKS.one(counted["breaks"])
    yield DROPPED.one(counted["dropped"])
    yield GIVEN_BACK.one(counted["given_back"])
    yield CAPPED.one(counted["capped"])
    yield REPLAYED.one(counted["replayed"])


def _gauges(living: list[WorkerCounts]) -> Iterator[Metric]:
    yield JOURNAL_OPEN.one(sum(each["journal_open"] for each in living))
    yield RECEIPTS_DROPPED.one(sum(each["receipts_lost"] for each in living))
    yield UNWRITTEN.one(round(max((each["unwritten_seconds"] for each in living), default=0.0), 3))
    yield IN_FLIGHT.one(sum(each["in_flight"] for each in living))
    yield CLIENTS.one(sum(each["clients"] for each in living))
    yield WORKERS.one(len(living))
    yield LINK_UP.one(sum(each["link_up"] for each in living))
    yield OPEN_SETTLEMENTS.one(sum(each["open_settlements"] for each in living))


def _usage(counted: Counts) -> Iterator[Metric]:
    yield REPORTS.of({(route, outcome): count for route, outcome, count in counted["reports"]})
    yield SHORTFALL.of({(meter,): units for meter, units in sorted(counted["shortfall"].items())})


def _looks(counted: Counts) -> Iterator[Metric]:
    yield LOOKS.of({(kind, outcome): count for kind, outcome, count in counted["looks"]})
    yield STALE.one(counted["stale"])


def _key_sets(living: list[WorkerCounts]) -> Iterator[Metric]:
    ages = [age for each in living if (age := each["key_set_age"]) is not None]
    if ages:
        yield KEY_SET_AGE.one(round(max(ages), 3))


def _upstream_connections(living: list[WorkerCounts]) -> Iterator[Metric]:
    connections: Counter[tuple[str, ...]] = Counter()
    for each in living:
        for words, count in each["connections"].items():
            upstream, _, state = words.rpartition(" ")
            connections[upstream, state] += count
    yield UPSTREAM_CONNECTIONS.of(connections)


def _buckets(values: list[int]) -> tuple[list[tuple[str, int]], float]:
    buckets = [(_bound(bits), sum(values[: bits + 1])) for bits in BOUNDS]
    return [*buckets, ("+Inf", sum(values[:BUCKETS]))], values[BUCKETS] / 1e6
