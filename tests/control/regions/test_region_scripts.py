"""The ledger of the model and the scripts on a real Valkey do the same, step by step."""

from dataclasses import replace
from random import Random

from redis.asyncio import Redis

from bench.regions.world import ALLOWANCE, CALLS, GRANT, IN_ORDER, OVERAGE, ReferenceLedger
from control.regions.region import drawn_of, held_of
from control.regions.terms import Lease, Slot, slot
from quota import generation, keys
from quota.calls.leases import LeaseTerms
from quota.ledger import Ledger
from quota.model import Admitted, Entitlement, Exhausted, Grant, MeterLimit, OveragePolicy, Status, Unknown
from quota.periods import Period
from tests import charging

RUNS, STEPS = 30, 60
ORG = "acme"
GENERATION = generation.made("server", 1, "nonce")


class Both:
    """The same ledger twice."""

    def __init__(self, random: Random, ledger: Ledger, now: int) -> None:
        self.random, self.ledger, self.now = random, ledger, now
        self.model = ReferenceLedger()
        self.periods = (Period(now - 1000, now + 100_000), Period(now + 100_000, now + 200_000))
        self.grant = Grant(GRANT.name, CALLS, 10_000, now + 90_000)
        self.charged: list[tuple[bytes, dict[Slot, int]]] = []
        self.steps = 0

    async def begin(self) -> None:
        await self.ledger.redis.flushdb()
        await self.ledger.redis.set(keys.generation_key(keys.shard_of(ORG, self.ledger.shards)), GENERATION)
        meters = (MeterLimit(CALLS, 10_000, 10_000),)
        entitlement = Entitlement(
            ORG, 1, Status.ACTIVE, None, OveragePolicy.METERED, meters, (self.grant,), self.periods
        )
        assert await self.ledger.publish(entitlement, leased=True)
        self.model.held = dict.fromkeys(IN_ORDER, 0)

    async def take(self) -> None:
        cost = self.random.randint(0, 12)
        decision = await charging.take(self.ledger, ORG, f"r{self.steps}", {CALLS: cost})
        now_s = (decision.now_us if isinstance(decision, Admitted | Exhausted) else self.now * 1_000_000) // 1_000_000
        period, paid = self.model.period(now_s), self.model.take(cost, now_s)
        if period is None:
            assert isinstance(decision, Unknown)
        elif paid is None:
            assert isinstance(decision, Exhausted)
        else:
            assert isinstance(decision, Admitted)
            self.charged.append((decision.receipt, paid))

    async def settle(self) -> None:
        if self.charged:
            receipt, paid = self.charged.pop(self.random.randrange(len(self.charged)))
            units = self.random.randint(0, sum(paid.values()))
            await charging.settle(self.ledger, ORG, receipt, {CALLS: units})
            self.model.settle(paid, units, self.now)

    async def lower(self) -> None:
        wanted = {account: self.random.randint(0, 60) for account in IN_ORDER if self.random.random() < 0.6}
        returns = await self.ledger.lower(ORG, {str(a): units for a, units in wanted.items()}, GENERATION)
        self.model.lower(wanted)
        assert returns == self.model.returns

    async def lease(self) -> None:
        r = self.random
        asked_at = self.now + r.choice([-20, -20, -20, 50, -90])
        lease = Lease(
            epoch=1,
            returns=self.model.returns - (r.random() < 0.2),
            number=max(1, self.model.number + r.choice([1, 1, 1, 0, -1])),
            asked_at=asked_at,
            ends_at=asked_at + 60,
            periods=self.periods[: r.randint(1, 2)],
            ceilings={account: r.randint(0, 80) for account in IN_ORDER},
        )
        if lease.returns < 0:
            return
        terms = LeaseTerms(
            1,
            lease.returns,
            lease.number,
            asked_at,
            60,
            lease.periods,
            (MeterLimit(CALLS, lease.ceilings[ALLOWANCE], lease.ceilings[OVERAGE]),),
            (replace(self.grant, units=lease.ceilings[GRANT]),),
        )
        assert await self.ledger.lease(ORG, terms, GENERATION) == self.model.install(lease)

    async def step(self) -> None:
        self.steps += 1
        step = self.random.choice([self.take, self.take, self.take, self.settle, self.lower, self.lease])
        await step()
        holding = await self.ledger.holding(ORG)
        assert holding is not None
        assert (holding.returns, holding.number) == (self.model.returns, self.model.number)
        assert held_of(holding.snapshot) == self.model.held
        start = self.periods[0].start
        for account in IN_ORDER:
            of = slot(account, start)
            assert drawn_of(holding.snapshot).get(of, 0) == self.model.drawn[of], (step.__name__, of)


async def test_the_scripts_and_the_ledger_of_the_model_do_the_same(redis_url: str) -> None:
    async with Redis.from_url(redis_url) as redis:
        for seed in range(RUNS):
            seconds, _ = await redis.time()
            both = Both(Random(seed), Ledger(redis), seconds)
            await both.begin()
            for _ in range(STEPS):
                await both.step()
