from prometheus_client.parser import text_string_to_metric_families

from common.exposition import add_buckets, exposition, histogram, metric


def test_the_text_has_each_name_kind_label_and_value_as_it_was_given() -> None:
    seconds = histogram("quotagate_take_seconds", "From here to there.")
    add_buckets(seconds, {"route": "/"}, [("0.1", 2), ("+Inf", 3)], 1.5)
    text = exposition(
        [
            metric("quotagate_decisions_total", "counter", "Decisions.", [({"route": '/"a\\'}, 12_345_678_901)]),
            metric("quotagate_workers", "gauge", "Workers that run.", [({}, 0)]),
            metric("quotagate_empty", "gauge", "Of nothing.", []),
            seconds,
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
