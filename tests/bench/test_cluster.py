"""What the benchmark of a Redis Cluster judges, and which slots it moves."""

from bench.cluster import goals
from bench.faults import moving
from bench.faults.cluster import PRIMARIES
from bench.faults.moving import Moved, planned
from bench.restarts.rolling import Step
from bench.soak.audit import Findings
from quota.keys import SHARDS_DEFAULT

CLEAN = Findings(0, 0, 0, 0, 0)


def missed(failed: int = 0, found: Findings = CLEAN) -> list[str]:
    moved = Moved([Step("a move", 0.1, 600, failed)], failed, 0, 5, {"200": 600 - failed}, [0.001, 0.2], found, None)
    return [goal.about for goal in moving.goals(moved) if not goal.met]


def test_a_request_on_a_cluster_may_take_a_tenth_more_of_cpu_and_no_more() -> None:
    (kept,), (broken,) = goals([30.0, 40.0, 30.0], [33.0, 44.0, 99.0]), goals([30.0] * 3, [33.5] * 3)
    assert kept.met
    assert kept.spread == (1.1, 3.3)
    assert not broken.met


def test_a_call_that_fails_while_slots_move_misses_its_goal() -> None:
    assert missed() == []
    assert missed(failed=1) == ["calls that failed while slots moved (budget 200 ms)"]


def test_a_unit_beyond_an_allowance_while_slots_move_misses_its_goal() -> None:
    assert missed(found=Findings(0, 0, 1, 0, 0)) == ["over-admitted"]
    assert missed(found=Findings(1, 0, 0, 0, 1)) == ["lost", "unaccounted"]


def test_each_primary_in_turn_hands_over_half_of_its_slots_and_gets_them_back() -> None:
    moves = planned(2 * PRIMARIES)
    assert [move.source for move in moves[::2]] == [0, 1, 2, 0, 1, 2]
    assert [move.back for move in moves[::2]] == moves[1::2]
    assert all(move.target != move.source for move in moves)
    half = sum(move.shards for move in moves[: 2 * PRIMARIES : 2])
    assert 0 < half < SHARDS_DEFAULT
    assert all(move.shards for move in moves)


def test_the_longest_wait_of_a_call_is_shown() -> None:
    moved = Moved([Step("a move", 0.1, 3, 0)], 0, 0, 5, {"200": 3}, [0.001, 0.002, 0.15], CLEAN, 0.4)
    assert moving.bars(moved).values["longest"] == 150.0
    shown = "\n".join(moving.tables(moved))
    assert "150.0" in shown
    assert "40% of the machine's time was idle" in shown
