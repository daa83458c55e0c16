"""Valkey beside the reference: what one step asks both, and what has to hold after each step."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Mapping
from typing import Any, TypeVar

from hypothesis.stateful import RuleBasedStateMachine, invariant
from redis.asyncio import Redis

from quota import keys
from quota.access import KeyRecord, Path, version_word
from quota.events import FIELD, Charge, Kind, UsageEvent, parse
from quota.ledger import Ledger
from quota.model import Admitted, Entitlement, MeterLimit, OveragePolicy, Settlement
from tests import charging
from tests.expected import format_event
from tests.quota.reference import Reference
from tests.replies import as_entries, as_text

ORG = "acme"
COUNTERS = ("used", "burnt", "over", "grant")
KEPT_TERMS = ("status", "policy", "meters", "grants", "rate", "concurrent_max")

Result = TypeVar("Result")


class Comparison(RuleBasedStateMachine):
    """Each call goes to Valkey and to the reference, and both have to answer the same. The rules add what happens."""

    reference: Reference
    """Of the first step on."""
    now: int
    """Seconds since 1970, when the first step was made."""

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
