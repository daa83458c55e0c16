"""Recorded requests are decided again, under the terms of their time or under others. Pure.

The clock of what is recorded has milliseconds. Rate limits and limits of concurrent requests depend on less than that,
and do not depend on the plan's units, so they are left out: here nobody is refused for being too fast.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from quota.evaluation import Books, Evaluation, Request, Rule, evaluate
from quota.model import Admitted, MeterUsage
from quota.terms import Terms


@dataclass(frozen=True, slots=True)
class Span:
    """Terms without limits of speed, and from when until when they were in force: seconds, the end exclusive."""

    starts: float
    ends: float
    terms: Terms


@dataclass(frozen=True, slots=True)
class Part:
    """One meter's part of what is recorded."""

    meter: str
    units: int
    overage: int
    burnt: Mapping[str, int]


class Entry(StrEnum):
    """What is recorded."""

    TAKE = "take"
    CORRECTION = "settle"
    REFUSAL = "refusal"


@dataclass(frozen=True, slots=True)
class Recorded:
    """A request that was charged or refused, or the correction of one."""

    at: datetime
    request_id: str
    kind: Entry
    parts: tuple[Part, ...]
    period_start: int = 0
    """Of a correction: that of the request, seconds since 1970."""

    @property
    def costs(self) -> dict[str, int]:
        return {part.meter: part.units for part in self.parts}


@dataclass(frozen=True, slots=True)
class Refused:
    """A request that is refused here."""

    at: datetime
    request_id: str
    rule: str
    meter: str | None
    costs: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Sold:
    """Overage, when it was used."""

    at: datetime
    meter: str
    units: int


@dataclass(slots=True)
class Replayed:
    requests: int = 0
    refused: list[Refused] = field(default_factory=list)
    """Those that are refused here and were served."""
    served: int = 0
    """Requests that are served here and were refused."""
    differing: int = 0
    """Requests whose verdict, or what paid for them, is another one than is recorded."""
    sold: list[Sold] = field(default_factory=list)
    used: dict[tuple[int, str], MeterUsage] = field(default_factory=dict)
    """By the period's start and the meter."""


def replay(spans: Sequence[Span], recorded: Iterable[Recorded], *, as_recorded: bool = False) -> Replayed:
    """`spans`: in their order, one after the other. `as_recorded`: they were in force, so corrections moved what is
    recorded of them."""
    result, books, gone = Replayed(), Books(), set[str]()
    ahead = list(spans)[::-1]
    for entry in recorded:
        at = entry.at.timestamp()
        while len(ahead) > 1 and at >= ahead[-1].ends:
            ahead.pop()
        terms = ahead[-1].terms if ahead else None
        if entry.kind is Entry.CORRECTION:
            if entry.request_id not in gone and terms is not None:
                _correct(books, terms, entry, result, as_recorded=as_recorded)
            continue
        result.requests += 1
        evaluation = evaluate(terms, books, Request(round(at * 1_000_000), entry.costs))
        if isinstance(evaluation.decision, Admitted):
            books.charge(evaluation)
            _note(entry, evaluation, result)
        elif entry.kind is Entry.TAKE:
            gone.add(entry.request_id)
            result.differing += 1
            step = evaluation.refused_by
            rule, meter = (Rule.PUBLISHED, None) if step is None else (step.rule, step.meter)
            result.refused.append(Refused(entry.at, entry.request_id, rule.value, meter, entry.costs))
    result.used = dict(books.usage)
    return result


def _note(entry: Recorded, evaluation: Evaluation, result: Replayed) -> None:
    """An admission."""
    paid = {step.paid.meter: step.paid for step in evaluation.steps if step.paid is not None}
    result.sold += [Sold(entry.at, each.meter, each.overage) for each in paid.values() if each.overage]
    if entry.kind is Entry.REFUSAL:
        result.served += 1
        result.differing += 1
    elif any((paid[p.meter].overage, dict(paid[p.meter].burnt)) != (p.overage, dict(p.burnt)) for p in entry.parts):
        result.differing += 1


def _correct(books: Books, terms: Terms, entry: Recorded, result: Replayed, *, as_recorded: bool) -> None:
    """What is given back goes to where it came from, first overage; what comes on top takes what is left."""
    start = entry.period_start
    for part in entry.parts:
        usage = books.usage.get((start, part.meter), MeterUsage(start, part.meter, 0))
        overage = part.overage if as_recorded else _overage_moved(usage, terms, part)
        burnt = 0
        for grant, units in part.burnt.items():
            moved = max(units, -books.grant_used.get(grant, 0))
            books.grant_used[grant] = books.grant_used.get(grant, 0) + moved
            burnt += moved
        books.usage[start, part.meter] = MeterUsage(
            start,
            part.meter,
            max(0, usage.used + part.units),
            max(0, usage.burnt + burnt),
            max(0, usage.overage + overage),
        )
        if overage:
            result.sold.append(Sold(entry.at, part.meter, overage))


def _overage_moved(usage: MeterUsage, terms: Terms, part: Part) -> int:
    if part.units < 0:
        return -min(usage.overage, -part.units)
    limit = terms.meters.get(part.meter)
    if limit is None or limit.overage_max == 0:
        return 0
    left = max(0, limit.allowance - (usage.used - usage.burnt - usage.overage))
    return max(0, part.units - left)
