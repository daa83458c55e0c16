"""What the benchmark of faults judges, and shows."""

import json

from bench.faults.__main__ import bars, goals
from bench.faults.levels import Level, merged
from bench.faults.striking import Outage
from bench.soak.audit import Findings

CLEAN = Findings(0, 0, 0, 0, 0)


def level(*outages: Outage, found: Findings = CLEAN, wrong: list[str] | None = None) -> Level:
    return Level(found, 10, 1, {"primary killed": list(outages)}, None, wrong or [])


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
    since_fault, since_failover, *_ = bars({"memory": level(Outage(2.0, 1.0)), "aof": level(Outage(9.0, None))})
    assert (since_fault.values, since_failover.values) == ({"memory": 2.0}, {"memory": 1.0})
    assert bars({"memory": level()}) == []


def test_the_chart_has_each_fault_over_all_levels_by_its_median_and_its_p95() -> None:
    levels = {"memory": level(Outage(2.0, 1.0), Outage(2.5, 1.2)), "replica": level(Outage(3.0, 1.4))}
    of_faults = [each for each in bars(levels) if each.title.endswith("by fault")]
    assert [each.title.split(",")[1].strip() for each in of_faults] == ["p50", "p95", "p50", "p95"]
    assert of_faults[0].values == {"primary killed": 2.5}


def test_several_runs_are_put_together_as_if_they_were_one() -> None:
    lost = level(Outage(4.0, 3.0), found=Findings(1, 0, 2, 0, 0), wrong=["it hung"])
    runs = [json.loads(json.dumps({"levels": {"replica": each.raw()}})) for each in (level(Outage(2.0, None)), lost)]
    found = merged(runs)["replica"]
    assert (found.found, found.admitted, found.failed, found.wrong) == (Findings(1, 0, 2, 0, 0), 20, 2, ["it hung"])
    assert found.all_outages == [Outage(2.0, None), Outage(4.0, 3.0)]
