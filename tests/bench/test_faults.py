"""What the benchmark of faults judges, and shows."""

from bench.faults.__main__ import Level, bars, goals
from bench.faults.striking import Outage
from bench.soak.audit import Findings
from bench.soak.traffic import Books

CLEAN = Findings(0, 0, 0, 0, 0)


def level(*outages: Outage, found: Findings = CLEAN, wrong: list[str] | None = None) -> Level:
    return Level(found, Books(), {"primary killed": list(outages)}, None, wrong or [])


def missed(**levels: Level) -> list[str]:
    return [goal.about for goal in goals(levels) if not goal.met]


def test_a_failover_that_takes_too_long_is_missed_from_the_fault_and_from_the_failover() -> None:
    assert missed(memory=level(Outage(2.9, 2.0))) == []
    assert missed(memory=level(Outage(3.5, 2.0))) == ["from the fault to admitting again, p95"]
    both = ["from the fault to admitting again, p95", "from the failover to admitting again, p95"]
    assert missed(memory=level(Outage(5.0, 4.0))) == both


def test_a_fault_without_a_failover_is_not_judged_by_its_time() -> None:
    assert missed(memory=level(Outage(9.0, None))) == []


def test_what_is_lost_at_one_level_and_a_fault_that_is_not_over_are_missed_goals() -> None:
    lost = level(found=Findings(1, 0, 0, 0, 0))
    assert missed(memory=level(), aof=lost) == ["aof: lost"]
    assert missed(memory=level(wrong=["memory: primary killed: was not over in time"])) == [
        "faults that were not over in time"
    ]


def test_the_chart_has_the_levels_that_had_a_failover() -> None:
    since_fault, since_failover = bars({"memory": level(Outage(2.0, 1.0)), "aof": level(Outage(9.0, None))})
    assert (since_fault.values, since_failover.values) == ({"memory": 2.0}, {"memory": 1.0})
    assert bars({"memory": level()}) == []
