"""The laws under any interleaving: Valkey beside a plain reference, step by step, and both beside the event stream.

The steps are the same in every run (`derandomize`); what the clock adds is in the replies, which tell their own time.
"""

import asyncio
from typing import Any, NamedTuple

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    initialize,
    multiple,
    rule,
    run_state_machine_as_test,
)
from redis.asyncio import Redis

from quota.access import KeyRecord, Path, Quota, version_word
from quota.calls.take import charge_argv, decode_take
from quota.events import Kind, parse
from quota.model import (
    Admitted,
    Entitlement,
    Grant,
    MeterLimit,
    MeterUsage,
    NodeUsage,
    NotEntitled,
    OveragePolicy,
    RateLimit,
    Stale,
    Status,
)
from quota.periods import Period
from quota.scripts import script
from tests import charging
from tests.quota.comparison import ORG, Comparison
from tests.quota.reference import Reference

EXAMPLES, STEPS = 80, 50  # about 15 s
CALLS, TOKENS = "api_calls", "tokens"
KEYS = st.sampled_from(["k1", "k2", "k3"])

allowances = st.integers(0, 12)
caps = st.sampled_from([None, 0, 1, 3, 6])
units = st.integers(0, 8)
costs = st.integers(0, 6)
charges = st.one_of(
    st.builds(lambda n: {CALLS: n}, costs),
    st.builds(lambda n, m: {CALLS: n, TOKENS: m}, costs, costs),
    st.builds(lambda n, m: {TOKENS: m, CALLS: n}, costs, costs),
)
rates = st.sampled_from([None, RateLimit(1, 3600, 6), RateLimit(900, 1, 2)])


# Whoever has a short window sees many of them begin.
RECORDS = (
    KeyRecord("keyNumberOne"),
    KeyRecord("keyNumberTwo", quotas=(Quota(CALLS, 7, 86_400), Quota(TOKENS, 3, 2), Quota(CALLS, 12))),
    KeyRecord("keyWithRates", quotas=(Quota(TOKENS, 5),), rate=RateLimit(1, 3600, 3)),
)
principals = st.none() | st.sampled_from(RECORDS)


class Attempt(NamedTuple):
    """A request with an idempotency key that was admitted."""

    request_id: str
    key: str
    receipt: bytes


class Laws(Comparison):
    """What may happen, in any order."""

    receipts = Bundle("receipts")
    attempts = Bundle("attempts")

    @initialize(calls=allowances, tokens=allowances, given=st.lists(st.integers(1, 8), max_size=3))
    def begin(self, calls: int, tokens: int, given: list[int]) -> None:
        self.run(self.redis.flushdb())
        self.now = now = self.run(self.redis.time())[0]
        meters = (MeterLimit(CALLS, calls), MeterLimit(TOKENS, tokens))
        periods = (Period(now - 1000, now + 100_000), Period(now + 100_000, now + 200_000))
        self.reference = Reference(now, Entitlement(ORG, 0, Status.ACTIVE, meters=meters, periods=periods))
        self.publish(grants=tuple(Grant(self.name(), CALLS, n, now + 600 - i) for i, n in enumerate(given)))

    @rule(target=receipts, costs=charges, record=principals)
    def take(self, costs: dict[str, int], record: KeyRecord | None) -> Any:
        request_id = self.name()
        decision = self.ask(costs, request_id, record=record)
        return multiple(*self.check(decision, costs, request_id, record=record))

    @rule(costs=charges, record=st.sampled_from(RECORDS), behind=st.integers(1, 3))
    def take_by_what_was_read_before_the_last_change(
        self, costs: dict[str, int], record: KeyRecord, behind: int
    ) -> None:
        old = version_word(max(0, self.terms.version - behind), [record.limits])
        path = str(Path(ORG, None, record.id))
        decision = self.run(charging.take(self.ledger, ORG, self.name(), costs, path=path, version=old))
        assert decision == Stale(self.terms.version)

    @rule(target=attempts, costs=charges, key=KEYS, record=principals)
    def take_with_a_key(self, costs: dict[str, int], key: str, record: KeyRecord | None) -> Any:
        request_id = self.name()
        decision = self.ask(costs, request_id, key, record)
        receipts = [decision.receipt] if isinstance(decision, Admitted) else []
        self.check(decision, costs, request_id, key, record)
        return multiple(*(Attempt(request_id, key, receipt) for receipt in receipts))

    @rule(attempt=attempts)
    def give_back_for_one_attempt(self, attempt: Attempt) -> None:
        settlement = self.run(self.ledger.give_back(ORG, attempt.receipt, attempt.key, attempt.request_id))
        if attempt.receipt in self.settled:
            assert not settlement.applied
            return
        applied = self.reference.give_back(attempt.key, attempt.receipt, attempt.request_id)
        assert settlement.applied == applied
        if applied:
            self.settled.add(attempt.receipt)
            event = parse(attempt.receipt.decode())
            expected, corrections = self.reference.settle(event, {charge.meter: 0 for charge in event.charges})
            assert settlement == expected
            if corrections:
                self.expected.append(event._replace(kind=Kind.SETTLE, charges=corrections))

    @rule(concurrent_max=st.one_of(st.none(), st.integers(1, 4)))
    def limit_the_requests_under_way(self, concurrent_max: int | None) -> None:
        self.publish(concurrent_max=concurrent_max)

    @rule(which=st.integers(0, 3))
    def a_request_ends(self, which: int) -> None:
        request_id = sorted([*self.reference.under_way, *"none"])[which]
        assert self.run(charging.release(self.ledger, ORG, request_id)) == (request_id in self.reference.under_way)
        self.reference.under_way.discard(request_id)

    @rule()
    def the_permit_of_a_lost_request_runs_out(self) -> None:
        for request_id in sorted(self.reference.under_way)[:1]:
            self.run(self.redis.zadd(self.permits, {request_id: self.now}))
            self.reference.under_way.discard(request_id)

    @rule(target=receipts, requests=st.lists(st.tuples(charges, principals), min_size=2, max_size=8))
    def take_several_in_one_call(self, requests: list[tuple[dict[str, int], KeyRecord | None]]) -> Any:
        named = [(self.name(), costs, record) for costs, record in requests]
        argv = [word for name, costs, record in named for word in (name, *self.words(record), *charge_argv(costs))]
        names = [self.hash, self.stream] * len(named)
        replies = self.run(self.redis.eval(script("take").source.decode(), len(names), *names, *argv))
        receipts = []
        for reply, (request_id, costs, record) in zip(replies, named, strict=True):
            receipts += self.check(decode_take(reply, list(costs)), costs, request_id, record=record)
        return multiple(*receipts)

    @rule(receipt=receipts, calls=costs, tokens=st.one_of(st.none(), costs))
    def settle(self, receipt: bytes, calls: int, tokens: int | None) -> None:
        event = parse(receipt.decode())
        wanted = {CALLS: calls} if tokens is None else {CALLS: calls, TOKENS: tokens}
        actual = {meter: n for meter, n in wanted.items() if meter in {charge.meter for charge in event.charges}}
        if actual:
            self.correct(receipt, actual)

    @rule(receipt=receipts)
    def give_back(self, receipt: bytes) -> None:
        self.correct(receipt, {charge.meter: 0 for charge in parse(receipt.decode()).charges})

    @rule(receipt=receipts, refunds_max=st.integers(0, 3))
    def refund(self, receipt: bytes, refunds_max: int) -> None:
        self.correct(receipt, {charge.meter: 0 for charge in parse(receipt.decode()).charges}, refunds_max)

    @rule(
        calls=allowances,
        tokens=st.integers(0, 13).map(lambda n: None if n == 13 else n),  # seldom outside the plan
        cap=caps,
        policy=st.sampled_from(OveragePolicy),
    )
    def change_the_plan(self, calls: int, tokens: int | None, cap: int | None, policy: OveragePolicy) -> None:
        meters = (MeterLimit(CALLS, calls, cap),)
        self.publish(meters=meters if tokens is None else (*meters, MeterLimit(TOKENS, tokens)), policy=policy)

    @rule()
    def change_the_policy(self) -> None:
        hard = self.terms.policy is OveragePolicy.HARD_STOP
        self.publish(policy=OveragePolicy.METERED if hard else OveragePolicy.HARD_STOP)

    @rule(status=st.sampled_from([Status.ACTIVE, Status.TRIALING, Status.GRACE]))
    def suspend_and_resume(self, status: Status) -> None:
        self.publish(status=Status.SUSPENDED)
        assert self.run(charging.take(self.ledger, ORG, self.name(), {CALLS: 0})) == NotEntitled(Status.SUSPENDED)
        self.publish(status=status)

    @rule(rate=rates)
    def change_the_rate(self, rate: RateLimit | None) -> None:
        self.publish(rate=rate)

    @rule(meter=st.sampled_from([CALLS, TOKENS]), n=units, lasts_seconds=st.integers(600, 603))
    def give_a_grant(self, meter: str, n: int, lasts_seconds: int) -> None:
        grant = Grant(f"g{self.name()}", meter, n, self.now + lasts_seconds)
        self.publish(grants=(*self.terms.grants[-4:], grant))

    @rule(which=st.integers(0, 4))
    def a_grant_expires(self, which: int) -> None:
        grants = list(self.terms.grants)
        if which < len(grants):
            old = grants[which]
            grants[which] = Grant(old.id, old.meter, old.units, self.now)
            self.publish(grants=tuple(grants))

    @rule()
    def renew(self) -> None:
        """Another period is the current one, as if the time of its start had come."""
        current, following = self.terms.periods
        self.publish(periods=(Period(current.start + 1, current.end), following))

    @rule(behind=st.integers(0, 3))
    def publish_what_is_not_newer(self, behind: int) -> None:
        self.run(self.redis.script_flush())  # which nobody may notice
        old = Entitlement(ORG, max(0, self.terms.version - behind), Status.ACTIVE, periods=self.terms.periods)
        assert not self.run(self.ledger.publish(old))

    @rule()
    def lose_the_organization_and_seed_it_twice(self) -> None:
        """Redis lost the hash; what the events say is put back, and then the entitlement."""
        sums = self.sums()
        self.run(self.redis.delete(self.hash))
        usage = [
            MeterUsage(start, meter, *(sums[f"{kind}:{start}:{meter}"] for kind in ("used", "burnt", "over")))
            for start, meter in {
                (event.period_start, charge.meter) for event in self.events for charge in event.charges
            }
        ]
        nodes = [
            NodeUsage(f"k:{key}", meter, seconds, start, used)
            for (key, meter, seconds), (start, used) in self.reference.windows.items()
        ]
        grant_used = {g.id: sums[f"grant:{g.id}"] for g in self.terms.grants}
        for _ in range(2):
            self.run(self.ledger.seed(ORG, usage, grant_used, nodes=nodes))
        assert self.run(self.ledger.publish(self.terms))
        self.reference.arrival_us = 0.0
        self.reference.key_arrival_us.clear()
        self.reference.refunds.clear()  # no event tells them


def test_any_interleaving_keeps_every_law(redis_url: str) -> None:
    fixed = settings(
        max_examples=EXAMPLES,
        stateful_step_count=STEPS,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    with asyncio.Runner() as runner:
        redis = Redis.from_url(redis_url)
        try:

            class OfThisTest(Laws):
                def __init__(self) -> None:
                    super().__init__(runner, redis)

            run_state_machine_as_test(OfThisTest, settings=fixed)
        finally:
            runner.run(redis.aclose())
