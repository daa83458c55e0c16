"""config/observability.yaml names what exists, and what is kept of it in docs/ is what would be made now."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from common.settings_file import load
from quotagate.main import app
from quotagate.observability import expressions, rules
from quotagate.observability.catalogue import BY_NAME, PLANES
from quotagate.observability.rendering import rendered
from quotagate.observability.watched import Watched

ROOT = Path(__file__).parent.parent.parent
PACKAGED = ROOT / "config" / "observability.yaml"


@pytest.fixture
def watched() -> Watched:
    return load(None, "observability.yaml", Watched)


def checked(*options: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["observability", "check", *options])
    return result.exit_code, result.output


def test_the_kept_rules_dashboards_and_table_are_what_would_be_made_now() -> None:
    exit_code, output = checked("--dir", str(ROOT / "docs/observability"), "--table", str(ROOT / "docs/metrics.md"))
    assert (exit_code, output) == (0, "all names exist, 7 files are up to date\n")


def test_a_file_that_was_changed_by_hand_is_named(tmp_path: Path) -> None:
    made = CliRunner().invoke(app, ["observability", "render", "--dir", str(tmp_path)])
    assert made.exit_code == 0, made.output
    with (tmp_path / "rules.yaml").open("a") as file:
        file.write("# mine\n")
    exit_code, output = checked("--dir", str(tmp_path))
    assert exit_code == 1
    assert "rules.yaml" in output


@pytest.mark.parametrize(
    ("expr", "said"),
    [
        ("rate(quotagate_decision_total[5m])", "no metric is called quotagate_decision_total (did you mean"),
        ("quotagate_take_seconds", "quotagate_take_seconds is a histogram"),
        ('quotagate_workers{route="/"}', "quotagate_workers has no label route"),
        ('quotagate_decisions_total{verdict=~"admitted|refuzed"}', "there is no verdict refuzed"),
        ('quotagate_take_seconds_bucket{le="0.05"}', "quotagate_take_seconds has no bucket 0.05"),
        ("sum by (meter) (quotagate_decisions_total)", "no metric of the expression has the label meter"),
        ("quotagate:slo_burn:rate7h > 1", "no metric is called quotagate:slo_burn:rate7h"),
    ],
)
def test_a_name_that_does_not_exist_is_refused_where_it_is(expr: str, said: str, tmp_path: Path) -> None:
    content: dict[str, Any] = yaml.safe_load(PACKAGED.read_text())
    content["alerts"] = {"Made": {"expr": expr, "severity": "page", "summary": "x"}}
    (tmp_path / "o.yaml").write_text(json.dumps(content))
    exit_code, output = checked("--file", str(tmp_path / "o.yaml"))
    assert exit_code == 2
    assert f"alerts.Made: {said}" in output


@pytest.mark.parametrize(
    ("objective", "said"),
    [
        ({"metric": "quotagate_taken_seconds"}, "no metric is called quotagate_taken_seconds"),
        ({"bound_seconds": 0.0001}, "has no bucket up to 0.0001 s"),
        ({"labels": {"group": "ingest"}}, "has no label group"),
        ({"metric": "quotagate_workers"}, "quotagate_workers is a gauge"),
        ({"objective": 1.0}, "watched"),
    ],
)
def test_an_objective_that_cannot_be_watched_is_refused(objective: dict[str, Any], said: str, tmp_path: Path) -> None:
    content: dict[str, Any] = yaml.safe_load(PACKAGED.read_text())
    content["slos"]["redis"] |= objective
    (tmp_path / "o.yaml").write_text(json.dumps(content))
    exit_code, output = checked("--file", str(tmp_path / "o.yaml"))
    assert exit_code == 2
    assert said in output


def test_the_names_of_metrics_follow_the_conventions() -> None:
    """https://prometheus.io/docs/practices/naming/"""
    for family in BY_NAME.values():
        assert (family.kind == "counter") == family.name.endswith("_total"), family.name
        assert family.kind != "histogram" or family.name.endswith("_seconds"), family.name
        assert not any(word in family.name.split("_") for word in ("ms", "us", "minutes", "kib", "mib")), family.name
        assert family.about.endswith("."), family.name


def test_each_metric_of_a_plane_is_on_a_dashboard(watched: Watched) -> None:
    """But for those that only say what belongs to another."""
    shown = "\n".join(content for name, content in rendered(watched).items() if name.endswith(".json"))
    missing = [name for name in BY_NAME if name not in shown]
    assert missing == ["quotagate_control_messages_oldest_timestamp_seconds", "quotagate_control_redis_evicts"]


def test_each_slo_has_a_burn_rate_over_each_window(watched: Watched) -> None:
    made = rules.rules_of(watched)["groups"][0]["rules"]
    ratios = {(rule["labels"]["slo"], rule["record"]) for rule in made if rule["record"].startswith(rules.RATIO)}
    assert len(ratios) == len(watched.slos) * 7


def test_what_is_scraped_of_an_idle_gateway_and_control_plane_is_declared() -> None:
    """Names are unique over both planes, so that a rule means one of them."""
    names = [family.name for families in PLANES.values() for family in families]
    assert len(names) == len(set(names))
    assert {"admitted", "ledger_unavailable", "exhausted"} <= expressions.VERDICTS
