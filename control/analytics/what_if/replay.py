"""Recorded requests are decided again, under the terms of their time or under others. Pure.

What events do not tell, and how it is treated (docs/analytics.md):
- An event tells the millisecond of its take. Where a rate limit's verdict depends on less, the recorded one holds.
- Requests that no event tells of (they cost nothing, or repeat one that was charged) fill no bucket here. Neither does
  one that was admitted faster than the rate in force: it was charged after an outage.
- How long a request was under way is not recorded. The caller may suppose a time; else limits of concurrent requests
  refuse those that they have refused.
"""

import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import groupby
from typing import Final

from control.analytics.what_if.key_limits import KeyLimits, current_windows, holds
from control.analytics.what_if.paces import ORGANIZATION, Paces
from control.analytics.what_if.recorded import Entry, Part, Recorded
from quota.evaluation import Books, Evaluation, Request, Rule, Window, evaluate
from quota.model import MeterUsage
from quota.terms import OwnLimits, Pace, Terms

_PACED: Final = (Rule.RATE, Rule.OWN_RATE)
NO_LIMITS: Final = KeyLimits()


@dataclass(frozen=True, slots=True)
class Span:
    """Terms, and from when until when they were in force: seconds, the end exclusive."""

    starts: float
    ends: float
    terms: Terms


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
    unsure: int = 0
    """Requests of which it is not known whether they would be served; the recorded verdict holds."""
    unpaced: set[str] = field(default_factory=set)
    """Requests that were admitted although a rate in force would have refused them."""
    sold: list[Sold] = field(default_factory=list)
    used: dict[tuple[int, str], MeterUsage] = field(default_factory=dict)
    """By the period's start and the meter."""
    order: list[Recorded] = field(default_factory=list)
    """In which what is recorded of one millisecond came."""


@dataclass(frozen=True, slots=True)
class Given:
    """What a replay takes for given beside the terms."""

    keys: KeyLimits = NO_LIMITS
    windows: Mapping[Window, tuple[int, int]] = field(default_factory=dict)
    """What was used before, in windows of keys' own quotas that go on."""
    request_seconds: float | None = None
    """How long each request is under way; None: not known."""
    unpaced: frozenset[str] = frozenset()
    """Requests that no rate limit applied to."""


def replay(
    spans: Sequence[Span],
    recorded: Iterable[Recorded],
    given: Given = Given(),
    *,
    as_recorded: bool = False,
) -> Replayed:
    """`spans`: in their order, one after the other. `as_recorded`: they were in force, so corrections moved what is
    recorded of them, and refusals tell how full a bucket was."""
    run = _Run(spans, given, as_recorded=as_recorded)
    if not as_recorded:
        for entry in recorded:
            run.decide(entry)
    else:
        for _, group in groupby(recorded, key=lambda each: each.millisecond):
            run.decide_millisecond(list(group))
    run.result.used = dict(run.books.usage)
    return run.result


class _Run:
    def __init__(self, spans: Sequence[Span], given: Given, *, as_recorded: bool) -> None:
        self.result, self.books = Replayed(), Books(windows=dict(given.windows))
        self._given = given
        self._as_recorded = as_recorded
        self._ahead = list(spans)[::-1]
        self._gone = set[str]()
        self._paces = Paces()
        self._under_way: list[tuple[int, str]] = []
        """When each ends, in microseconds."""
        self._open = set[str]()
        self._ended = set[str]()
        """Before their time, since they are corrected."""

    def decide_millisecond(self, group: list[Recorded]) -> None:
        """Events are in their order, and so are refusals; how they came between each other is not recorded. A refusal
        is put where the ledger would have said what it did."""
        refusals = [entry for entry in group if entry.kind is Entry.REFUSAL]
        if refusals and len(refusals) < len(group):
            for event in group:
                if event.kind is not Entry.REFUSAL:
                    while refusals and self._refuses(refusals[0]):
                        self.decide(refusals.pop(0))
                    self.decide(event)
            group = refusals
        for entry in group:
            self.decide(entry)

    def decide(self, entry: Recorded) -> None:
        result = self.result
        result.order.append(entry)
        terms = self._terms(entry)
        if entry.kind is Entry.CORRECTION:
            if entry.request_id not in self._gone and terms is not None:
                self._correct(terms, entry)
            return
        result.requests += 1
        own = self._own(entry)
        evaluation = self._evaluate(terms, entry, own)
        if entry.kind is Entry.TAKE:
            self._decide_served(terms, entry, own, evaluation)
        elif self._as_recorded:
            self._compare_refused(terms, entry, own, evaluation)
        else:
            self._decide_refused(terms, entry, own, evaluation)

    # What it was decided by

    def _terms(self, entry: Recorded) -> Terms | None:
        at = entry.at.timestamp()
        while len(self._ahead) > 1 and at >= self._ahead[-1].ends:
            self._ahead.pop()
        return self._ahead[-1].terms if self._ahead else None

    def _own(self, entry: Recorded) -> tuple[OwnLimits, ...]:
        return self._given.keys.of(entry.key, entry.at.timestamp())

    def _evaluate(
        self, terms: Terms | None, entry: Recorded, own: tuple[OwnLimits, ...], *, paced: bool = True
    ) -> Evaluation:
        """With buckets as empty as they may have been: a rate limit that refuses then refused surely."""
        books, reported = self.books, entry.is_reported or not paced or entry.request_id in self._given.unpaced
        books.arrival_us = self._paces.least.get(ORGANIZATION, 0.0)
        books.own_arrivals_us = {each.node: self._paces.least.get(each.node, 0.0) for each in own}
        books.under_way = self._number_under_way(terms, entry)
        return evaluate(terms, books, Request(entry.latest_us, entry.costs, None, own, reported=reported))

    def _number_under_way(self, terms: Terms | None, entry: Recorded) -> int:
        if terms is None or terms.concurrent_max is None:
            return 0
        if self._given.request_seconds is None or self._as_recorded:
            said = entry.said
            refused = said is not None and said.rule is Rule.CONCURRENCY
            if refused and self._as_recorded:
                refused = said is not None and said.concurrent_max == terms.concurrent_max
            return terms.concurrent_max if refused else 0
        while self._under_way and self._under_way[0][0] <= entry.earliest_us:
            _, request_id = heapq.heappop(self._under_way)
            self._open.discard(request_id)
            self._ended.discard(request_id)
        return len(self._under_way) - len(self._ended)

    # What becomes of it

    def _decide_served(
        self, terms: Terms | None, entry: Recorded, own: tuple[OwnLimits, ...], evaluation: Evaluation
    ) -> None:
        """A request that was served."""
        result, step, paced = self.result, evaluation.refused_by, True
        if self._as_recorded and step is not None and step.rule in _PACED:
            result.unpaced.add(entry.request_id)
            evaluation, paced = self._evaluate(terms, entry, own, paced=False), False
            step = evaluation.refused_by
        if step is None:
            self._charge(terms, entry, own, evaluation, paced=paced)
            paid = {each.paid.meter: each.paid for each in evaluation.steps if each.paid is not None}
            parts = ((paid[part.meter], part) for part in entry.parts)
            if any((charge.overage, dict(charge.burnt)) != (part.overage, dict(part.burnt)) for charge, part in parts):
                result.differing += 1
            return
        self._gone.add(entry.request_id)
        result.differing += 1
        result.refused.append(Refused(entry.at, entry.request_id, step.rule.value, step.meter, entry.costs))

    def _refuses(self, entry: Recorded) -> bool:
        """Whether the ledger would have said of the request now what it did."""
        terms, own, said = self._terms(entry), self._own(entry), entry.said
        if said is not None and said.pace is not None:
            node, pace = self._pace(terms, own, said.rule)
            return pace == said.pace and self._paces.may_be(node, said.arrival_us)
        step = self._evaluate(terms, entry, own).refused_by
        return step is not None and (said is None or step.rule is said.rule)

    def _compare_refused(
        self, terms: Terms | None, entry: Recorded, own: tuple[OwnLimits, ...], evaluation: Evaluation
    ) -> None:
        """A request that was refused, under the terms that were in force."""
        result, said, step = self.result, entry.said, evaluation.refused_by
        if said is not None and said.pace is not None:
            node, pace = self._pace(terms, own, said.rule)
            if not self._paces.may_be(node, said.arrival_us) or pace != said.pace:
                result.differing += 1
        elif step is None:
            result.served += 1
            result.differing += 1
            self._charge(terms, entry, own, evaluation)
        elif said is not None and step.rule is not said.rule:
            result.differing += 1

    def _decide_refused(
        self, terms: Terms | None, entry: Recorded, own: tuple[OwnLimits, ...], evaluation: Evaluation
    ) -> None:
        """The same under others."""
        result, said, step = self.result, entry.said, evaluation.refused_by
        if step is not None:
            limit = None if terms is None else terms.concurrent_max
            raised = said is not None and said.concurrent_max is not None and (limit or 0) > said.concurrent_max
            if step.rule is Rule.CONCURRENCY and raised and self._given.request_seconds is None:
                result.unsure += 1
            return
        if said is not None and said.pace is not None:
            node, pace = self._pace(terms, own, said.rule)
            if pace is not None and not self._paces.surely_admits(node, pace, entry.earliest_us):
                result.unsure += 1
                return
        result.served += 1
        result.differing += 1
        self._charge(terms, entry, own, evaluation)

    @staticmethod
    def _pace(terms: Terms | None, own: tuple[OwnLimits, ...], rule: Rule) -> tuple[str, Pace | None]:
        """The rate limit that the rule is about, and its node."""
        if rule is Rule.RATE:
            return ORGANIZATION, None if terms is None else terms.rate
        limits = next((each for each in own if each.rate is not None), None)
        return ("?", None) if limits is None else (limits.node, limits.rate)

    # What it moves

    def _charge(
        self,
        terms: Terms | None,
        entry: Recorded,
        own: tuple[OwnLimits, ...],
        evaluation: Evaluation,
        *,
        paced: bool = True,
    ) -> None:
        books = self.books
        books.charge(evaluation)
        paid = [each.paid for each in evaluation.steps if each.paid is not None]
        self.result.sold += [Sold(entry.at, each.meter, each.overage) for each in paid if each.overage]
        for meter in entry.costs if own else ():
            moved = current_windows(own, meter)
            nodes = {node for node, _ in moved}
            for name in [each for each in books.windows if each[0] in nodes and each[1] == meter]:
                if (name[0], name[2]) not in moved:
                    del books.windows[name]  # a window that is none any more is forgotten with the next charge
        if entry.is_reported or not paced or entry.request_id in self._given.unpaced:
            return
        paces = [(ORGANIZATION, None if terms is None else terms.rate), *((each.node, each.rate) for each in own)]
        for node, pace in paces:
            if pace is not None:
                self._paces.admit(node, pace, entry.earliest_us, entry.latest_us)
        if self._given.request_seconds is not None:
            ends_us = entry.latest_us + round(self._given.request_seconds * 1_000_000)
            heapq.heappush(self._under_way, (ends_us, entry.request_id))
            self._open.add(entry.request_id)

    def _correct(self, terms: Terms, entry: Recorded) -> None:
        """What is given back goes to where it came from, first overage; what comes on top takes what is left."""
        books, start = self.books, entry.period_start
        if entry.request_id in self._open:
            self._ended.add(entry.request_id)
        for part in entry.parts:
            usage = books.usage.get((start, part.meter), MeterUsage(start, part.meter, 0))
            overage = part.overage if self._as_recorded else _overage_moved(usage, terms, part)
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
                self.result.sold.append(Sold(entry.at, part.meter, overage))
            if entry.key is not None and entry.taken_s is not None:
                self._correct_windows(entry, part, entry.taken_s)

    def _correct_windows(self, entry: Recorded, part: Part, taken_s: int) -> None:
        windows = self.books.windows
        for name, (start, used) in list(windows.items()):
            of_it = name[:2] == (f"k:{entry.key}", part.meter)
            if of_it and holds(name, start, entry.period_start, taken_s):
                windows[name] = start, max(0, used + part.units)


def _overage_moved(usage: MeterUsage, terms: Terms, part: Part) -> int:
    if part.units < 0:
        return -min(usage.overage, -part.units)
    limit = terms.meters.get(part.meter)
    if limit is None or limit.overage_max == 0:
        return 0
    left = max(0, limit.allowance - (usage.used - usage.burnt - usage.overage))
    return max(0, part.units - left)
