"""Contestants take turns: in every round each case is measured for each of them, one after the other.

What slows one of them in a round slows the others, so ratios are taken within a round; their median is reported.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.harness import Load, cpu_seconds, load
from bench.report import Bars, Goal, number
from bench.site import Proxy


@dataclass(frozen=True)
class Case:
    """One kind of load."""

    title: str
    requests: str
    """The name of what is sent."""
    contestants: Sequence[str]
    seconds: int
    connections: int = 64
    status: int = 200


@dataclass(frozen=True, slots=True)
class Sample:
    """One case, one contestant, one round."""

    cpu_us: float
    """User and system time of the worker for one request."""
    requests: int
    requests_per_second: float
    p50_us: int
    p99_us: int


Samples = dict[str, dict[str, list[Sample]]]
"""By title of the case, and by contestant: those of all rounds."""


@dataclass
class Rounds:
    proxies: Mapping[str, Proxy]
    requests: Mapping[str, str | Path]
    """By name: an organization whose one head is repeated, or the file of varied requests."""
    samples: Samples = field(default_factory=dict)

    def run(self, cases: Sequence[Case], rounds: int) -> None:
        for at in range(rounds):
            for case in cases:
                turn = at % len(case.contestants)
                for name in (*case.contestants[turn:], *case.contestants[:turn]):
                    sample = self.measure(case, name)
                    self.samples.setdefault(case.title, {}).setdefault(name, []).append(sample)

    def measure(self, case: Case, name: str) -> Sample:
        proxy = self.proxies[name]
        before = cpu_seconds(proxy.worker)
        done = load(
            proxy.port, self.requests[case.requests], case.seconds, case.connections, case.status, scheme=proxy.scheme
        )
        cpu_us = (cpu_seconds(proxy.worker) - before) / done.requests * 1e6
        print(
            f"{case.title:26} {name:22} {cpu_us:7.1f} us CPU a request  {done.requests_per_second:7.0f}/s"
            f"  p50 {done.p50_us:6} p99 {done.p99_us:6} us",
            flush=True,
        )
        return sample_of(cpu_us, done)

    def charged(self, cases: Sequence[Case], unlimited: Sequence[str]) -> int:
        """Requests that were admitted by contestants that charge."""
        admitting = {case.title for case in cases if case.status < 400}
        return sum(
            sample.requests
            for title in admitting
            for name, samples in self.samples[title].items()
            if name not in unlimited
            for sample in samples
        )

    def figures(self, title: str, name: str, figure: str) -> list[float]:
        return [getattr(sample, figure) for sample in self.samples[title][name]]

    def beside(self, about: str, bound: float, title: str, figure: str, names: tuple[str, str]) -> Goal:
        """The ratio of one figure of two contestants."""
        own, peer = (self.figures(title, name, figure) for name in names)
        return ratio(about, bound, own, peer)

    def bars(self, title: str, figure: str, about: str) -> Bars:
        return Bars(
            f"{title}: {about}",
            {name: statistics.median(self.figures(title, name, figure)) for name in self.samples[title]},
        )


def sample_of(cpu_us: float, done: Load) -> Sample:
    return Sample(cpu_us, done.requests, done.requests_per_second, done.p50_us, done.p99_us)


def ratio(
    about: str, bound: float, numerators: Sequence[float], denominators: Sequence[float], at_least: bool = False
) -> Goal:
    """The median of each round's."""
    ratios = [a / b for a, b in zip(numerators, denominators, strict=True)]
    return Goal(about, statistics.median(ratios), bound, at_least=at_least, spread=(min(ratios), max(ratios)))


def rows(bars: Sequence[Bars], names: Sequence[str]) -> list[list[str]]:
    return [
        [group.title, *(number(group.values[name]) if name in group.values else "" for name in names)] for group in bars
    ]
