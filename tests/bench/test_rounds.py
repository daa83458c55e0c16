"""Contestants are compared within a round, and what was admitted is added up."""

from bench.rounds import Case, Rounds, Sample, ratio


def sample(requests: int, cpu_us: float = 1.0) -> Sample:
    return Sample(cpu_us, requests, 1.0, 1, 1)


def test_a_ratio_is_the_median_of_those_of_the_rounds_not_the_ratio_of_medians() -> None:
    goal = ratio("CPU", 1.0, [10.0, 200.0, 30.0], [20.0, 100.0, 10.0])
    assert goal.measured == 2.0
    assert goal.spread == (0.5, 3.0)
    assert not goal.met


def test_a_goal_that_is_a_lower_bound_is_met_above_it() -> None:
    assert ratio("scaling", 1.8, [3.8], [2.0], at_least=True).met
    assert not ratio("scaling", 1.8, [3.4], [2.0], at_least=True).met


def test_only_what_a_contestant_with_a_quota_has_admitted_counts_as_charged() -> None:
    admitted, refused = Case("admitted", "", ("nginx", "gateway"), 1), Case("refused", "", ("gateway",), 1, status=429)
    rounds = Rounds(
        proxies={},
        requests={},
        samples={
            "admitted": {"nginx": [sample(1_000)], "gateway": [sample(10), sample(20)]},
            "refused": {"gateway": [sample(500)]},
        },
    )
    assert rounds.charged([admitted, refused], unlimited=("nginx",)) == 30
