"""Which alerts fired by their cause: python -m tests.observability.report FILE.md

It runs the tests of alerts, which note what they have proved, and compares that with all that the rules have.
"""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from quotagate.observability.rules import BURN_ALERT
from tests.observability.promtool import Fires, rules
from tests.observability.proving import REPORT, proved_in

TESTS: Final = "tests/observability/test_alerts.py"
PROMTOOL: Final = ["promtool", "--version"]


def main() -> int:
    target = Path(sys.argv[1])
    with TemporaryDirectory() as directory:
        notes = Path(directory) / "proved.jsonl"
        run = [sys.executable, "-m", "pytest", TESTS]
        passed = subprocess.run(run, env={**os.environ, REPORT: str(notes)}, check=False).returncode == 0
        proved = proved_in(notes)
    of_rules = alerts()
    missing = [each for each in of_rules if each not in proved]
    tool = subprocess.run(PROMTOOL, capture_output=True, text=True, check=True).stdout.splitlines()[0]
    target.write_text(rendered(of_rules, proved, tool), encoding="utf-8")
    sys.stdout.write(f"{target}: {len(of_rules) - len(missing)} of {len(of_rules)}\n")
    return 0 if passed and not missing else 1


def alerts() -> list[Fires]:
    """Of the rules, in their order; of the error budgets' each objective and severity."""
    found: dict[Fires, None] = {}
    for rule in rules():
        if (name := rule.get("alert")) is None:
            continue
        if name == BURN_ALERT:
            found |= {(name, slo, rule["labels"]["severity"]): None for slo in _objectives()}
        else:
            found[name] = None
    return list(found)


def _objectives() -> list[str]:
    return list(dict.fromkeys(rule["labels"]["slo"] for rule in rules() if "record" in rule))


def rendered(of_rules: Sequence[Fires], proved: Mapping[Fires, str], tool: str) -> str:
    fired = sum(each in proved for each in of_rules)
    lines = [
        "# Alerts that fired by their cause",
        "",
        f"**{fired} of {len(of_rules)}** fired in a real installation while their cause, made on purpose, lasted,",
        "and all were silent in the clean hour before it. Of the budgets each objective and severity counts.",
        f"Evaluated by {tool}; made by `python -m tests.observability.report docs/observability/proof.md`.",
        "",
        "| alert | fired | cause, the name of its test |",
        "|---|---|---|",
    ]
    for each in of_rules:
        test = proved.get(each)
        told = "**no** | |" if test is None else f"yes | {test.replace('_', ' ')} |"
        lines.append(f"| {named(each)} | {told}")
    return "\n".join(lines) + "\n"


def named(each: Fires) -> str:
    return f"`{each}`" if isinstance(each, str) else f"`{each[0]}`: {each[1]}, {each[2]}"


if __name__ == "__main__":
    sys.exit(main())
