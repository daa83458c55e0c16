"""The objectives as config/observability.yaml has them, and what a measurement makes of one. Pure but for the file."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib import resources
from typing import Any

import yaml

from bench.open_loop.pacing import quantile
from bench.report import table


class ObjectiveUnreadable(Exception):
    """What is wrong with config/observability.yaml, in one line."""


@dataclass(frozen=True, slots=True)
class Objective:
    name: str
    about: str
    share: float
    """Of what is measured, that must be within the bounds: 0.95 is a p95, 1 the longest."""
    bound_seconds: float
    """Promised."""
    held_seconds: float
    """Tighter, and held beside it."""

    @property
    def statistic(self) -> str:
        return "longest" if self.share == 1 else f"p{100 * self.share:g}"


@dataclass(frozen=True, slots=True)
class Measured:
    """One objective after its measurement. Where it has several parts, the slowest of them counts."""

    objective: Objective
    parts: Mapping[str, float] = field(default_factory=dict)
    """What each came to, in seconds."""
    samples: int = 0
    failure: str | None = None
    """Why it could not be measured: that is no success."""

    @property
    def seconds(self) -> float:
        return max(self.parts.values(), default=float("inf"))

    @property
    def kept(self) -> bool:
        return self.failure is None and self.samples > 0 and self.seconds <= self.objective.bound_seconds

    @property
    def held(self) -> bool:
        return self.kept and self.seconds <= self.objective.held_seconds

    def record(self) -> dict[str, Any]:
        measured = {"parts_seconds": dict(self.parts), "samples": self.samples, "failure": self.failure}
        seconds = self.seconds if self.parts else None
        return {**asdict(self.objective), "seconds": seconds, **measured, "kept": self.kept, "held": self.held}


def read(text: str | None = None) -> dict[str, Objective]:
    """By name; those that only production can watch are left out. Raises ObjectiveUnreadable."""
    if text is None:
        text = resources.files("config").joinpath("observability.yaml").read_text(encoding="utf-8")
    try:
        content = yaml.safe_load(text)
        stated = content["slos"]
        return {name: _objective(name, each) for name, each in stated.items() if each.get("measured", True)}
    except (OSError, yaml.YAMLError, KeyError, TypeError, AttributeError) as e:
        raise ObjectiveUnreadable(f"config/observability.yaml has no slos as they must be: {e!r}") from e


def _objective(name: str, stated: Mapping[str, Any]) -> Objective:
    missing = [key for key in ("about", "objective", "bound_seconds", "held_seconds") if key not in stated]
    if missing:
        raise ObjectiveUnreadable(f"slos.{name} has no {missing[0]}")
    share, bound, held = (float(stated[key]) for key in ("objective", "bound_seconds", "held_seconds"))
    if not 0 < share <= 1 or not 0 < held <= bound:
        raise ObjectiveUnreadable(f"slos.{name}: objective is a share above 0, and held_seconds at most bound_seconds")
    return Objective(name, str(stated["about"]), share, bound, held)


def judged(objective: Objective, samples: Mapping[str, Sequence[float]]) -> Measured:
    """Of each part's measurements, in seconds and in any order."""
    if empty := [part for part, values in samples.items() if not values]:
        return Measured(objective, failure=f"nothing was measured of: {', '.join(empty)}")
    parts = {part: quantile(sorted(values), objective.share) for part, values in samples.items()}
    return Measured(objective, parts, sum(map(len, samples.values())))


def shown(results: Sequence[Measured]) -> str:
    rows = [_row(each) for each in results]
    details = [
        f"  {each.objective.name}: {part} {_ms(seconds)}, of {each.samples:,} measurements in all"
        for each in results
        if len(each.parts) > 1
        for part, seconds in each.parts.items()
    ]
    failures = [f"  {each.objective.name} could not be measured: {each.failure}" for each in results if each.failure]
    parts = [table(["objective", "", "measured", "promised", "", "held", ""], rows)]
    parts += ["\n".join(details)] if details else []
    parts += ["\n".join(failures)] if failures else []
    return "\n\n".join([*parts, verdict(results)])


def verdict(results: Sequence[Measured]) -> str:
    """In one line, for whoever reads no table."""
    missed = [each.objective.name for each in results if not each.kept]
    loose = [each.objective.name for each in results if each.kept and not each.held]
    if missed:
        return f"MISSED: {len(missed)} of {len(results)} promises: {', '.join(missed)}."
    if loose:
        return f"All {len(results)} promises are kept; a tighter bound that we hold is not: {', '.join(loose)}."
    return f"All {len(results)} promises are kept, and the tighter bounds that we hold as well."


def _row(each: Measured) -> list[str]:
    objective = each.objective
    return [
        objective.name,
        objective.statistic,
        _ms(each.seconds) if each.parts else "-",
        f"<= {_ms(objective.bound_seconds)}",
        "kept" if each.kept else "**missed**",
        f"<= {_ms(objective.held_seconds)}",
        "held" if each.held else "**not held**",
    ]


def _ms(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1000:.3g} ms"
