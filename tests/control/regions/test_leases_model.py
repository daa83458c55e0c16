"""The protocol of leases between regions and their home, in random runs, and what it costs when nothing fails.

`python -m bench.regions` has a thousand runs.
"""

from bench.regions.runs import AN_HOUR, STEPS, calm, connected, faulty, over, until_nothing_is_sold
from bench.regions.world import ALLOWANCE

RUNS = 60
CONNECTED_RUNS = 20


def test_no_unit_is_given_twice_whatever_fails() -> None:
    sold = refused = 0
    for seed in range(RUNS):
        world = faulty(seed)
        for _ in range(STEPS):
            world.step()
            assert over(world) == 0, seed
        sold += sum(region.sold for region in world.regions)
        refused += sum(region.refused for region in world.regions)
    assert sold > 100 * RUNS < refused  # the runs are about something


def test_all_but_half_a_percent_is_sold_at_exhaustion_when_connected() -> None:
    for seed in range(CONNECTED_RUNS):
        world = connected(seed)
        until_nothing_is_sold(world)
        assert world.sold() >= world.limits[ALLOWANCE] * 0.995, seed


def test_a_region_that_is_cut_off_goes_on_for_a_lease_whatever_its_clock_says() -> None:
    for seed in range(20):
        world = calm(seed)
        cut, *_ = world.regions
        cut.connected, cut_at = False, world.true
        while cut.ledger.period(cut.clock(world.true)) is not None:
            world.step()
        assert world.true - cut_at <= world.lease_seconds * 1.03 + 1
        cut.clock.offset -= AN_HOUR
        assert cut.ledger.period(cut.clock(world.true)) is None


def test_a_lower_limit_is_in_force_everywhere_when_the_last_lease_from_before_has_ended() -> None:
    for seed in range(20):
        world = calm(seed)
        cut, *_ = world.regions
        cut.connected = False
        world.limits[ALLOWANCE], changed_at = world.sold() + 100, world.true
        while world.true < changed_at + world.lease_seconds * 1.03 + 1:
            world.step()
        sold = world.sold()
        cut.connected = True
        until_nothing_is_sold(world)
        assert world.sold() <= max(world.limits[ALLOWANCE], sold)


def test_a_lower_limit_is_exceeded_by_what_a_region_that_is_cut_off_holds_at_most() -> None:
    for seed in range(20):
        world = calm(seed)
        cut, *_ = world.regions
        cut.connected = False
        left = sum(cut.ledger.left(ALLOWANCE, p) for p in cut.ledger.periods[:1])
        world.limits[ALLOWANCE] = world.sold() + 100
        for _ in range(8):
            world.step()
        until_nothing_is_sold(world)
        assert world.sold() <= world.limits[ALLOWANCE] + left
