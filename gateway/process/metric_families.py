"""The gateway's metrics as Prometheus reads them: names, labels and help texts."""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Literal

from prometheus_client.core import Metric

from common.exposition import add_buckets, histogram, metric
from gateway.observe.tally import BUCKETS
from gateway.process.worker_counts import Counts, WorkerCounts

BOUNDS = range(7, 27)  # of the histograms' buckets: powers of two from 128 us to 67 s
Kind = Literal["counter", "gauge"]


def families(counted: Counts, living: list[WorkerCounts]) -> Iterator[Metric]:
    """`counted` by all workers that there ever were; `living`: those that run."""
    yield from _exchanges(counted)
    yield from _latencies(counted)
    yield from _totals(counted)
    yield from _gauges(living)
    yield from _usage(counted)
    yield from _looks(counted)
    yield from _refusals(counted)
    yield from _key_sets(living)
    yield from _upstream_connections(living)


def _exchanges(counted: Counts) -> Iterator[Metric]:
    decisions: Counter[tuple[str, ...]] = Counter()
    responses: Counter[tuple[str, ...]] = Counter()
    for route, verdict, status, count in counted["exchanges"]:
        decisions[route, verdict] += count
        responses[route, f"{status // 100}xx"] += count
    about = "Finished exchanges by what was decided on them."
    yield _family("decisions_total", "counter", about, decisions, ("route", "verdict"))
    about = "Finished exchanges by status; a client that left is 4xx."
    yield _family("responses_total", "counter", about, responses, ("route", "class"))


def _latencies(counted: Counts) -> Iterator[Metric]:
    takes = histogram("quotagate_take_seconds", "From sending a take to its reply.")
    _add_values(takes, {}, counted["take"])
    yield takes
    heads = histogram("quotagate_upstream_seconds", "From forwarding a request to the head of its answer.")
    for route, values in sorted(counted["upstream"].items()):
        _add_values(heads, {"route": route}, values)
    yield heads


def _totals(counted: Counts) -> Iterator[Metric]:
    yield _total("link_batches_total", "Script calls that carried takes.", counted["batches"])
    yield _total("redis_breaks_total", "How often the breaker in front of Redis opened.", counted["breaks"])
    yield _total("access_log_dropped_total", "Lines that a slow or full disk did not take.", counted["dropped"])
    yield _total("charges_given_back_total", "Charges given back in full.", counted["given_back"])
    yield _total("refunds_capped_total", "Refunds refused: their period had had its share.", counted["capped"])
    about = "Requests forwarded in an outage that were charged afterwards."
    yield _total("journal_replayed_total", about, counted["replayed"])


def _gauges(living: list[WorkerCounts]) -> Iterator[Metric]:
    about = "Requests forwarded in an outage that are not charged yet."
    yield _gauge("journal_open", about, sum(each["journal_open"] for each in living))
    about = "Takes that no worker remembers any more and that may not be written: a flush of Redis would lose them."
    yield _gauge("receipts_dropped", about, sum(each["receipts_lost"] for each in living))
    about = "For how long the oldest take waits that is not known to be in PostgreSQL."
    longest = max((each["unwritten_seconds"] for each in living), default=0.0)
    yield _gauge("unwritten_seconds", about, round(longest, 3))
    yield _gauge("in_flight", "Exchanges under way.", sum(each["in_flight"] for each in living))
    yield _gauge("client_connections", "Connections of clients.", sum(each["clients"] for each in living))
    yield _gauge("workers", "Workers that run.", len(living))
    yield _gauge("redis_link_up", "Workers whose link to Redis is up.", sum(each["link_up"] for each in living))
    about = "Corrections of charges that the ledger has not confirmed."
    yield _gauge("open_settlements", about, sum(each["open_settlements"] for each in living))


def _usage(counted: Counts) -> Iterator[Metric]:
    reports: dict[tuple[str, ...], float] = {(route, outcome): count for route, outcome, count in counted["reports"]}
    about = "What upstreams told of the units used."
    yield _family("usage_reports_total", "counter", about, reports, ("route", "outcome"))
    shortfall: dict[tuple[str, ...], float] = {(meter,): units for meter, units in sorted(counted["shortfall"].items())}
    about = "Units used that could not be charged: a hard limit is never exceeded."
    yield _family("shortfall_units_total", "counter", about, shortfall, ("meter",))


def _looks(counted: Counts) -> Iterator[Metric]:
    looks: dict[tuple[str, ...], float] = {(kind, outcome): count for kind, outcome, count in counted["looks"]}
    about = "Readings of how a token or an API key stands: at first sight, and whenever its organization has changed."
    yield _family("looks_total", "counter", about, looks, ("principal", "outcome"))
    about = "Takes that said another version of their organization than the published one."
    yield _total("stale_takes_total", about, counted["stale"])


def _refusals(counted: Counts) -> Iterator[Metric]:
    about = "Refused requests that nobody can look up: beyond the bounds of a second, or while Redis was away."
    not_kept: dict[tuple[str, ...], float] = {
        ("bounds",): counted["refusals_skipped"],
        ("redis_away",): counted["refusals_lost"],
    }
    yield _family("refusals_not_kept_total", "counter", about, not_kept, ("reason",))


def _key_sets(living: list[WorkerCounts]) -> Iterator[Metric]:
    ages = [age for each in living if (age := each["key_set_age"]) is not None]
    if ages:
        about = "Since the key set was last read, of the issuer and in the worker where that is longest ago."
        yield _gauge("key_set_age_seconds", about, round(max(ages), 3))


def _upstream_connections(living: list[WorkerCounts]) -> Iterator[Metric]:
    connections: Counter[tuple[str, ...]] = Counter()
    for each in living:
        for words, count in each["connections"].items():
            upstream, _, state = words.rpartition(" ")
            connections[upstream, state] += count
    yield _family("upstream_connections", "gauge", "Connections to upstreams.", connections, ("upstream", "state"))


def _total(name: str, about: str, value: float) -> Metric:
    return _family(name, "counter", about, {(): value}, ())


def _gauge(name: str, about: str, value: float) -> Metric:
    return _family(name, "gauge", about, {(): value}, ())


def _family(
    name: str, kind: Kind, about: str, values: Mapping[tuple[str, ...], float], labels: tuple[str, ...]
) -> Metric:
    named = [(dict(zip(labels, of, strict=True)), value) for of, value in values.items()]
    return metric(f"quotagate_{name}", kind, about, named)


def _add_values(family: Metric, labels: Mapping[str, str], values: list[int]) -> None:
    buckets = [(f"{(1 << bits) / 1e6:g}", sum(values[: bits + 1])) for bits in BOUNDS]
    add_buckets(family, labels, [*buckets, ("+Inf", sum(values[:BUCKETS]))], values[BUCKETS] / 1e6)
