"""What `take` decides, without Redis: the rules of lua/take.lua in their order, as a pure function of values.

It is a second implementation, for explaining a decision and for asking what another plan would have decided. The
scripts decide; `tests/quota/test_evaluation.py` compares the two on a real Valkey. Each rule is looked at, also behind
the one that refuses: whoever asks for the smallest change must know all that stands against the request.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final, NamedTuple

from quota.access import Quota
from quota.events import Charge
from quota.model import (
    Admitted,
    ConcurrencyLimited,
    Decision,
    Exhausted,
    Level,
    MeterBalance,
    MeterUsage,
    NotEntitled,
    NotInPlan,
    OrganizationSnapshot,
    RateLimited,
    Stale,
    Unknown,
)
from quota.periods import Period
from quota.terms import MeterTerms, OwnLimits, Pace, Terms, window_of

_SECOND_US: Final = 1_000_000


class Rule(StrEnum):
    """In the order in which they are looked at."""

    PUBLISHED = "published"
    VERSION = "version"
    STATUS = "status"
    PERIOD = "period"
    METER = "meter"
    OWN_QUOTA = "own_quota"
    """A quota of the API key's own, in one of its windows."""
    RATE = "rate"
    OWN_RATE = "own_rate"
    CONCURRENCY = "concurrency"


class Outcome(StrEnum):
    PASSED = "passed"
    REFUSED = "refused"
    NO_LIMIT = "no_limit"
    """Nothing of the kind is limited here."""


Window = tuple[str, str, int]
"""Node, meter, seconds; 0 seconds is the organization's period."""


@dataclass(slots=True)
class Books:
    """The counters of an organization at one moment. What is absent is zero."""

    usage: dict[tuple[int, str], MeterUsage] = field(default_factory=dict)
    """By period start and meter."""
    grant_used: dict[str, int] = field(default_factory=dict)
    windows: dict[Window, tuple[int, int]] = field(default_factory=dict)
    """The start of the last window, and the units used in it."""
    arrival_us: float = 0.0
    """When the rate limit's bucket is full again."""
    own_arrivals_us: dict[str, float] = field(default_factory=dict)
    """The same, by node."""
    under_way: int = 0
    """Requests with a permit."""

    @classmethod
    def of_snapshot(cls, read: OrganizationSnapshot, under_way: int = 0) -> "Books":
        return cls(
            {(usage.period_start, usage.meter): usage for usage in read.usage},
            dict(read.grant_used),
            {(n.node, n.meter, n.window_seconds): (n.start, n.used) for n in read.nodes},
            read.arrival_us,
            dict(read.own_arrivals_us),
            under_way,
        )

    def copy(self) -> "Books":
        """Books that are charged apart from these."""
        return Books(
            dict(self.usage),
            dict(self.grant_used),
            dict(self.windows),
            self.arrival_us,
            dict(self.own_arrivals_us),
            self.under_way,
        )

    def charge(self, evaluation: "Evaluation") -> None:
        """Moves what the script moves. Only of an admission."""
        if not isinstance(evaluation.decision, Admitted):
            return
        for step in evaluation.steps:
            if step.paid is not None:
                self._charge_meter(evaluation.decision.period.start, step.paid)
            elif step.rule is Rule.OWN_QUOTA and step.window is not None and step.own is not None:
                if not evaluation.request.replayed:
                    begins = step.window.start
                    start, used = self.windows.get(step.own, (begins, 0))
                    self.windows[step.own] = begins, step.cost + (used if start == begins else 0)
            elif step.arrival_us is not None:
                if step.own is None:
                    self.arrival_us = step.arrival_us
                else:
                    self.own_arrivals_us[step.own[0]] = step.arrival_us
        if evaluation.decision.permit:
            self.under_way += 1

    def _charge_meter(self, start: int, paid: Charge) -> None:
        before = self.usage.get((start, paid.meter), MeterUsage(start, paid.meter, 0))
        burnt = sum(units for _, units in paid.burnt)
        self.usage[start, paid.meter] = MeterUsage(
            start, paid.meter, before.used + paid.units, before.burnt + burnt, before.overage + paid.overage
        )
        for grant, units in paid.burnt:
            self.grant_used[grant] = self.grant_used.get(grant, 0) + units


@dataclass(frozen=True, slots=True)
class Request:
    """What one take asks."""

    now_us: int
    """By Redis' clock."""
    charges: Mapping[str, int]
    """Units by meter, in the order of the request."""
    version: int | None = None
    """The one that the take says; None: any will do."""
    own: tuple[OwnLimits, ...] = ()
    reported: bool = False
    """It is usage that is reported: no rate limit applies, and it needs no permit."""
    replayed: bool = False
    """Another request with its idempotency key was charged, so it costs nothing."""


class About(NamedTuple):
    """Which limit of all that a request meets."""

    rule: Rule
    level: Level = Level.ORGANIZATION
    meter: str | None = None
    window_seconds: int | None = None
    """Of a quota of the key's own; 0: the organization's period."""


@dataclass(frozen=True, slots=True)
class Step:
    """One rule, and what it says of the request."""

    rule: Rule
    outcome: Outcome
    level: Level = Level.ORGANIZATION
    meter: str | None = None
    cost: int = 0
    before: MeterBalance | None = None
    after: MeterBalance | None = None
    """None: the rule refuses, or counts nothing."""
    paid: Charge | None = None
    """What would be charged, and what pays for it."""
    short: int = 0
    """Units that nothing pays for."""
    window: Period | None = None
    """In which the units are counted: the organization's period, or a window of the key's own."""
    own: Window | None = None
    """Which limit of the principal's own; of a rate, its node alone."""
    pace: Pace | None = None
    arrival_us: float | None = None
    """Of a rate limit that lets the request pass: when its bucket is full again after it."""
    wait_us: int = 0
    """Of one that does not: until it would."""
    limit: int | None = None
    """Of `meter`: the overage that may be sold; None: any. Of `concurrency`: its limit. Of `version`: the one said."""
    found: int | None = None
    """Of `version` and `status`: what is published. Of `concurrency`: requests under way."""

    @property
    def about(self) -> "About":
        seconds = None if self.own is None or self.rule is not Rule.OWN_QUOTA else self.own[2]
        return About(self.rule, self.level, self.meter, seconds)


@dataclass(frozen=True, slots=True)
class Evaluation:
    request: Request
    decision: Decision
    """As `take` gives it; the receipt of an admission is empty."""
    steps: tuple[Step, ...]

    @property
    def refused(self) -> tuple[Step, ...]:
        """All that stands against the request; the first one is the decision."""
        return tuple(step for step in self.steps if step.outcome is Outcome.REFUSED)

    @property
    def refused_by(self) -> Step | None:
        return next(iter(self.refused), None)


def evaluate(terms: Terms | None, books: Books, request: Request) -> Evaluation:
    """What `take` answers. `terms`: None where Redis does not know the organization. Changes nothing: `Books.charge`
    does."""
    if terms is None:
        return Evaluation(request, Unknown(lapsed=False), (Step(Rule.PUBLISHED, Outcome.REFUSED),))
    now_s = request.now_us // _SECOND_US
    period = next((each for each in terms.periods if now_s in each), None)
    steps = [
        Step(Rule.PUBLISHED, Outcome.PASSED),
        _version(terms, request),
        Step(Rule.STATUS, _refused_if(not terms.status.served), found=terms.status.value),
        Step(Rule.PERIOD, _refused_if(period is None), window=period),
    ]
    if period is not None:
        steps += [_meter(terms, books, request, meter, period) for meter in request.charges]
        steps += [
            _own_quota(books, request, own, quota, period)
            for own in request.own
            for quota in own.in_order
            if quota.meter in request.charges
        ]
    steps.append(_rate(request, terms.rate, books.arrival_us))
    for own in request.own:
        if own.rate is not None:
            step = _rate(request, own.rate, books.own_arrivals_us.get(own.node, 0.0))
            steps.append(replace(step, rule=Rule.OWN_RATE, level=own.level, own=(own.node, "", 0)))
    steps.append(_concurrency(terms, books, request))
    first = next((step for step in steps if step.outcome is Outcome.REFUSED), None)
    if first is None and period is not None:
        return Evaluation(request, _admission(terms, request, period, steps), tuple(steps))
    assert first is not None  # noqa: S101 - without a period that rule refuses
    return Evaluation(request, _refusal(terms, request, period, first), tuple(steps))


def _refused_if(refused: bool) -> Outcome:
    return Outcome.REFUSED if refused else Outcome.PASSED


def _version(terms: Terms, request: Request) -> Step:
    if request.version is None:
        return Step(Rule.VERSION, Outcome.NO_LIMIT, found=terms.version)
    return Step(Rule.VERSION, _refused_if(request.version != terms.version), limit=request.version, found=terms.version)


def _meter(terms: Terms, books: Books, request: Request, meter: str, period: Period) -> Step:
    cost = 0 if request.replayed else request.charges[meter]
    limit = terms.meters.get(meter)
    allowance, overage_max = limit or MeterTerms(0)
    usage = books.usage.get((period.start, meter), MeterUsage(period.start, meter, 0))
    left = max(0, allowance - (usage.used - usage.burnt - usage.overage))
    by, granted, unpaid = [], 0, cost - min(cost, left)
    from_allowance = cost - unpaid
    for grant in terms.grants:
        if grant.meter == meter and grant.expires_at > request.now_us // _SECOND_US:
            available = max(0, grant.units - books.grant_used.get(grant.id, 0))
            granted += available
            if burn := min(unpaid, available):
                by.append((grant.id, burn))
                unpaid -= burn
    burnt = sum(units for _, units in by)
    over = unpaid if overage_max is None else min(unpaid, max(0, overage_max - usage.overage))
    short = unpaid - over
    whole, before = allowance + usage.burnt + granted, left + granted
    balance = MeterBalance(meter, whole, before, usage.overage)
    if limit is None or short:
        refused = Step(Rule.METER, Outcome.REFUSED, meter=meter, cost=cost, before=balance, short=short, window=period)
        return replace(refused, limit=overage_max)
    after = MeterBalance(meter, whole, before - from_allowance - burnt, usage.overage + over)
    paid = Charge(meter, cost, over, tuple(by))
    passed = Step(Rule.METER, Outcome.PASSED, meter=meter, cost=cost, before=balance, after=after, window=period)
    return replace(passed, limit=overage_max, paid=paid)


def _own_quota(books: Books, request: Request, own: OwnLimits, quota: Quota, period: Period) -> Step:
    cost = 0 if request.replayed else request.charges[quota.meter]
    window = window_of(quota.window_seconds, request.now_us // _SECOND_US, period)
    name = own.node, quota.meter, quota.window_seconds
    start, used = books.windows.get(name, (window.start, 0))
    used = used if start == window.start else 0
    before = MeterBalance(quota.meter, quota.units, max(0, quota.units - used), 0)
    refused = cost > 0 and used + cost > quota.units
    return Step(
        Rule.OWN_QUOTA,
        _refused_if(refused),
        own.level,
        quota.meter,
        cost,
        before,
        None if refused else MeterBalance(quota.meter, quota.units, max(0, quota.units - used - cost), 0),
        short=used + cost - quota.units if refused else 0,
        window=window,
        own=name,
    )


def _rate(request: Request, pace: Pace | None, arrival_us: float) -> Step:
    if pace is None or request.reported:
        return Step(Rule.RATE, Outcome.NO_LIMIT)
    arrival_us = max(arrival_us, request.now_us) + pace.interval_us
    early_us = arrival_us - pace.burst_us - request.now_us
    if early_us > 0:
        return Step(Rule.RATE, Outcome.REFUSED, pace=pace, wait_us=math.ceil(early_us))
    return Step(Rule.RATE, Outcome.PASSED, pace=pace, arrival_us=arrival_us)


def _concurrency(terms: Terms, books: Books, request: Request) -> Step:
    if terms.concurrent_max is None or request.reported:
        return Step(Rule.CONCURRENCY, Outcome.NO_LIMIT)
    refused = books.under_way >= terms.concurrent_max
    return Step(Rule.CONCURRENCY, _refused_if(refused), limit=terms.concurrent_max, found=books.under_way)


def _admission(terms: Terms, request: Request, period: Period, steps: Iterable[Step]) -> Admitted:
    balances = [step.after for step in steps if step.rule is Rule.METER and step.after is not None]
    permit = terms.concurrent_max is not None and not request.reported
    return Admitted(period, request.now_us, balances, b"", request.replayed, permit)


def _refusal(terms: Terms, request: Request, period: Period | None, step: Step) -> Decision:
    early: dict[Rule, Decision] = {
        Rule.VERSION: Stale(terms.version),
        Rule.STATUS: NotEntitled(terms.status),
        Rule.PERIOD: Unknown(lapsed=True),
    }
    if period is None or step.rule in early:
        return early[step.rule]
    if step.before is not None and step.meter is not None:
        if step.rule is Rule.METER and step.meter not in terms.meters:
            return NotInPlan(step.meter)
        over = step.limit if step.rule is Rule.METER else 0
        never = over is not None and step.cost > step.before.limit + over
        return Exhausted(step.window or period, request.now_us, step.before, never, step.level)
    if step.pace is not None:
        return RateLimited(period, request.now_us, step.wait_us, *step.pace, step.level)
    return ConcurrencyLimited(period, request.now_us, step.limit or 0)
