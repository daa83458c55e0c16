"""The rules, evaluated by Prometheus' own tool on what was scraped."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import yaml

from quotagate.observability.expressions import NAME
from quotagate.observability.rules import BURN_ALERT
from tests.observability.samples import CLEAN_MINUTES, Scrape, Series, series_of, written

ROOT: Final = Path(__file__).parent.parent.parent
RULES: Final = ROOT / "docs" / "observability" / "rules.yaml"
PROMTOOL: Final = shutil.which("promtool")

Fires = str | tuple[str, str, str]
"""An alert; of the error budgets': its name, the objective and the severity."""


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def firing(
    directory: Path, clean: Sequence[Scrape], cause: Sequence[Scrape], expected: Iterable[Fires], minutes: int
) -> str:
    """What promtool finds wrong: an alert that fires in the clean hour, or an expected one that does not while the
    cause lasts. Nothing where all is as it should be."""
    fired = ['max_over_time(ALERTS{alertstate="firing"}[59m])']
    tests: list[dict[str, Any]] = [{"expr": fired[0], "eval_time": f"{CLEAN_MINUTES - 1}m", "exp_samples": []}]
    for each in expected:
        query = f'count(max_over_time(ALERTS{{alertstate="firing",{_matchers(each)}}}[{minutes}m])) > bool 0'
        tests.append(
            {
                "expr": query,
                "eval_time": f"{CLEAN_MINUTES + minutes - 1}m",
                "exp_samples": [{"labels": "{}", "value": 1}],
            }
        )
    wanted = {name for rule in rules() for name in (*NAME.findall(rule["expr"]), "up")}
    series = {key: values for key, values in series_of(clean, cause, minutes).items() if key[0] in wanted}
    content = {
        "rule_files": [str(RULES)],
        "evaluation_interval": "1m" if minutes <= CLEAN_MINUTES else "4m",  # over hours, that is five seconds less
        "tests": [
            {
                "interval": "1m",
                "input_series": [{"series": _named(key), "values": written(values)} for key, values in series.items()],
                "promql_expr_test": tests,
            }
        ],
    }
    file = directory / "alerts.test.yaml"
    file.write_text(json.dumps(content))  # which is YAML, too, and written in a moment
    assert PROMTOOL is not None
    done = subprocess.run(
        [PROMTOOL, "test", "rules", str(file)], capture_output=True, text=True, timeout=120, check=False
    )
    return "" if done.returncode == 0 else re.sub(r"\n\s*\n", "\n", done.stdout + done.stderr)


def _matchers(each: Fires) -> str:
    if isinstance(each, str):
        return f'alertname="{each}"'
    name, slo, severity = each
    assert name == BURN_ALERT
    return f'alertname="{name}",slo="{slo}",severity="{severity}"'


def _named(series: Series) -> str:
    name, labels = series
    inner = ",".join(f'{label}="{_escaped(value)}"' for label, value in labels)
    return f"{name}{{{inner}}}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"')
