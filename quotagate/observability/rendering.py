"""The files that are made of `config/observability.yaml`, and what is wrong with it. Pure."""

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

import yaml

from quotagate.observability import dashboards, examples, expressions, rules
from quotagate.observability.catalogue import BY_NAME
from quotagate.observability.watched import Objective, Watched

MADE: Final = "# Made of config/observability.yaml by `quotagate observability render`.\n"


def rendered(watched: Watched) -> Mapping[str, str]:
    """Contents by file name. Raises NoBucket."""
    boards = {
        f"{uid}.json": json.dumps(dashboards.dashboard_of(uid, board), indent=2) + "\n"
        for uid, board in watched.dashboards.items()
    }
    return {
        "rules.yaml": _yaml(rules.rules_of(watched)),
        "prometheus.yaml": _yaml(examples.prometheus_of(watched)),
        "alertmanager.yaml": _yaml(examples.alertmanager_of()),
        **boards,
    }


def faults(watched: Watched) -> Iterator[str]:
    """What it names that does not exist, with the place."""
    made = rules.recorded(watched)
    for name, objective in watched.slos.items():
        yield from (f"slos.{name}: {fault}" for fault in _objective_faults(objective))
    for name, alert in watched.alerts.items():
        yield from (f"alerts.{name}: {fault}" for fault in expressions.faults(alert.expr, made))
    for uid, board in watched.dashboards.items():
        for panel in (panel for row in board.rows.values() for panel in row):
            where = f"dashboards.{uid}: {panel.title}"
            yield from (f"{where}: {fault}" for fault in expressions.faults(panel.expr, made))


def _objective_faults(objective: Objective) -> Iterator[str]:
    family = BY_NAME.get(objective.metric)
    if family is None:
        yield f"no metric is called {objective.metric}"
        return
    if (family.kind == "histogram") != (objective.bad is None):
        yield f"{family.name} is a {family.kind}: " + ("bad" if objective.bad else "bound_seconds") + " cannot be used"
        return
    matchers = {**objective.labels, **(objective.bad or {})}
    selected = ",".join(f'{label}=~"{value}"' for label, value in matchers.items())
    yield from expressions.faults(f"{family.samples[-1]}{{{selected}}}")
    if objective.bad is None:
        try:
            rules.error_ratio(objective, "5m")
        except rules.NoBucket as e:
            yield str(e)


def _yaml(content: dict[str, Any]) -> str:
    return MADE + yaml.safe_dump(content, sort_keys=False, width=120, allow_unicode=True)
