"""Prometheus' rules: error ratios and burn rates of the objectives, and the alerts. Pure."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from common.exposition import Family
from quotagate.observability.catalogue import BY_NAME
from quotagate.observability.watched import Alert, BurnRate, Objective, Watched

RATIO: Final = "quotagate:slo_error_ratio:rate"
BURN: Final = "quotagate:slo_burn:rate"
BURN_ALERT: Final = "ErrorBudgetBurns"
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


class NoBucket(Exception):
    """A bound is below all buckets of its metric."""


def recorded(watched: Watched) -> list[str]:
    """The names of the series that rules make."""
    return [f"{name}{window}" for window in _windows(watched) for name in (RATIO, BURN)]


def rules_of(watched: Watched) -> dict[str, Any]:
    """Raises NoBucket."""
    return {
        "groups": [
            {"name": "quotagate-slos", "rules": list(_ratios(watched))},
            {"name": "quotagate-burn-rates", "rules": list(_burn_alerts(watched))},
            {"name": "quotagate", "rules": [_alert(watched, name, each) for name, each in watched.alerts.items()]},
        ]
    }


def _windows(watched: Watched) -> list[str]:
    """The shortest first."""
    windows = {window for rate in watched.burn_rates for window in (rate.long, rate.short)}
    return sorted(windows, key=lambda window: int(window[:-1]) * _SECONDS[window[-1]])


def _ratios(watched: Watched) -> Iterator[dict[str, Any]]:
    for slo, objective in watched.slos.items():
        for window in _windows(watched):
            ratio = error_ratio(objective, window)
            yield {"record": f"{RATIO}{window}", "labels": {"slo": slo}, "expr": ratio}
            budget = f"{1 - objective.share:.6g}"
            burn = f'{RATIO}{window}{{slo="{slo}"}} / {budget}'
            yield {"record": f"{BURN}{window}", "labels": {"slo": slo}, "expr": burn}


def error_ratio(objective: Objective, window: str) -> str:
    """The share of events that are not good, over a time. Nothing where there are none. Raises NoBucket."""
    labels = {label: f'{label}="{value}"' for label, value in objective.labels.items()}
    if objective.bad is not None:
        bad = {label: f'{label}=~"{values}"' for label, values in objective.bad.items()}
        return f"{_rate(objective.metric, {**labels, **bad}, window)} / {_rate(objective.metric, labels, window)}"
    good = {**labels, "le": _le(BY_NAME[objective.metric], objective)}
    within, every = f"{objective.metric}_bucket", f"{objective.metric}_count"
    return f"1 - {_rate(within, good, window)} / {_rate(every, labels, window)}"


def _rate(series: str, matchers: Mapping[str, str], window: str) -> str:
    selected = f"{{{','.join(matchers.values())}}}" if matchers else ""
    return f"sum(rate({series}{selected}[{window}]))"


def _le(family: Family, objective: Objective) -> str:
    """The largest bucket that is not above the bound. Raises NoBucket."""
    below = [bucket for bucket in family.buckets if float(bucket) <= (objective.bound_seconds or 0)]
    if not below:
        raise NoBucket(f"{family.name} has no bucket up to {objective.bound_seconds} s")
    bucket = below[-1]
    # Prometheus 3 writes whole bounds as 5.0 and Prometheus 2 as they came.
    return f'le="{bucket}"' if "." in bucket else f'le=~"{bucket}([.]0)?"'


def _burn_alerts(watched: Watched) -> Iterator[dict[str, Any]]:
    for rate in watched.burn_rates:
        yield {
            "alert": BURN_ALERT,
            "expr": f"{BURN}{rate.long} > {rate.factor:g} and {BURN}{rate.short} > {rate.factor:g}",
            "labels": {"severity": rate.severity, "window": rate.long},
            "annotations": {
                "summary": _burn_summary(rate),
                "runbook_url": _link(watched, BURN_ALERT),
            },
        }


def _burn_summary(rate: BurnRate) -> str:
    burnt = "has burnt {{ $value | humanize }} times as fast as it may"
    return f"The error budget of {{{{ $labels.slo }}}} {burnt} for {rate.long}."


def _alert(watched: Watched, name: str, alert: Alert) -> dict[str, Any]:
    return {
        "alert": name,
        "expr": alert.expr,
        **({} if alert.for_ is None else {"for": alert.for_}),
        "labels": {"severity": alert.severity},
        "annotations": {"summary": alert.summary, "runbook_url": _link(watched, name)},
    }


def _link(watched: Watched, alert: str) -> str:
    """Of the alert's section: an anchor is the heading in lower case."""
    return f"{watched.runbook_url}#{alert.lower()}"
