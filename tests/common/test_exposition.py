from prometheus_client.parser import text_string_to_metric_families

from common.exposition import Family, exposition
from common.histogram import Histogram


def test_the_text_has_each_name_kind_label_and_value_as_it_was_given() -> None:
    decisions = Family("quotagate_decisions_total", "counter", "Decisions.", ("route",))
    seconds = Family("quotagate_take_seconds", "histogram", "From here to there.", ("route",))
    text = exposition(
        [
            decisions.of({('/"a\\',): 12_345_678_901}),
            Family("quotagate_workers", "gauge", "Workers that run.").one(0),
            Family("quotagate_empty", "gauge", "Of nothing.").of({}),
            seconds.bucketed({("/",): ([("0.1", 2), ("+Inf", 3)], 1.5)}),
        ]
    )
    families = {family.name: family for family in text_string_to_metric_families(text)}
    assert {name: (family.type, family.documentation) for name, family in families.items()} == {
        "quotagate_decisions": ("counter", "Decisions."),
        "quotagate_workers": ("gauge", "Workers that run."),
        "quotagate_empty": ("gauge", "Of nothing."),
        "quotagate_take_seconds": ("histogram", "From here to there."),
    }
    samples = [(each.name, each.labels, each.value) for family in families.values() for each in family.samples]
    assert samples == [
        ("quotagate_decisions_total", {"route": '/"a\\'}, 12_345_678_901),
        ("quotagate_workers", {}, 0),
        ("quotagate_take_seconds_bucket", {"route": "/", "le": "0.1"}, 2),
        ("quotagate_take_seconds_bucket", {"route": "/", "le": "+Inf"}, 3),
        ("quotagate_take_seconds_sum", {"route": "/"}, 1.5),
        ("quotagate_take_seconds_count", {"route": "/"}, 3),
    ]
    assert "# TYPE quotagate_decisions_total counter\n" in text


def test_a_duration_is_counted_at_its_bound_and_at_each_above() -> None:
    durations = Histogram(bounds=(0.05, 1.0))
    for seconds in (-1.0, 0.05, 0.06, 7.0):
        durations.add(seconds)
    assert durations.buckets() == [("0.05", 2), ("1", 3), ("+Inf", 4)]
    assert durations.seconds == 0.05 + 0.06 + 7.0
