"""Watches a load test from inside of locust: what it measured, what it used itself, and what the gateway says."""

import time
from collections.abc import Sequence
from typing import Any

import gevent
import httpx
from locust.env import Environment
from locust.stats import StatsEntry

from bench import scrape
from bench.busyness import idle_share, machine_times
from bench.loadtest.callers import Callers
from bench.loadtest.summary import Exactness, Gateway, Generator, Line, Summary

PROGRESS_SECONDS = 5.0
TIMEOUT_SECONDS = 30.0


class Observation:
    """One test, in the process that sums it up: the only one, or the master."""

    def __init__(self, environment: Environment, callers: Callers, left_out: list[str]) -> None:
        self._environment = environment
        self._callers = callers
        self._left_out = left_out
        self._peak_users = 0
        self._cpu: dict[str, list[float]] = {}
        self._idle: list[float] = []
        self._before: scrape.Scrape | None = None
        self._started = 0.0
        self._progress: gevent.Greenlet | None = None

    def start(self) -> None:
        self._cpu.clear()
        self._idle.clear()
        self._before = _scraped(self._callers.metrics)
        self._started, self._peak_users = time.monotonic(), 0
        self._progress = gevent.spawn(self._tell)

    def stop(self) -> None:
        if self._progress is not None:
            self._progress.kill()
            self._progress = None

    def used(self, process: str, cpu_percent: float) -> None:
        """By one process of the load generator in the last seconds."""
        self._cpu.setdefault(process, []).append(cpu_percent)

    def summary(self) -> Summary:
        stats = self._environment.stats
        seconds = max(0.001, (stats.last_request_timestamp or 0) - (stats.start_time or 0))
        entries = sorted(stats.entries.values(), key=lambda entry: -entry.num_requests)
        shape = self._environment.shape_class
        busiest = [at_its_busiest(each) for each in self._cpu.values()]
        return Summary(
            seconds=seconds,
            users=self._peak_users,
            shape=type(shape).__name__.lower() if shape is not None else "constant",
            total=line(stats.total, seconds, "all"),
            lines=[line(entry, seconds) for entry in entries],
            errors={f"{error.name}: {error.error}": error.occurrences for error in stats.errors.values()},
            generator=Generator(
                max(1, len(busiest)),
                max(busiest, default=0.0),
                1 - at_its_busiest([1 - idle for idle in self._idle]) if self._idle else None,
            ),
            exactness=exactness(self._callers),
            gateway=self._gateway(),
            left_out=tuple(self._left_out),
        )

    def _gateway(self) -> Gateway | None:
        after = _scraped(self._callers.metrics)
        if after is None or self._before is None:
            return None
        counted = after.since(self._before)
        take = counted.quantile_bound("quotagate_take_seconds", 0.95)
        return Gateway(
            verdicts=counted.by("quotagate_decisions_total", "verdict"),
            server_errors=round(counted.by("quotagate_responses_total", "class").get("5xx", 0)),
            take_p95_ms=None if take is None else take * 1000,
        )

    def _tell(self) -> None:
        """A line now and then: a minute without a word looks like a machine that hangs."""
        runner, total = self._environment.runner, self._environment.stats.total
        told, times = 0.0, machine_times()
        while True:
            gevent.sleep(0.5)
            users = runner.user_count if runner is not None else 0
            self._peak_users = max(self._peak_users, users)
            passed = time.monotonic() - self._started
            if passed - told >= PROGRESS_SECONDS:
                told, before, times = passed, times, machine_times()
                self._idle += [] if (idle := idle_share(before, times)) is None else [idle]
                p95 = total.get_current_response_time_percentile(0.95) or 0
                print(
                    f"{passed:6.0f} s  {users:5} users  {total.current_rps:8,.1f} requests/s"
                    f"  p95 {p95:6,.0f} ms  {total.num_failures:5} failed",
                    flush=True,
                )


def line(entry: StatsEntry, seconds: float, name: str | None = None) -> Line:
    p50, p95, p99 = (float(entry.get_response_time_percentile(share)) for share in (0.5, 0.95, 0.99))
    per_second = entry.num_requests / seconds
    longest = float(entry.max_response_time)
    return Line(name or entry.name, entry.num_requests, entry.num_failures, per_second, p50, p95, p99, longest)


def exactness(callers: Callers) -> Exactness | None:
    """Whether organizations with few units were admitted more often than they may; None where nobody can be asked."""
    if not callers.exhausted or callers.control is None:
        return None
    headers = {"authorization": f"Bearer {callers.admin_token}"}
    allowance, over, admitted, hits = callers.allowance, 0, 0, _hits(callers.upstream)
    try:
        with httpx.Client(base_url=callers.control, headers=headers, timeout=TIMEOUT_SECONDS) as control:
            for caller in callers.exhausted:
                shown = control.get(f"/v1/entitlements/{caller.org}").raise_for_status().json()
                used = next(meter["used"] for meter in shown["meters"] if meter["meter"] == "api_calls")
                admitted += used
                over += max(0, used - allowance, (hits or {}).get(caller.org, 0) - allowance)
    except httpx.HTTPError:
        return None
    return Exactness(len(callers.exhausted), allowance, admitted, over, hits is not None)


def at_its_busiest(values: Sequence[float]) -> float:
    """The ninth decile: a limit counts where it is met, and a moment of it does not."""
    return sorted(values)[int(0.9 * (len(values) - 1))] if values else 0.0


def _scraped(url: str | None) -> scrape.Scrape | None:
    if url is None:
        return None
    try:
        return scrape.scrape(url)
    except OSError:
        return None


def _hits(upstream: str | None) -> dict[str, int] | None:
    if upstream is None:
        return None
    try:
        answer = httpx.get(f"{upstream}/_/hits", timeout=TIMEOUT_SECONDS).raise_for_status()
        by_org: dict[str, Any] = answer.json()["by_org"]
    except (httpx.HTTPError, ValueError):
        return None
    return by_org
