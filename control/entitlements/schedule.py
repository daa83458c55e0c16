"""Schedules of periods, as Postgres and the journal hold them."""

from typing import Any

from control.db import Row
from control.moments import moment, rfc3339
from quota.periods import Rule, Schedule, Unit


def schedule_of(row: Row) -> Schedule:
    """From the `period_…` columns of an entitlement."""
    starts_at = row["period_starts_at"]
    return Schedule(
        int(row["period_anchor"].timestamp()),
        Rule(row["period_every"], Unit(row["period_unit"]), tuple(row["period_bounds"])),
        None if starts_at is None else int(starts_at.timestamp()),
    )


def columns(schedule: Schedule) -> dict[str, Any]:
    """For `insert_entitlement`."""
    return {
        "period_anchor": moment(schedule.anchor),
        "period_every": schedule.rule.every,
        "period_unit": schedule.rule.unit,
        "period_bounds": list(schedule.rule.bounds),
        "period_starts_at": None if schedule.starts_at is None else moment(schedule.starts_at),
    }


def shown(schedule: Schedule) -> dict[str, Any]:
    """For the journal; what is as usual is left out."""
    content: dict[str, Any] = {"period_anchor": rfc3339(schedule.anchor)}
    if schedule.rule.bounds:
        content["period"] = {"bounds": [rfc3339(bound) for bound in schedule.rule.bounds]}
    elif schedule.rule != Rule():
        content["period"] = {"every": schedule.rule.every, "unit": schedule.rule.unit}
    if schedule.starts_at is not None:
        content["first_period_from"] = rfc3339(schedule.starts_at)
    return content
