"""The laws under any interleaving: Valkey beside a plain reference, step by step, and both beside the event stream.

The steps are the same in every run (`derandomize`); what the clock adds is in the replies, which tell their own time.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Mapping
from typing import Any, NamedTuple, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)
from redis.asyncio import Redis

from quota import keys
from quota.access import KeyRecord, Path, Quota, version_word
from quota.calls.take import charge_argv, decode_take
from quota.events import FIELD, Charge, Kind, UsageEvent, parse
from quota.ledger import Ledger
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
    Settlement,
    Stale,
    Status,
)
from quota.periods import Period
from quota.scripts import script
from tests import charging
from tests.expected import format_event
from tests.quota.reference import Reference
from tests.replies import as_entries, as_text

EXAMPLES, STEPS = 80, 50  # about 15 s
ORG, CALLS, TOKENS = "acme", "api_calls", "tokens"
COUNTERS = ("used", "burnt", "over", "grant")

KEPT_TERMS = ("status", "policy", "meters", "grants", "rate", "concurrent_max")
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

Result = TypeVar("Result")


class Attempt(NamedTuple):
    """A request with an idempotency key that was admitted."""

    request_id: str
    key: str
    receipt: bytes


class Laws(RuleBasedStateMachine):
    receipts = Bundle("receipts")
    attempts = Bundle("attempts")

    def __init__(self, runner: asyncio.Runner, redis: Redis) -> None:
        super().__init__()
        self.runner, self.redis, self.ledger = runner, redis, Ledger(redis)
        self.hash = keys.org_key(ORG, self.ledger.shards)
        self.stream = keys.events_key(keys.shard_of(ORG, self.ledger.shards))
        self.permits = keys.permits_key(ORG, self.ledger.shards)
        self.names = 0
        self.settled: set[bytes] = set()
        self.expected: list[UsageEvent] = []  # of the step that is under way
        self.events: list[UsageEvent] = []
        self.last_id = b""

    @property
    def terms(self) -> Entitlement:
        return self.reference.terms

    def run(self, awaitable: Awaitable[Result]) -> Result:
        async def result() -> Result:
            return await awaitable

        return self.runner.run(result())

    def name(self) -> str:
        self.names += 1
        return f"r{self.names}"

    def publish(self, **changes: Any) -> None:
        known = {field: getattr(self.terms, field) for field in KEPT_TERMS}
        terms: dict[str, Any] = {"version": self.terms.version + 1, "periods": self.terms.periods} | known | changes
        self.reference.publish(Entitlement(ORG, **terms))
        assert self.run(self.ledger.publish(self.terms))

    def words(self, record: KeyRecord | None) -> tuple[str, str]:
        """The path and the version word of a principal."""
        if record is None:
            return ORG, ""
        return str(Path(ORG, None, record.id)), version_word(self.terms.version, [record.limits])

    def ask(
        self, costs: Mapping[str, int], request_id: str, key: str | None = None, record: KeyRecord | None = None
    ) -> Any:
        return self.run(charging.take(self.ledger, ORG, request_id, costs, key, *self.words(record)))

    def check(
        self,
        decision: Any,
        costs: Mapping[str, int],
        request_id: str,
        key: str | None = None,
        record: KeyRecord | None = None,
    ) -> list[bytes]:
        """The decision is the reference's. Returns the receipt, if something was charged."""
        now_us = getattr(decision, "now_us", 0)
        expected, paid = self.reference.take(costs, now_us, request_id, key, record)
        if not isinstance(decision, Admitted) or decision.replayed:
            assert decision == expected
            return []
        counted = record is not None and self.reference.count_for_key(record, costs, now_us)
        key_id, at = record.id if record else None, now_us // 1_000_000 if counted else None
        event = UsageEvent(Kind.TAKE, request_id, ORG, self.terms.periods[0].start, paid, None, key_id, at)
        self.expected.append(event)
        receipt, decision.receipt = decision.receipt, b""
        assert decision == expected
        assert receipt == format_event(event).encode()
        if key is not None:
            self.reference.once[key] = (receipt, {request_id})
        return [receipt]

    def correct(self, receipt: bytes, actual: Mapping[str, int], refunds_max: int | None = None) -> None:
        settlement = self.run(charging.settle(self.ledger, ORG, receipt, actual, refunds_max))
        if receipt in self.settled:
            assert settlement == Settlement(False, {}, {})
            return
        event = parse(receipt.decode())
        if refunds_max is not None and self.reference.refunds[event.period_start] >= refunds_max:
            assert settlement == Settlement(False, {}, {}, capped=True)
            return
        self.settled.add(receipt)
        expected, corrections = self.reference.settle(event, actual)
        assert settlement == expected
        if corrections:
            self.reference.refunds[event.period_start] += refunds_max is not None
            self.expected.append(event._replace(kind=Kind.SETTLE, charges=corrections))

    # What may happen, in any order

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

    # What holds after each step

    @invariant()
    def permits_are_those_of_the_requests_under_way(self) -> None:
        held = {as_text(name) for name in self.run(self.redis.zrangebyscore(self.permits, f"({self.now}", "+inf"))}
        assert held == self.reference.under_way

    def sums(self) -> Counter[str]:
        """The counters, as the events add up to them."""
        sums: Counter[str] = Counter()
        for event in self.events:
            for charge in event.charges:
                sums[f"used:{event.period_start}:{charge.meter}"] += charge.units
                sums[f"over:{event.period_start}:{charge.meter}"] += charge.overage
                for grant, n in charge.burnt:
                    sums[f"burnt:{event.period_start}:{charge.meter}"] += n
                    sums[f"grant:{grant}"] += n
        return sums

    @invariant()
    def stream_counters_and_reference_agree(self) -> None:
        entries = as_entries(self.run(self.redis.xrange(self.stream, b"(" + self.last_id if self.last_id else b"-")))
        texts = [fields[FIELD].decode() for _, fields in entries]
        assert texts == [format_event(event) for event in self.expected]
        if entries:
            self.last_id = entries[-1][0]
        new, self.expected = self.expected, []
        self.events += new
        sums = self.sums()
        for event in new:
            for charge in event.charges:
                self.no_limit_was_exceeded(event.period_start, charge, sums)
        listed = {f"grant:{grant.id}" for grant in self.terms.grants}
        fields = {as_text(name): value for name, value in self.run(self.redis.hgetall(self.hash)).items()}
        counters = {name: int(value) for name, value in fields.items() if name.partition(":")[0] in COUNTERS}
        assert min(counters.values(), default=0) >= 0
        assert {name: n for name, n in counters.items() if n} == self.reference.nonzero()
        assert self.reference.nonzero() == {
            name: n for name, n in sums.items() if n and (name in listed or not name.startswith("grant:"))
        }

    def no_limit_was_exceeded(self, start: int, charge: Charge, sums: Counter[str]) -> None:
        """From the published terms and the events alone, after all that was charged in the step."""
        limit = next((m for m in self.terms.meters if m.meter == charge.meter), MeterLimit(charge.meter, 0, 0))
        over = sums[f"over:{start}:{charge.meter}"]
        from_allowance = charge.units - charge.overage - sum(n for _, n in charge.burnt)
        if from_allowance > 0:
            used, burnt = sums[f"used:{start}:{charge.meter}"], sums[f"burnt:{start}:{charge.meter}"]
            assert used - burnt - over <= limit.allowance
        if charge.overage > 0:
            assert self.terms.policy is OveragePolicy.METERED
            assert limit.overage_max is None or over <= limit.overage_max
        for grant in self.terms.grants:
            assert 0 <= sums[f"grant:{grant.id}"] <= grant.units
            if grant.expires_at <= self.now:
                assert dict(charge.burnt).get(grant.id, 0) <= 0

    @invariant()
    def peek_tells_the_balances_of_the_reference(self) -> None:
        snapshot = self.run(self.ledger.peek(ORG))
        assert snapshot is not None
        assert snapshot.version == self.terms.version
        assert snapshot.refunds == dict(+self.reference.refunds)
        assert list(snapshot.balances()) == [self.reference.balance(m.meter) for m in snapshot.meters]
        now_s, period = snapshot.now_us // 1_000_000, self.terms.periods[0]
        told = {
            (n.node.removeprefix("k:"), n.meter, n.window_seconds): (n.start, n.used)
            for n in snapshot.nodes
            if n.used and self.reference.window(n.window_seconds, now_s, period.start).start == n.start
        }
        assert told == {
            name: (start, used)
            for name, (start, used) in self.reference.windows.items()
            if used and self.reference.window(name[2], now_s, period.start).start == start
        }


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
