"""What the benchmark of regions judges."""

import pytest

from bench.regions import __main__ as bench
from bench.regions.__main__ import Failing, Whole, goals, tables
from bench.regions.runs import NotReserved
from bench.regions.world import World


def missed(failing: Failing, whole: Whole) -> list[str]:
    return [goal.about for goal in goals(failing, whole) if not goal.met]


def test_a_run_in_which_nothing_is_given_twice_misses_no_goal() -> None:
    failing, whole = Failing(), Whole()
    failing.add(0)
    whole.add(0)
    assert missed(failing, whole) == []
    assert failing.charged > 0
    assert "| 1 " in tables(failing, whole)[0]


def test_a_unit_above_a_limit_and_a_quota_that_is_not_sold_are_missed_goals() -> None:
    assert missed(Failing(over=1), Whole([99.4], [90.0], [1.0])) == [
        "units charged beyond limits in 0 runs",
        "sold at exhaustion, the worst run",
    ]


def test_a_ledger_that_enforces_more_than_its_home_reserved_is_a_missed_goal(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: World) -> int:
        raise NotReserved("in this test")

    monkeypatch.setattr(bench, "over", broken)
    failing = Failing()
    failing.add(7)
    assert failing.not_reserved == ["run 7: in this test"]
    assert missed(failing, Whole()) == ["runs that enforced what was not reserved"]
