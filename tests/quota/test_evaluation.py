"""`evaluate` and `take` are two implementations of one set of rules: a real Valkey beside plain Python."""

import asyncio
from dataclasses import replace
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from quota import keys
from quota.access import KeyRecord, Path, Quota, version_word
from quota.calls.take import Take, decode_take, take_call
from quota.evaluation import Books, Evaluation, Request, Rule, evaluate
from quota.ledger import Ledger
from quota.model import (
    Admitted,
    Entitlement,
    Grant,
    MeterLimit,
    MeterUsage,
    NodeUsage,
    OveragePolicy,
    RateLimit,
    Stale,
    Status,
)
from quota.periods import Period
from quota.remedies import Case, Change, ChangeKind, alternatives, remedy
from quota.terms import MeterTerms, OwnLimits, Terms, window_of
from quota.wire import REPLY

EXAMPLES = 400  # some 5 s
ORG, KEY = "acme", "keyNumberOne"
NODE = f"k:{KEY}"
CALLS, TOKENS = "api_calls", "tokens"
METERS = (CALLS, TOKENS)
DAY, YEAR = 86_400, 366 * 86_400

small = st.integers(0, 12)


class Held(NamedTuple):
    """What Redis holds, with times relative to now."""

    status: Status
    policy: OveragePolicy
    periods: tuple[tuple[int, int], ...]
    meters: tuple[MeterLimit, ...]
    grants: tuple[tuple[str, int, int, int], ...]
    """Meter, units, used units, seconds until it expires."""
    rate: RateLimit | None
    early_us: int
    """How far ahead of now the bucket's arrival time is."""
    concurrent_max: int | None
    under_way: int
    used: dict[str, tuple[int, int, int]]
    """By meter: from the allowance, burnt, overage."""
    quotas: tuple[Quota, ...]
    own_used: tuple[int, ...]
    own_rate: RateLimit | None
    own_early_us: int
    charges: dict[str, int]
    behind: int | None
    """How much older the version is that the take says; None: it says none."""
    keyed: bool


PERIODS = (
    ((-1000, YEAR), (YEAR, 2 * YEAR)),
    ((-1000, YEAR),),
    ((-2000, -1000), (-1000, YEAR)),
    ((-2000, -1000),),
    ((1000, 2000),),
)
meter_limits = st.builds(MeterLimit, st.just(CALLS), small, st.sampled_from([None, 0, 2, 5]))
quotas = st.lists(
    st.builds(Quota, st.sampled_from(METERS), small, st.sampled_from([0, 60, DAY])),
    max_size=3,
    unique_by=lambda q: (q.meter, q.window_seconds),
).map(tuple)
rates = st.sampled_from([None, None, RateLimit(1, 3600, 3), RateLimit(7, 60, 2)])
ahead_us = st.sampled_from([0, 1_000_000, 7_100_000_000, 7_300_000_000, 14_400_000_000]).flatmap(
    lambda us: st.integers(us, us + 20_000_000)
)
often = [Status.ACTIVE] * 6
held = st.builds(
    Held,
    status=st.sampled_from([*often, *Status]),
    policy=st.sampled_from(OveragePolicy),
    periods=st.sampled_from([*[PERIODS[0]] * 6, *PERIODS]),
    meters=st.one_of(
        st.tuples(meter_limits),
        st.tuples(meter_limits, st.builds(MeterLimit, st.just(TOKENS), small, st.sampled_from([None, 0, 3]))),
    ),
    grants=st.lists(
        st.tuples(st.sampled_from(METERS), st.integers(0, 8), st.integers(0, 8), st.sampled_from([-1, 600, 700])),
        max_size=3,
    ).map(tuple),
    rate=rates,
    early_us=ahead_us,
    concurrent_max=st.sampled_from([None, None, 1, 3]),
    under_way=st.integers(0, 4),
    used=st.dictionaries(st.sampled_from(METERS), st.tuples(st.integers(0, 15), st.integers(0, 5), st.integers(0, 5))),
    quotas=quotas,
    own_used=st.tuples(small, small, small),
    own_rate=rates,
    own_early_us=ahead_us,
    charges=st.one_of(
        st.builds(lambda n: {CALLS: n}, small),
        st.builds(lambda n, m: {CALLS: n, TOKENS: m}, small, small),
        st.builds(lambda n, m: {TOKENS: m, CALLS: n}, small, small),
    ),
    behind=st.sampled_from([None, 0, 0, 0, 1]),
    keyed=st.booleans(),
)


class Valkey:
    """One organization on a real Valkey, put into any state."""

    def __init__(self, redis: Redis) -> None:
        self.redis, self.ledger = redis, Ledger(redis)
        self.hash = keys.org_key(ORG, self.ledger.shards)
        self.permits = keys.permits_key(ORG, self.ledger.shards)
        self.version = 100

    async def hold(self, held: Held) -> tuple[Entitlement, KeyRecord]:
        """Publishes and counts what is to be held. A rate's arrival time is set ahead of the present one."""
        await self.redis.flushdb()
        now, us = await self.redis.time()
        self.version += 2
        terms = Entitlement(
            ORG,
            self.version,
            held.status,
            policy=held.policy,
            meters=held.meters,
            grants=tuple(Grant(f"g{i}", m, n, now + left) for i, (m, n, _, left) in enumerate(held.grants)),
            periods=tuple(Period(now + start, now + end) for start, end in held.periods),
            rate=held.rate,
            concurrent_max=held.concurrent_max,
        )
        current = next((p for p in terms.periods if now in p), None)
        if current is not None:
            usage = [
                MeterUsage(current.start, meter, own + burnt + over, burnt, over)
                for meter, (own, burnt, over) in held.used.items()
            ]
            nodes = []
            for quota, used in zip(held.quotas, held.own_used, strict=False):
                seconds = quota.window_seconds
                start = now - now % seconds if seconds else current.start
                nodes.append(NodeUsage(NODE, quota.meter, seconds, start, used))
            grant_used = {f"g{i}": min(units, used) for i, (_, units, used, _) in enumerate(held.grants)}
            await self.ledger.seed(ORG, usage, grant_used, nodes=nodes)
        await self.ledger.publish(terms)
        now_us = now * 1_000_000 + us
        await self.redis.hset(self.hash, "tat", float(now_us + held.early_us))
        await self.redis.hset(self.hash, f"nt:{NODE}", float(now_us + held.own_early_us))
        for n in range(held.under_way):
            await self.redis.zadd(self.permits, {f"other{n}": now + 50})
        return terms, KeyRecord(KEY, quotas=held.quotas, rate=held.own_rate)

    async def read(self) -> tuple[Terms, Books]:
        snapshot = await self.ledger.peek(ORG)
        assert snapshot is not None
        under_way = int(await self.redis.zcard(self.permits))
        return Terms.of_snapshot(snapshot), Books.of_snapshot(snapshot, under_way)

    async def take(self, held: Held, record: KeyRecord | None, version: int) -> tuple[Any, int]:
        """The decision, and the time of it."""
        word = "" if held.behind is None else version_word(version - held.behind, [record.limits] if record else [])
        path = str(Path(ORG, None, record.id if record else None))
        call = take_call([Take(ORG, "r1", held.charges, path=path, version=word)], self.ledger.shards)
        [reply] = await self.ledger.run(call)
        return decode_take(reply, list(held.charges)), int(REPLY.unpack_from(reply)[2])


def asked(held: Held, record: KeyRecord | None, version: int, now_us: int) -> Request:
    if held.behind is None:
        return Request(now_us, held.charges)
    return Request(now_us, held.charges, version - held.behind, (OwnLimits.of(record),) if record else ())


def without_receipt(decision: Any) -> Any:
    if isinstance(decision, Admitted):
        decision.receipt = b""
    return decision


def on_valkey(redis_url: str, examples: int, step: Any) -> None:
    """`step` for so many states, the same ones in each run."""
    with asyncio.Runner() as runner:
        redis = Redis.from_url(redis_url)
        valkey = Valkey(redis)

        @settings(
            max_examples=examples,
            derandomize=True,
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(held)
        def each(held: Held) -> None:
            runner.run(step(valkey, held))

        try:
            each()
        finally:
            runner.run(redis.aclose())


def test_evaluate_decides_and_counts_what_take_decides_and_counts(redis_url: str) -> None:
    verdicts: set[type] = set()

    async def step(valkey: Valkey, held: Held) -> None:
        published, record = await valkey.hold(held)
        terms, books = await valkey.read()
        key = record if held.keyed else None
        assert terms == Terms.of(published)
        decision, now_us = await valkey.take(held, key, terms.version)
        verdicts.add(type(decision))
        evaluation = evaluate(terms, books, asked(held, key, terms.version, now_us))
        assert without_receipt(decision) == evaluation.decision
        books.charge(evaluation)
        _, after = await valkey.read()
        assert without_zeros(after) == without_zeros(books)

    on_valkey(redis_url, EXAMPLES, step)
    assert {verdict.__name__ for verdict in verdicts} == {
        "Admitted",
        "ConcurrencyLimited",
        "Exhausted",
        "NotEntitled",
        "NotInPlan",
        "RateLimited",
        "Stale",
        "Unknown",
    }


def without_zeros(books: Books) -> Books:
    """What is absent in Redis is zero."""
    return replace(
        books,
        usage={name: usage for name, usage in books.usage.items() if usage.used},
        grant_used={name: used for name, used in books.grant_used.items() if used},
        windows={name: window for name, window in books.windows.items() if window[1]},
    )


def test_what_is_named_as_the_smallest_change_admits_at_the_ledger_and_one_less_does_not(redis_url: str) -> None:
    tried: set[ChangeKind] = set()

    async def step(valkey: Valkey, held: Held) -> None:
        published, record = await valkey.hold(held)
        terms, books = await valkey.read()
        key = record if held.keyed else None
        decision, now_us = await valkey.take(held, key, terms.version)
        if isinstance(decision, Admitted):
            return
        case = Case(terms, books, asked(held, key, terms.version, now_us))
        offered, all_of_them = alternatives(case), remedy(case)
        assert all_of_them is not None
        first = case.evaluate().refused[0]
        kinds = {change.kind for change in offered if change.about == first.about}
        assert kinds, "each refusal can be lifted"
        assert first.rule is not Rule.METER or kinds >= {ChangeKind.GIVE_GRANT, ChangeKind.RAISE_ALLOWANCE}
        for change in offered:
            tried.add(change.kind)
            assert not refuses(change.applied(case), change)
            assert (less := smaller(change)) is None or refuses(less.applied(case), change)
            others = remedy(change.applied(case))
            assert others is not None
            lifted = apply(case, [change, *others])
            await make(valkey, published, held, lifted.request.now_us - now_us, lifted)
        for n, change in enumerate(all_of_them):
            if (less := smaller(change)) is not None:
                almost = apply(case, [*all_of_them[:n], less, *all_of_them[n + 1 :]])
                assert not isinstance(almost.evaluate().decision, Admitted)

    on_valkey(redis_url, EXAMPLES, step)
    assert tried == set(ChangeKind) - {ChangeKind.GIVE_PLAN}


def apply(case: Case, changes: list[Change]) -> Case:
    for change in changes:
        case = change.applied(case)
    return case


def refuses(case: Case, change: Change) -> bool:
    """Whether the rule that the change is about refuses."""
    return any(step.about == change.about for step in case.evaluate().refused)


def smaller(change: Change) -> Change | None:
    """The same with one less; None where that is no change."""
    opens = change.by <= 1 and change.kind in (ChangeKind.GIVE_GRANT, ChangeKind.RAISE_ALLOWANCE)
    sized = change.kind.value.startswith("raise_") or change.kind in (ChangeKind.GIVE_GRANT, ChangeKind.WAIT)
    return replace(change, by=change.by - 1, to=change.to - 1) if sized and not opens else None


async def make(valkey: Valkey, published: Entitlement, held: Held, waited_us: int, lifted: Case) -> None:
    """Makes what was changed at a ledger that holds the same, and takes there.

    Waiting is done by moving everything else into the past."""
    again, record = await valkey.hold(held)
    terms, books, request = lifted
    assert terms is not None
    now, _ = await valkey.redis.time()
    then = request.now_us // 1_000_000
    period = next(p for p in terms.periods if then in p)
    in_another = period != next((p for p in published.periods if then - waited_us // 1_000_000 in p), None)
    sells = any(limit.overage_max != 0 for limit in terms.meters.values())
    moved = replace(
        again,
        version=again.version + 1,
        status=terms.status,
        policy=OveragePolicy.METERED if sells else OveragePolicy.HARD_STOP,
        meters=tuple(MeterLimit(meter, *limit) for meter, limit in terms.meters.items()),
        grants=tuple(replace(grant, expires_at=grant.expires_at - then + now) for grant in terms.grants),
        periods=(Period(now - 10, now + DAY),) if in_another else again.periods,
        concurrent_max=terms.concurrent_max,
    )
    assert await valkey.ledger.publish(moved)
    await valkey.redis.hset(valkey.hash, "tat", books.arrival_us - waited_us)
    await valkey.redis.hset(valkey.hash, f"nt:{NODE}", books.own_arrivals_us[NODE] - waited_us)
    for meter in METERS:
        windows = []
        for (_, of, seconds), (start, used) in books.windows.items():
            if of == meter and window_of(seconds, then, period).start == start:
                begins = window_of(seconds, now, again.periods[0] if seconds else period).start
                windows.append(
                    f"{seconds}:{begins + (again.periods[0].start - period.start if not seconds else 0)}:{used}"
                )
        await valkey.redis.hset(valkey.hash, f"n:{NODE}:{meter}", " ".join(windows))
    key = replace(record, quotas=request.own[0].quotas) if request.own else None
    said = held._replace(behind=None if held.behind is None else 0)
    decision, _ = await valkey.take(said, key, moved.version)
    assert isinstance(decision, Admitted), decision


def test_an_unknown_organization_needs_a_plan() -> None:
    case = Case(None, Books(), Request(1_000_000, {CALLS: 3}))
    assert [change.kind for change in alternatives(case)] == [ChangeKind.GIVE_PLAN]
    changes = remedy(case)
    assert changes is not None
    assert [change.kind for change in changes] == [ChangeKind.GIVE_PLAN, ChangeKind.GIVE_GRANT]
    assert changes[1].by == 3


@pytest.mark.parametrize("meter", METERS)
def test_the_first_rule_that_refuses_decides_and_those_behind_it_are_looked_at_all_the_same(meter: str) -> None:
    terms = Terms(7, Status.SUSPENDED, (Period(0, 100),), {CALLS: MeterTerms(5)})
    evaluation: Evaluation = evaluate(terms, Books(), Request(1_000_000, {meter: 6}, version=6))
    assert evaluation.decision == Stale(7)
    assert [step.rule.value for step in evaluation.refused] == ["version", "status", "meter"]
