"""The smallest change that would have admitted a refused request. Pure.

Each change is as small as it can be: with one unit, or one microsecond, less its rule still refuses. What is offered
was tried: `evaluate` admits the request after it, if need be together with changes for other rules that refuse.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final, NamedTuple

from quota.access import Quota
from quota.evaluation import About, Books, Evaluation, Request, Rule, Step, evaluate
from quota.model import Admitted, Grant, MeterUsage, Status
from quota.periods import Period
from quota.terms import MeterTerms, Terms

_ROUNDS_MAX: Final = 32  # rules that refuse one after the other: a request has few meters
_SECOND_US: Final = 1_000_000
_LASTS_SECONDS: Final = 366 * 86_400  # what is given here only to be tried
_TRIED: Final = "would-be-"


class ChangeKind(StrEnum):
    GIVE_PLAN = "give_plan"
    READ_AGAIN = "read_again"
    """The gateway knew an older version, and looks again by itself."""
    SERVE = "serve"
    """The organization's status is a served one."""
    BEGIN_PERIOD = "begin_period"
    GIVE_GRANT = "give_grant"
    RAISE_ALLOWANCE = "raise_allowance"
    RAISE_OVERAGE = "raise_overage"
    """More units may be sold beyond allowance and grants."""
    RAISE_OWN_QUOTA = "raise_own_quota"
    RAISE_CONCURRENCY = "raise_concurrency"
    WAIT = "wait"


class Case(NamedTuple):
    """What `evaluate` takes."""

    terms: Terms | None
    books: Books
    request: Request

    def evaluate(self) -> Evaluation:
        return evaluate(*self)


@dataclass(frozen=True, slots=True)
class Change:
    kind: ChangeKind
    about: About
    """What refuses, and would let the request pass after it."""
    by: int = 0
    """Units (requests of `raise_concurrency`, microseconds of `wait`) more."""
    to: int = 0
    """What the limit would be; of `wait`, the moment in microseconds since 1970."""

    def applied(self, case: Case) -> Case:
        """The same case as if the change had been made. Numbers of `case` stay as they are."""
        terms, request = case.terms, case.request
        now_s = request.now_us // _SECOND_US
        lasting = (Period(now_s, now_s + _LASTS_SECONDS),)
        if self.kind is ChangeKind.WAIT:
            return case._replace(request=replace(request, now_us=self.to))
        if self.kind is ChangeKind.RAISE_OWN_QUOTA:
            own = tuple(
                replace(each, quotas=tuple(self._raised(quota) for quota in each.quotas))
                if each.level is self.about.level
                else each
                for each in request.own
            )
            return case._replace(request=replace(request, own=own))
        if terms is None or self.kind is ChangeKind.GIVE_PLAN:
            version = 0 if request.version is None else request.version
            meters = dict.fromkeys(request.charges, MeterTerms(0))
            return case._replace(terms=Terms(version, Status.ACTIVE, lasting, meters))
        if self.kind is ChangeKind.READ_AGAIN:
            return case._replace(request=replace(request, version=terms.version))
        if self.kind is ChangeKind.SERVE:
            return case._replace(terms=replace(terms, status=Status.ACTIVE))
        if self.kind is ChangeKind.BEGIN_PERIOD:
            return case._replace(terms=replace(terms, periods=lasting))
        if self.kind is ChangeKind.RAISE_CONCURRENCY:
            return case._replace(terms=replace(terms, concurrent_max=self.to))
        return case._replace(terms=self._of_meter(terms, now_s))

    def _raised(self, quota: Quota) -> Quota:
        same = (quota.meter, quota.window_seconds) == (self.about.meter, self.about.window_seconds)
        return quota._replace(units=self.to) if same else quota

    def _of_meter(self, terms: Terms, now_s: int) -> Terms:
        meter = self.about.meter or ""
        before = terms.meters.get(meter, MeterTerms(0))
        meters = dict(terms.meters)
        if self.kind is ChangeKind.GIVE_GRANT:
            # Which opens the meter, where the plan does not include it (control/entitlements/derive.py).
            grant = Grant(f"{_TRIED}{len(terms.grants)}", meter, self.by, now_s + _LASTS_SECONDS)
            return replace(terms, meters=meters | {meter: before}, grants=(*terms.grants, grant))
        if self.kind is ChangeKind.RAISE_ALLOWANCE:
            return replace(terms, meters=meters | {meter: before._replace(allowance=self.to)})
        return replace(terms, meters=meters | {meter: before._replace(overage_max=self.to)})


def alternatives(case: Case, evaluation: Evaluation | None = None) -> list[Change]:
    """For each rule that refuses, in order, the changes that lift it, waiting last."""
    evaluation = evaluation or case.evaluate()
    return [
        change
        for step in evaluation.refused
        for change in _lifting(case, step)
        if (after := _all_lifted(change.applied(case))) is not None and not _needs_more(after, step)
    ]


def remedy(case: Case) -> list[Change] | None:
    """The smallest changes that together admit the request, waiting for a rate limit first.

    Empty: it is admitted as it is. None: no change is known that would do."""
    return _all_lifted(case)


def _needs_more(changes: list[Change], lifted: Step) -> bool:
    """Whether the same rule refuses after a change that was to lift it."""
    return any(change.about == lifted.about for change in changes)


def _all_lifted(case: Case) -> list[Change] | None:
    changes: list[Change] = []
    for _ in range(_ROUNDS_MAX):
        evaluation = case.evaluate()
        if isinstance(evaluation.decision, Admitted):
            return changes
        # A rate limit is waited for, so all else is looked at as it will be then.
        step = max(evaluation.refused, key=lambda each: each.wait_us)
        change = next(_lifting(case, step), None)
        if change is None:
            return None
        changes.append(change)
        case = change.applied(case)
    return None


def _lifting(case: Case, step: Step) -> Iterator[Change]:
    rule, about, now_us = step.rule, step.about, case.request.now_us
    if (kind := _WITHOUT_SIZE.get(rule)) is not None:
        yield Change(kind, about)
    elif rule is Rule.METER:
        yield from _of_meter(case, step)
    elif rule is Rule.OWN_QUOTA and step.before is not None and step.window is not None:
        yield Change(ChangeKind.RAISE_OWN_QUOTA, about, step.short, step.before.limit + step.short)
        yield _wait(step, now_us, step.window.end * _SECOND_US)
    elif step.pace is not None:
        yield _wait(step, now_us, now_us + step.wait_us)
    elif rule is Rule.CONCURRENCY and step.found is not None and step.limit is not None:
        to = step.found + 1
        yield Change(ChangeKind.RAISE_CONCURRENCY, about, to - step.limit, to)


def _of_meter(case: Case, step: Step) -> Iterator[Change]:
    terms, about, period = case.terms, step.about, step.window
    if terms is None or about.meter is None or period is None:
        return
    # A grant of nothing cannot be given, and opens no meter.
    yield Change(ChangeKind.GIVE_GRANT, about, max(1, step.short), max(1, step.short))
    allowance, overage_max = terms.meters.get(about.meter, MeterTerms(0))
    used = case.books.usage.get((period.start, about.meter), MeterUsage(period.start, about.meter, 0))
    # What was used beyond an allowance that was lowered since is owed to nobody, and has to be covered all the same.
    to = max(allowance, used.used - used.burnt - used.overage if step.short else 0) + step.short
    yield Change(ChangeKind.RAISE_ALLOWANCE, about, to - allowance, to)
    if overage_max and step.short:
        to = max(overage_max, used.overage) + step.short
        yield Change(ChangeKind.RAISE_OVERAGE, about, to - overage_max, to)
    yield _wait(step, case.request.now_us, period.end * _SECOND_US)


def _wait(step: Step, now_us: int, until_us: int) -> Change:
    return Change(ChangeKind.WAIT, step.about, until_us - now_us, until_us)


_WITHOUT_SIZE: Final = {
    Rule.PUBLISHED: ChangeKind.GIVE_PLAN,
    Rule.VERSION: ChangeKind.READ_AGAIN,
    Rule.STATUS: ChangeKind.SERVE,
    Rule.PERIOD: ChangeKind.BEGIN_PERIOD,
}
