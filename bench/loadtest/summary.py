"""What is said after a load test. Pure: figures go in, text comes out."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from bench.busyness import IDLE_LIMIT
from bench.report import table

CPU_LIMIT_PERCENT = 85.0  # of one core: one locust process uses no more than one
FAILURES_SHOWN, FAILURE_CHARACTERS = 10, 160


@dataclass(frozen=True, slots=True)
class Line:
    """What one kind of call came to. Times in milliseconds."""

    name: str
    requests: int
    failures: int
    per_second: float
    p50: float
    p95: float
    p99: float
    longest: float

    def cells(self) -> list[str]:
        failed = f"**{self.failures:,}**" if self.failures else "0"
        times = [f"{value:,.0f}" for value in (self.p50, self.p95, self.p99, self.longest)]
        return [self.name, f"{self.requests:,}", failed, f"{self.per_second:,.1f}", *times]


@dataclass(frozen=True, slots=True)
class Generator:
    """What the load generator itself has used."""

    processes: int
    cpu_percent: float
    """Of one core, of the busiest of its processes, when it was busy."""
    idle: float | None
    """Share of the machine's time in which nothing ran, when it was busy; None where that cannot be read."""

    def verdict(self) -> str:
        used = f"{self.cpu_percent:.0f} % of a core"
        if self.cpu_percent >= CPU_LIMIT_PERCENT:
            more = f"--processes {self.processes + 1}, or workers on other machines (bench/README.md)"
            return (
                f"LOCUST WAS THE LIMIT: one of its processes used {used}, and takes no more. The gateway may be\n"
                f"faster, and times have the generator's own waiting in them. Use {more}."
            )
        if self.idle is not None and self.idle < IDLE_LIMIT:
            return (
                f"THE MACHINE WAS THE LIMIT: {self.idle:.0%} of its time was idle; the load generator used {used}.\n"
                "Times have waiting for a core in them. For the gateway's own, generate the load on another machine."
            )
        idle = "" if self.idle is None else f", and {self.idle:.0%} of the machine's time was idle"
        return f"The load generator was not the limit: {used}{idle}."


@dataclass(frozen=True, slots=True)
class Exactness:
    """Of organizations that may use `allowance` units each."""

    organizations: int
    allowance: int
    admitted: int
    """By the ledger."""
    over: int
    """Units beyond the allowances, by the ledger or by what reached the upstream, whichever is more."""
    witnessed: bool
    """Whether the upstream was asked, too."""

    def verdict(self) -> str:
        witness = "the ledger and the upstream count" if self.witnessed else "the ledger counts"
        return (
            f"Over-admitted {self.over}: {self.organizations} organizations with {self.allowance} units each were"
            f" admitted {self.admitted:,} times, as {witness}."
        )


@dataclass(frozen=True, slots=True)
class Gateway:
    """What the gateway's own metrics say of the run."""

    verdicts: Mapping[str, float]
    server_errors: int
    take_p95_ms: float | None

    def verdict(self) -> str:
        decided = ", ".join(
            f"{name} {count:,.0f}" for name, count in sorted(self.verdicts.items(), key=lambda v: -v[1])
        )
        take = "" if self.take_p95_ms is None else f" A take took at most {self.take_p95_ms:.3g} ms at p95."
        return f"At the gateway: {decided or 'nothing decided'}; {self.server_errors} answers of 5xx.{take}"


@dataclass(frozen=True, slots=True)
class Summary:
    seconds: float
    users: int
    shape: str
    total: Line
    lines: Sequence[Line]
    errors: Mapping[str, int]
    generator: Generator
    exactness: Exactness | None = None
    gateway: Gateway | None = None
    left_out: Sequence[str] = field(default_factory=tuple)

    @property
    def good(self) -> bool:
        return not self.total.failures and self.total.requests > 0 and not (self.exactness and self.exactness.over)

    def text(self) -> str:
        head = ["what was called", "requests", "failed", "/s", "p50 ms", "p95 ms", "p99 ms", "longest ms"]
        rows = [line.cells() for line in (*self.lines, self.total)]
        parts = [
            f"{self.total.requests:,} requests in {self.seconds:.0f} s, at most {self.users} users, shape {self.shape}",
            table(head, rows),
        ]
        if self.errors:
            worst = sorted(self.errors.items(), key=lambda each: -each[1])[:FAILURES_SHOWN]
            lines = [f"  {count:6,}  {' '.join(what.split())[:FAILURE_CHARACTERS]}" for what, count in worst]
            parts.append("\n".join(["Failures:", *lines]))
        said = [part.verdict() for part in (self.gateway, self.exactness, self.generator) if part is not None]
        parts += ["\n".join(said), *self.left_out]
        return "\n\n".join(parts)

    def record(self) -> dict[str, Any]:
        return {**asdict(self), "good": self.good, "verdict": self.generator.verdict()}
