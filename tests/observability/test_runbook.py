"""docs/runbook.md has a section for each alert, which says how to act and names the test that fires it."""

import ast
import re
from pathlib import Path

from common.settings_file import load
from quotagate.observability.rules import BURN_ALERT
from quotagate.observability.watched import Watched
from tests.observability.promtool import ROOT, rules
from tests.observability.report import alerts, named

RUNBOOK = (ROOT / "docs" / "runbook.md").read_text()
ALERTS = {rule["alert"]: rule for rule in rules() if "alert" in rule}
PROOF = re.compile(r"`observability/test_alerts\.py::(\w+)`")


def sections() -> dict[str, str]:
    parts = re.split(r"^## (\w+)$", RUNBOOK, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def words_by_test() -> dict[str, set[object]]:
    """The texts that each test of alerts has."""
    tree = ast.parse((Path(__file__).parent / "test_alerts.py").read_text())
    tests = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")]
    return {
        test.name: {node.value for node in ast.walk(test) if isinstance(node, ast.Constant)}
        | {BURN_ALERT for node in ast.walk(test) if isinstance(node, ast.Name) and node.id == "burns"}
        for test in tests
    }


def test_each_alert_has_a_section_and_each_section_an_alert() -> None:
    assert list(sections()) == list(ALERTS)


def test_the_budget_of_each_objective_is_burnt_by_a_test() -> None:
    tree = ast.parse((Path(__file__).parent / "test_alerts.py").read_text())
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and ast.unparse(node.func) == "burns"]
    burnt = {ast.literal_eval(call.args[0]) for call in calls}
    assert burnt == set(load(None, "observability.yaml", Watched).slos)


def test_each_section_says_how_urgent_it_is_and_links_what_is_there() -> None:
    for name, text in sections().items():
        severities = {rule["labels"]["severity"] for rule in rules() if rule.get("alert") == name}
        assert all(f"**{severity}" in text for severity in severities), name
        assert set(re.findall(r"\(#(\w+)\)", text)) <= {alert.lower() for alert in ALERTS}, name


def test_each_alert_is_fired_by_the_tests_that_its_section_names() -> None:
    tests = words_by_test()
    for name, text in sections().items():
        proofs = PROOF.findall(text)
        assert proofs, name
        assert [proof for proof in proofs if name not in tests.get(proof, set())] == [], name


def test_the_report_has_each_alert_as_fired_by_its_cause() -> None:
    report = (ROOT / "docs" / "observability" / "proof.md").read_text()
    for each in alerts():
        assert f"| {named(each)} | yes |" in report, (
            "run `python -m tests.observability.report docs/observability/proof.md`"
        )
