"""What is recorded, with a clock of milliseconds, is decided again as it was, and otherwise under other limits."""

import random
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Final

import pytest

from control.analytics.what_if.key_limits import KeyLimits, Lives
from control.analytics.what_if.recorded import Recorded, entries_of
from control.analytics.what_if.replay import Given, Replayed, Span, replay
from control.sql.what_if import Charged, KeptRefusal
from quota.access import Quota
from quota.evaluation import Books, Evaluation, Request, evaluate
from quota.events import REPORTED
from quota.kept_refusals import words_of
from quota.model import Admitted, Grant, MeterUsage, RateLimit, Status
from quota.periods import Period
from quota.terms import MeterTerms, OwnLimits, Pace, Terms

START = datetime(2026, 11, 1, 12, 0, 0, 930_000, tzinfo=UTC)
START_US: Final = int(START.timestamp()) * 1_000_000 + 930_000
PERIOD = Period(int(START.timestamp()) - 1000, int(START.timestamp()) + 86_400)
CALLS, TOKENS, KEY = "calls", "tokens", "keyNumberOne"
NODE = f"k:{KEY}"
NONE = OwnLimits(NODE)
RUNS = 60


@dataclass
class Ledger:
    """Decides as the ledger does, by microseconds, and records as it does."""

    chance: random.Random
    terms: Terms
    now_us: int = START_US
    own: OwnLimits = NONE
    books: Books = field(default_factory=Books)
    spans: list[tuple[float, Terms]] = field(default_factory=list)
    lives: list[tuple[float, OwnLimits]] = field(default_factory=list)
    charged: list[Charged] = field(default_factory=list)
    refused: list[KeptRefusal] = field(default_factory=list)
    ends_us: list[int] = field(default_factory=list)
    made: list[tuple[str, Evaluation, str | None, int]] = field(default_factory=list)
    sequence: int = 0

    def __post_init__(self) -> None:
        self.change(self.terms, self.own)

    @property
    def at(self) -> datetime:
        return START + timedelta(microseconds=self.now_us - START_US)

    def change(self, terms: Terms, own: OwnLimits) -> None:
        """With the next millisecond."""
        self.now_us += 1000 - self.now_us % 1000
        self.terms, self.own = terms, own
        self.spans.append((self.at.timestamp(), terms))
        self.lives.append((self.at.timestamp(), own))

    def take(self, charges: Mapping[str, int], key: str | None, *, reported: bool = False, paced: bool = True) -> bool:
        self.sequence += 1
        own = (self.own,) if key is not None and (self.own.quotas or self.own.rate) else ()
        self.ends_us = [each for each in self.ends_us if each > self.now_us]
        self.books.under_way = len(self.ends_us)
        request_id = f"{REPORTED if reported else 'r'}{self.sequence}"
        request = Request(self.now_us, charges, None, own, reported=reported or not paced)
        evaluation = evaluate(self.terms, self.books, request)
        if not isinstance(evaluation.decision, Admitted):
            listed = [[meter, units] for meter, units in charges.items()]
            said = words_of(evaluation.decision)
            self.refused.append(KeptRefusal(self.at, request_id, listed, key, said))
            return False
        self.books.charge(evaluation)
        for each in own:
            self._forget_windows(each, charges)
        if evaluation.decision.permit:
            self.ends_us.append(self.now_us + self.chance.randint(100, 9000))
        self.made.append((request_id, evaluation, key, self.now_us // 1_000_000))
        self._record("take", request_id, evaluation, 1, key, self.now_us // 1_000_000)
        return True

    def _forget_windows(self, own: OwnLimits, charges: Mapping[str, int]) -> None:
        moved = {(each.meter, each.window_seconds) for each in own.quotas}
        for name in list(self.books.windows):
            if name[1] in charges and any(m == name[1] for m, _ in moved) and name[1:] not in moved:
                del self.books.windows[name]

    def give_back(self, at: int) -> None:
        """All of a charge, first of what was sold beyond the plan."""
        request_id, evaluation, key, second = self.made.pop(at)
        self.sequence += 1
        overage = dict[str, int]()
        for step in evaluation.steps:
            if (paid := step.paid) is None:
                continue
            start = PERIOD.start
            usage = self.books.usage[start, paid.meter]
            burnt, over = sum(units for _, units in paid.burnt), min(usage.overage, paid.units)
            overage[paid.meter] = -over
            self.books.usage[start, paid.meter] = MeterUsage(
                start, paid.meter, usage.used - paid.units, usage.burnt - burnt, usage.overage - over
            )
            for grant, units in paid.burnt:
                self.books.grant_used[grant] -= units
            for name, (begins, used) in list(self.books.windows.items()):
                counted = begins == (second - second % name[2] if name[2] else start)
                if key is not None and name[1] == paid.meter and counted and self._counts(evaluation):
                    self.books.windows[name] = begins, max(0, used - paid.units)
        self._record("settle", request_id, evaluation, -1, key, second, overage)

    @staticmethod
    def _counts(evaluation: Evaluation) -> bool:
        return any(each.quotas for each in evaluation.request.own)

    def _record(
        self,
        kind: str,
        request_id: str,
        evaluation: Evaluation,
        sign: int,
        key: str | None,
        second: int,
        overage: Mapping[str, int] | None = None,
    ) -> None:
        millisecond = self.at.replace(microsecond=self.at.microsecond // 1000 * 1000)
        counted = datetime.fromtimestamp(second, UTC) if self._counts(evaluation) else None
        for paid in sorted((step.paid for step in evaluation.steps if step.paid), key=lambda each: each.meter):
            burnt = {grant: sign * units for grant, units in paid.burnt} or None
            self.charged.append(
                Charged(
                    millisecond,
                    self.sequence,
                    request_id,
                    kind,
                    datetime.fromtimestamp(PERIOD.start, UTC),
                    paid.meter,
                    sign * paid.units,
                    paid.overage if overage is None else overage[paid.meter],
                    burnt,
                    key,
                    counted,
                )
            )

    # What is recorded

    @property
    def limits(self) -> KeyLimits:
        lives = Lives((0.0, *(at for at, _ in self.lives[1:])), tuple(own for _, own in self.lives))
        return KeyLimits({KEY: lives})

    def periods(self, terms: Terms | None = None) -> list[Span]:
        ends = [*(at for at, _ in self.spans[1:]), float(PERIOD.end)]
        return [Span(at, end, terms or each) for (at, each), end in zip(self.spans, ends, strict=True)]

    def entries(self) -> list[Recorded]:
        return entries_of(self.charged, self.refused)

    def again(self) -> Replayed:
        return replay(self.periods(), self.entries(), Given(self.limits), as_recorded=True)


def some_terms(chance: random.Random) -> Terms:
    meters = {CALLS: MeterTerms(chance.randint(0, 60), chance.choice([0, 0, 5, None]))}
    if chance.random() < 0.7:
        meters[TOKENS] = MeterTerms(chance.randint(0, 40), 0)
    grants = tuple(
        Grant(f"g{n}", chance.choice([CALLS, TOKENS]), chance.randint(1, 9), PERIOD.end)
        for n in range(chance.randint(0, 2))
    )
    rate = chance.choice([None, RateLimit(1000, 1.0, 2), RateLimit(400, 1.0, 3), RateLimit(700, 0.9, 1)])
    status = chance.choice([Status.ACTIVE] * 6 + [Status.SUSPENDED])
    concurrent_max = chance.choice([None, None, 1, 3])
    return Terms(1, status, (PERIOD,), meters, grants, Pace.of(rate), concurrent_max)


def some_limits(chance: random.Random) -> OwnLimits:
    windows = chance.sample([(CALLS, 0), (CALLS, 1), (TOKENS, 1)], chance.randint(0, 2))
    quotas = tuple(Quota(meter, chance.randint(1, 12), seconds) for meter, seconds in windows)
    return OwnLimits(NODE, quotas, Pace.of(chance.choice([None, None, RateLimit(300, 1.0, 2)])))


def some_run(seed: int) -> Ledger:
    chance = random.Random(seed)
    ledger = Ledger(chance, some_terms(chance))
    for _ in range(chance.randint(20, 120)):
        ledger.now_us += chance.choice([0, 40, 300, 900, 1700, 6000])
        if chance.random() < 0.05:
            ledger.change(some_terms(chance), some_limits(chance))
        if ledger.made and chance.random() < 0.1:
            ledger.give_back(chance.randrange(len(ledger.made)))
        charges = chance.choice([{CALLS: 1}, {CALLS: chance.randint(1, 4)}, {CALLS: 1, TOKENS: 2}, {TOKENS: 1}])
        ledger.take(charges, chance.choice([None, KEY, KEY]), reported=chance.random() < 0.1)
    return ledger


def test_the_terms_in_force_decide_every_recorded_request_again_as_it_was() -> None:
    rules = set[str]()
    for seed in range(RUNS):
        ledger = some_run(seed)
        again = ledger.again()
        assert again.requests == len({row.request_id for row in ledger.charged}) + len(ledger.refused), seed
        assert (again.refused, again.served, again.differing, again.unpaced) == ([], 0, 0, set()), seed
        used = {name: usage for name, usage in ledger.books.usage.items() if usage.used or name in again.used}
        assert again.used == used, seed
        rules |= {each.said.rule.value for each in again.order if each.said is not None}
        unchanged = replay(ledger.periods(), again.order, Given(ledger.limits))
        assert (unchanged.refused, unchanged.served, unchanged.used) == ([], 0, used), seed
    assert rules == {"status", "meter", "own_quota", "rate", "own_rate", "concurrency"}


def test_without_limits_of_speed_and_with_units_enough_nobody_is_refused() -> None:
    free = Terms(1, Status.ACTIVE, (PERIOD,), {CALLS: MeterTerms(10**6), TOKENS: MeterTerms(10**6)})
    for seed in range(20):
        ledger = some_run(seed)
        otherwise = replay(ledger.periods(free), ledger.again().order, Given(ledger.limits.changed({KEY: NONE})))
        assert (otherwise.refused, otherwise.served, otherwise.unsure) == ([], len(ledger.refused), 0), seed


def paced(rate: RateLimit | None, concurrent_max: int | None = None) -> Terms:
    return Terms(1, Status.ACTIVE, (PERIOD,), {CALLS: MeterTerms(10**6)}, (), Pace.of(rate), concurrent_max)


def test_a_lower_rate_refuses_what_came_too_fast_for_it_whatever_the_microsecond() -> None:
    ledger = Ledger(random.Random(1), paced(RateLimit(1000, 1.0, 5)))
    for _ in range(20):
        ledger.now_us += 10_000
        assert ledger.take({CALLS: 1}, None)
    slower = replay(ledger.periods(paced(RateLimit(50, 1.0, 1))), ledger.again().order)
    assert [each.rule for each in slower.refused] == ["rate"] * 10
    assert {each.request_id for each in slower.refused} == {f"r{2 * n}" for n in range(1, 11)}


def test_a_verdict_that_depends_on_less_than_a_millisecond_stays_what_is_recorded() -> None:
    ledger = Ledger(random.Random(1), paced(RateLimit(100, 1.0, 1)))
    assert ledger.take({CALLS: 1}, None)
    ledger.now_us += 9_700
    assert not ledger.take({CALLS: 1}, None)
    order = ledger.again().order
    nearly = replay(ledger.periods(paced(RateLimit(104, 1.0, 1))), order)
    assert (nearly.served, nearly.unsure) == (0, 1)
    faster = replay(ledger.periods(paced(RateLimit(200, 1.0, 1))), order)
    assert (faster.served, faster.unsure) == (1, 0)


def test_usage_that_was_reported_and_what_was_charged_after_an_outage_is_refused_by_no_rate() -> None:
    ledger = Ledger(random.Random(1), paced(RateLimit(100, 1.0, 1)))
    assert ledger.take({CALLS: 1}, None)
    assert all(ledger.take({CALLS: 1}, None, reported=True) for _ in range(3))
    assert ledger.take({CALLS: 1}, None, paced=False)
    again = ledger.again()
    assert (again.differing, again.unpaced) == (0, {"r5"})
    slower = replay(ledger.periods(paced(RateLimit(1, 1.0, 1))), again.order, Given(unpaced=frozenset(again.unpaced)))
    assert slower.refused == []


@pytest.mark.parametrize(("seconds", "limit", "refused"), [(None, 1, 0), (0.005, 1, 0), (0.015, 1, 5), (0.1, 4, 6)])
def test_concurrent_requests_are_counted_where_it_is_supposed_how_long_each_takes(
    seconds: float | None, limit: int, refused: int
) -> None:
    ledger = Ledger(random.Random(1), paced(None))
    for _ in range(10):
        ledger.now_us += 10_000
        assert ledger.take({CALLS: 1}, None)
    otherwise = replay(ledger.periods(paced(None, limit)), ledger.again().order, Given(request_seconds=seconds))
    assert [each.rule for each in otherwise.refused] == ["concurrency"] * refused


def test_without_a_supposed_time_a_higher_limit_of_concurrent_requests_leaves_it_open_who_would_be_served() -> None:
    ledger = Ledger(random.Random(1), paced(None, 1))
    assert ledger.take({CALLS: 1}, None)
    assert not ledger.take({CALLS: 1}, None)
    order = ledger.again().order
    higher = replay(ledger.periods(paced(None, 2)), order)
    assert (higher.served, higher.unsure) == (0, 1)
    assert replay(ledger.periods(paced(None)), order).served == 1
    assert replay(ledger.periods(paced(None, 2)), order, Given(request_seconds=1.0)).served == 1


def test_another_quota_of_a_key_refuses_the_requests_of_that_key_alone() -> None:
    ledger = Ledger(random.Random(1), paced(None))
    for number in range(10):
        ledger.now_us += 1000
        assert ledger.take({CALLS: 1}, KEY if number % 2 else None)
    smaller = KeyLimits().changed({KEY: replace(NONE, quotas=(Quota(CALLS, 3),))})
    otherwise = replay(ledger.periods(), ledger.again().order, Given(smaller))
    assert [(each.request_id, each.rule) for each in otherwise.refused] == [("r8", "own_quota"), ("r10", "own_quota")]
