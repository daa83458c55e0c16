"""What came of each durability level, as figures that several runs can be put together from."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import chain
from typing import Any

from bench.faults.striking import Outage
from bench.soak.audit import Findings


@dataclass
class Level:
    found: Findings
    admitted: int
    failed: int
    outages: dict[str, list[Outage]]
    """By fault."""
    idle: float | None
    """Of the machine's time."""
    wrong: list[str] = field(default_factory=list)

    @property
    def all_outages(self) -> list[Outage]:
        return list(chain.from_iterable(self.outages.values()))

    def raw(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def read(cls, raw: Mapping[str, Any]) -> "Level":
        """Raises KeyError, TypeError for what is of another form."""
        outages = {fault: [Outage(**each) for each in of_fault] for fault, of_fault in raw["outages"].items()}
        return cls(Findings(**raw["found"]), raw["admitted"], raw["failed"], outages, raw["idle"], list(raw["wrong"]))


def together(levels: Sequence[Level]) -> Level:
    """Several runs at one durability level, each on servers of its own."""
    outages: dict[str, list[Outage]] = {}
    for fault, of_fault in chain.from_iterable(level.outages.items() for level in levels):
        outages.setdefault(fault, []).extend(of_fault)
    counts = [asdict(level.found) for level in levels]
    known = [(level.idle, len(level.all_outages)) for level in levels if level.idle is not None]
    faults = sum(count for _, count in known)
    return Level(
        Findings(**{name: sum(count[name] for count in counts) for name in counts[0]}),
        sum(level.admitted for level in levels),
        sum(level.failed for level in levels),
        outages,
        sum(idle * count for idle, count in known) / faults if faults else None,
        list(chain.from_iterable(level.wrong for level in levels)),
    )


def merged(runs: Iterable[Mapping[str, Any]]) -> dict[str, Level]:
    """By level; `runs` are what `python -m bench.faults` has written."""
    found: dict[str, list[Level]] = {}
    for run in runs:
        for name, raw in run["levels"].items():
            found.setdefault(name, []).append(Level.read(raw))
    return {name: together(of_level) for name, of_level in found.items()}
