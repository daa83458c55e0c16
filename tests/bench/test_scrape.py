"""Histograms are read so that a quantile is never said to be smaller than it was."""

from bench.scrape import read

TEXT = """
# TYPE quotagate_take_seconds histogram
quotagate_take_seconds_bucket{le="0.001"} 90
quotagate_take_seconds_bucket{le="0.002"} 96
quotagate_take_seconds_bucket{le="+Inf"} 100
quotagate_take_seconds_sum 1.0
quotagate_take_seconds_count 100
# TYPE quotagate_decisions_total counter
quotagate_decisions_total{route="/",verdict="admitted"} 7
quotagate_decisions_total{route="/a",verdict="admitted"} 3
quotagate_decisions_total{route="/",verdict="exhausted"} 2
"""


def test_a_quantile_is_the_upper_bound_of_its_bucket() -> None:
    scrape = read(TEXT)
    assert scrape.quantile_bound("quotagate_take_seconds", 0.9) == 0.001
    assert scrape.quantile_bound("quotagate_take_seconds", 0.95) == 0.002
    assert scrape.quantile_bound("quotagate_take_seconds", 0.99) == float("inf")
    assert scrape.quantile_bound("quotagate_other_seconds", 0.9) is None


def test_what_was_counted_before_a_run_is_not_of_the_run() -> None:
    before = read(TEXT)
    after = read(TEXT.replace('verdict="admitted"} 7', 'verdict="admitted"} 9'))
    assert after.since(before).by("quotagate_decisions_total", "verdict") == {"admitted": 2}
    assert before.total("quotagate_decisions_total", verdict="admitted") == 10
