"""A promise that is missed fails the gate, and so does one that could not be measured."""

import pytest

from bench.slo.objectives import Measured, Objective, ObjectiveUnreadable, judged, read, shown, verdict
from bench.slo.probes import PROBES

STATED = """
slos:
  quota_check: {about: A decision., objective: 0.95, bound_seconds: 0.05, held_seconds: 0.01, metric: a}
  enforcement: {about: A change., objective: 1.0, bound_seconds: 5, held_seconds: 2}
  availability: {about: Answers., objective: 0.999, measured: false}
"""


def objective(name: str = "quota_check") -> Objective:
    return read(STATED)[name]


def of(seconds: float) -> Measured:
    return judged(objective(), {"a part": [seconds] * 100})


def test_what_only_production_can_watch_is_not_measured() -> None:
    assert list(read(STATED)) == ["quota_check", "enforcement"]
    assert (objective("quota_check").statistic, objective("enforcement").statistic) == ("p95", "longest")


def test_each_objective_of_the_settings_has_a_probe_and_each_probe_an_objective() -> None:
    assert set(read()) == {*PROBES, "redis"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{}", "has no slos as they must be"),
        ("slos: [a]", "has no slos as they must be"),
        ("slos: {a: {about: A., objective: 0.9, held_seconds: 1}}", "slos.a has no bound_seconds"),
        ("slos: {a: {about: A., objective: 95, bound_seconds: 1, held_seconds: 1}}", "slos.a: objective is a share"),
        ("slos: {a: {about: A., objective: 0.9, bound_seconds: 1, held_seconds: 2}}", "held_seconds at most bound"),
    ],
)
def test_objectives_that_mean_nothing_are_refused(text: str, said: str) -> None:
    with pytest.raises(ObjectiveUnreadable) as refused:
        read(text)
    assert said in str(refused.value)


def test_a_bound_is_for_the_slowest_part_by_its_share() -> None:
    slow = [0.001] * 94 + [0.06] * 6
    quick = [0.001] * 95 + [0.06] * 5
    assert judged(objective(), {"quick": quick, "slow": [0.002] * 10}).held
    missed = judged(objective(), {"quick": quick, "slow": slow})
    assert (missed.kept, missed.seconds) == (False, 0.06)


def test_the_longest_counts_where_all_were_promised() -> None:
    assert not judged(objective("enforcement"), {"changes": [0.1] * 999 + [5.1]}).kept


@pytest.mark.parametrize(("seconds", "kept", "held"), [(0.01, True, True), (0.02, True, False), (0.06, False, False)])
def test_a_promise_and_the_tighter_bound_beside_it_are_told_apart(seconds: float, kept: bool, held: bool) -> None:
    result = of(seconds)
    assert (result.kept, result.held) == (kept, held)
    assert (result.record()["kept"], result.record()["held"]) == (kept, held)


def test_what_was_not_measured_is_a_missed_promise() -> None:
    assert not judged(objective(), {"a part": []}).kept
    unmeasured = Measured(objective(), failure="no probe")
    assert not unmeasured.kept
    assert "could not be measured: no probe" in shown([unmeasured])


def test_the_verdict_names_what_was_missed() -> None:
    assert verdict([of(0.001)]) == "All 1 promises are kept, and the tighter bounds that we hold as well."
    assert "a tighter bound that we hold is not: quota_check" in verdict([of(0.001), of(0.02)])
    assert verdict([of(0.06)]) == "MISSED: 1 of 1 promises: quota_check."
