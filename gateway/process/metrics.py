"""Prometheus metrics over all workers (docs/decisions/0007-metrics.md).

Each worker writes what it has counted to a file of its own, once a second. The supervisor adds the files up when it is
asked, and keeps what workers that have ended had counted.
"""

import asyncio
import json
import os
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, Literal

import structlog
from prometheus_client.core import Metric

from common.exposition import add_buckets, exposition, metric
from common.exposition import histogram as histogram_metric
from gateway.client.client_connection import ClientConnection
from gateway.exchange.absent import Absent
from gateway.observe.tally import BUCKETS, histogram
from gateway.upstream.upstream_connection import UpstreamConnection

if TYPE_CHECKING:
    from gateway.process.worker import Worker

log = structlog.get_logger()

PUBLISH_SECONDS = 1.0
BOUNDS = range(7, 27)  # of the histograms' buckets: powers of two from 128 us to 67 s
Kind = Literal["counter", "gauge"]
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def snapshot(worker: "Worker") -> dict[str, Any]:
    """What a worker has counted, and how it is now."""
    clients = in_flight = 0
    connections: Counter[str] = Counter()
    for timed in worker.deadlines:
        if isinstance(timed, ClientConnection):
            clients += 1
            in_flight += timed.in_flight
        elif isinstance(timed, Absent):
            in_flight += timed.in_flight
        elif isinstance(timed, UpstreamConnection):
            connections[f"{timed.pool.name} {'idle' if timed.exchange is None else 'busy'}"] += 1
    return {
        "exchanges": [[t.route, t.verdict, t.status, t.count] for t in worker.recorder.tallies()],
        "upstream": worker.recorder.latency_by_route,
        "take": worker.link.take_latency,
        "batches": worker.link.batches,
        "breaks": worker.link.breaks,
        "dropped": worker.access_log.dropped if worker.access_log is not None else 0,
        "clients": clients,
        "in_flight": in_flight,
        "connections": connections,
        "link_up": int(worker.link.open),
        "open_settlements": worker.settlements.open,
        "given_back": worker.settlements.given_back,
        "capped": worker.settlements.capped,
        "shortfall": worker.settlements.shortfall,
        "reports": [[*key, count] for key, count in worker.recorder.reports.items()],
        "receipts_lost": worker.link.receipts.lost[0],
        "unwritten_seconds": worker.link.receipts.unwritten_seconds(monotonic()),
        "journal_open": worker.degraded.open if worker.degraded is not None else 0,
        "replayed": worker.degraded.replayed if worker.degraded is not None else 0,
        "key_set_age": worker.keyset.age_seconds,
    }


class MetricsPublisher:
    """Writes a worker's snapshot where the supervisor finds it."""

    def __init__(self, worker: "Worker", directory: Path) -> None:
        self._worker = worker
        self._file = directory / f"{os.getpid()}.json"
        self._timer: asyncio.TimerHandle | None = None
        self._failed = False

    def start(self) -> None:
        self._timer = self._worker.loop.call_later(PUBLISH_SECONDS, self.start)
        self.publish()

    def publish(self) -> None:
        written = self._file.with_suffix(".new")
        try:
            written.write_text(json.dumps(snapshot(self._worker)))
            written.replace(self._file)
        except OSError as e:
            if not self._failed:
                log.error("metrics not written", reason=e.strerror)
            self._failed = True
        else:
            self._failed = False

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self.publish()


class MetricsAggregator:
    """The sum over all workers, for the supervisor."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._ended: list[dict[str, Any]] = []

    def collect(self, alive: Collection[int]) -> str:
        """The exposition. What workers not among these process ids had counted is kept; their gauges are not."""
        living = []
        for file in sorted(self._directory.glob("*.json")):
            told: dict[str, Any] = json.loads(file.read_text())
            if int(file.stem) in alive:
                living.append(told)
            else:
                file.unlink()
                self._ended = [_counted([*self._ended, told])]
        return exposition(_metrics(_counted([*self._ended, *living]), living))


def _counted(parts: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    exchanges: Counter[tuple[str, str, int]] = Counter()
    upstream: dict[str, list[int]] = {}
    take = histogram()
    batches = breaks = dropped = replayed = given_back = capped = 0
    shortfall: Counter[str] = Counter()
    reports: Counter[tuple[str, ...]] = Counter()
    for part in parts:
        for route, verdict, status, count in part["exchanges"]:
            exchanges[route, verdict, status] += count
        for route, counted in part["upstream"].items():
            upstream[route] = _added(upstream.get(route, histogram()), counted)
        take = _added(take, part["take"])
        batches += part["batches"]
        breaks += part["breaks"]
        dropped += part["dropped"]
        replayed += part["replayed"]
        given_back += part["given_back"]
        capped += part["capped"]
        shortfall.update(part["shortfall"])
        for route, told, count in part["reports"]:
            reports[route, told] += count
    return {
        "exchanges": [[*key, count] for key, count in sorted(exchanges.items())],
        "upstream": upstream,
        "take": take,
        "batches": batches,
        "breaks": breaks,
        "replayed": replayed,
        "dropped": dropped,
        "given_back": given_back,
        "capped": capped,
        "shortfall": shortfall,
        "reports": [[*key, count] for key, count in sorted(reports.items())],
    }


def _added(one: list[int], other: list[int]) -> list[int]:
    return [a + b for a, b in zip(one, other, strict=True)]


def _metrics(counted: dict[str, Any], living: list[dict[str, Any]]) -> Iterator[Metric]:
    decisions: Counter[tuple[str, ...]] = Counter()
    responses: Counter[tuple[str, ...]] = Counter()
    for route, verdict, status, count in counted["exchanges"]:
        decisions[route, verdict] += count
        responses[route, f"{status // 100}xx"] += count
    about = "Finished exchanges by what was decided on them."
    yield _metric("decisions_total", "counter", about, decisions, ("route", "verdict"))
    about = "Finished exchanges by status; a client that left is 4xx."
    yield _metric("responses_total", "counter", about, responses, ("route", "class"))
    takes = histogram_metric("quotagate_take_seconds", "From sending a take to its reply.")
    _add_histogram(takes, {}, counted["take"])
    yield takes
    heads = histogram_metric("quotagate_upstream_seconds", "From forwarding a request to the head of its answer.")
    for route, values in sorted(counted["upstream"].items()):
        _add_histogram(heads, {"route": route}, values)
    yield heads
    figures: tuple[tuple[str, Kind, str, float], ...] = (
        ("link_batches_total", "counter", "Script calls that carried takes.", counted["batches"]),
        ("redis_breaks_total", "counter", "How often the breaker in front of Redis opened.", counted["breaks"]),
        ("access_log_dropped_total", "counter", "Lines that a slow or full disk did not take.", counted["dropped"]),
        ("charges_given_back_total", "counter", "Charges given back in full.", counted["given_back"]),
        ("refunds_capped_total", "counter", "Refunds refused: their period had had its share.", counted["capped"]),
        (
            "journal_replayed_total",
            "counter",
            "Requests forwarded in an outage that were charged afterwards.",
            counted["replayed"],
        ),
        (
            "journal_open",
            "gauge",
            "Requests forwarded in an outage that are not charged yet.",
            sum(part["journal_open"] for part in living),
        ),
        (
            "receipts_dropped",
            "gauge",
            "Takes that no worker remembers any more and that may not be written: a flush of Redis would lose them.",
            sum(part["receipts_lost"] for part in living),
        ),
        (
            "unwritten_seconds",
            "gauge",
            "For how long the oldest take waits that is not known to be in PostgreSQL.",
            round(max((part["unwritten_seconds"] for part in living), default=0.0), 3),
        ),
        ("in_flight", "gauge", "Exchanges under way.", sum(part["in_flight"] for part in living)),
        ("client_connections", "gauge", "Connections of clients.", sum(part["clients"] for part in living)),
        ("workers", "gauge", "Workers that run.", len(living)),
        ("redis_link_up", "gauge", "Workers whose link to Redis is up.", sum(part["link_up"] for part in living)),
        (
            "open_settlements",
            "gauge",
            "Corrections of charges that the ledger has not confirmed.",
            sum(part["open_settlements"] for part in living),
        ),
    )
    for name, kind, about, value in figures:
        yield _metric(name, kind, about, {(): value}, ())
    reports: dict[tuple[str, ...], float] = {(route, outcome): count for route, outcome, count in counted["reports"]}
    about = "What upstreams told of the units used."
    yield _metric("usage_reports_total", "counter", about, reports, ("route", "outcome"))
    shortfall: dict[tuple[str, ...], float] = {(meter,): units for meter, units in sorted(counted["shortfall"].items())}
    about = "Units used that could not be charged: a hard limit is never exceeded."
    yield _metric("shortfall_units_total", "counter", about, shortfall, ("meter",))
    ages = [part["key_set_age"] for part in living if part["key_set_age"] is not None]
    if ages:
        about = "Since the key set was last read, in the worker where that is longest ago."
        yield _metric("key_set_age_seconds", "gauge", about, {(): round(max(ages), 3)}, ())
    connections: Counter[tuple[str, ...]] = Counter()
    for part in living:
        for words, count in part["connections"].items():
            upstream, _, state = words.rpartition(" ")
            connections[upstream, state] += count
    yield _metric("upstream_connections", "gauge", "Connections to upstreams.", connections, ("upstream", "state"))


def _metric(
    name: str, kind: Kind, about: str, values: Mapping[tuple[str, ...], float], labels: tuple[str, ...]
) -> Metric:
    named = [(dict(zip(labels, of, strict=True)), value) for of, value in values.items()]
    return metric(f"quotagate_{name}", kind, about, named)


def _add_histogram(found: Metric, labels: Mapping[str, str], values: list[int]) -> None:
    buckets = [(f"{(1 << bits) / 1e6:g}", sum(values[: bits + 1])) for bits in BOUNDS]
    add_buckets(found, labels, [*buckets, ("+Inf", sum(values[:BUCKETS]))], values[BUCKETS] / 1e6)
