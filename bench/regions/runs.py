"""Random runs of several regions: what may fail in them, and how often."""

from random import Random

from bench.regions.world import ALLOWANCE, GRANT, OVERAGE, Clock, Network, World, remembered
from control.regions.terms import slot

AN_HOUR = 3600.0
STEPS = 250


class Faulty(World):
    """Anything may happen at any moment."""

    largest = 1

    def cost(self) -> int:
        return self.random.randint(0, self.largest)

    def step(self) -> None:
        r = self.random
        for region in self.regions:
            if r.random() < (0.02 if region.connected else 0.1):
                region.connected = not region.connected
            if r.random() < (0.01 if region.agent_alive else 0.1):
                region.agent_alive = not region.agent_alive
                region.restart_agent()
            if r.random() < 0.05:
                region.demand = r.choice([0, 0, 1, 5, 20])
            if r.random() < 0.2:
                region.before = [*region.before[-4:], remembered(region.ledger)]
            if r.random() < 0.01 and region.before:
                region.ledger.forget(r.choice(region.before))
                region.fenced = True
            if r.random() < 0.005:
                region.clock.offset += r.choice([-AN_HOUR, -40, -15, -5, 5, 15, 40, AN_HOUR])
        if r.random() < 0.01:
            account = r.choice(list(self.limits))
            self.limits[account] += r.randrange(0, 200)
            self.most[account] = self.limits[account]
        super().step()


def faulty(seed: int) -> Faulty:
    r = Random(seed)  # noqa: S311 - faults, no secrets
    limits = {ALLOWANCE: r.choice([0, 10, 300, 3000])}
    if r.random() < 0.5:
        limits[OVERAGE] = r.choice([0, 20, 500])
    if r.random() < 0.5:
        limits[GRANT] = r.choice([5, 400])
    # Regions that are in different periods all the time share nothing.
    off = r.choice([1, 20, 20, 100, AN_HOUR])
    clocks = [Clock(r.uniform(-off, off), r.uniform(0.98, 1.02)) for _ in range(r.randint(2, 4))]
    network = Network(r, late_seconds=r.choice([0.1, 1, 8]), lost=r.choice([0, 0.1, 0.4]), twice=r.choice([0, 0.3]))
    world = Faulty(
        r, limits, clocks, period_seconds=r.choice([15, 30, 90, 1000]), lease_seconds=r.choice([4, 20]), network=network
    )
    world.largest = r.choice([1, 1, 7, 40])
    return world


class NotReserved(Exception):
    """A region's ledger enforces what its home has not reserved for it."""


def over(world: World) -> int:
    """Units that were charged beyond limits, in the last step.

    Raises NotReserved: sooner or later that would charge too many."""
    charged = sum(max(0, world.drawn(s) - world.most[s.account]) for s in world.touched)
    for s in {s for holder in world.book.holders.values() for s in holder.reserved}:
        if world.book.reserved(s) > world.most[s.account]:
            raise NotReserved(f"{world.true} s: more than there is: {s}")
    for region in world.regions:
        holder, ledger = world.book.holders.get(region.name), region.ledger
        if holder is None or region.fenced or ledger.epoch != holder.epoch:
            continue
        for period in (p for p in ledger.periods if ledger.ends_at > p.start):
            for account, units in ledger.held.items():
                if units > holder.reserved.get(slot(account, period.start), 0):
                    raise NotReserved(f"{world.true} s: {region.name}: {account} in {period}")
    return charged


class Connected(World):
    """Nothing fails. Demand moves between the regions, and is more than the quota."""

    largest = 1
    first_refused_at: int | None = None

    def cost(self) -> int:
        return self.random.randint(1, self.largest)

    def step(self) -> None:
        if self.random.random() < 0.01:
            for region in self.regions:
                region.demand = self.random.choice([0, 1, 5, 20, 60])
        if not any(region.demand for region in self.regions):
            self.regions[0].demand = 20
        super().step()
        if self.first_refused_at is None and any(region.refused for region in self.regions):
            self.first_refused_at = self.sold()

    def sold(self) -> int:
        return sum(units for region in self.regions for units in region.ledger.drawn.values())


def connected(seed: int) -> Connected:
    r = Random(seed)  # noqa: S311 - faults, no secrets
    clocks = [Clock(r.uniform(-AN_HOUR, AN_HOUR), r.uniform(0.9999, 1.0001)) for _ in range(3)]
    limits = {ALLOWANCE: r.choice([1_000, 4_000])}
    world = Connected(r, limits, clocks, period_seconds=10**7, lease_seconds=60, network=Network(r, late_seconds=0.3))
    world.largest = r.choice([1, 1, 5])
    for region in world.regions:
        region.demand = r.choice([0, 1, 5, 20, 60])
    return world


def until_nothing_is_sold(world: Connected) -> None:
    idle, sold = 0, -1
    while idle < 80:
        world.step()
        idle = idle + 1 if world.sold() == sold else 0
        sold = world.sold()


def calm(seed: int, regions: int = 3, lease_seconds: float = 20) -> Connected:
    """Nothing fails, and clocks are as wrong as they may be."""
    r = Random(seed)  # noqa: S311 - faults, no secrets
    clocks = [Clock(r.uniform(-AN_HOUR, AN_HOUR), r.uniform(0.98, 1.02)) for _ in range(regions)]
    world = Connected(r, {ALLOWANCE: 10_000}, clocks, 10**7, lease_seconds, Network(r, late_seconds=0.3))
    for region in world.regions:
        region.demand = 5
    for _ in range(20):
        world.step()
    return world
