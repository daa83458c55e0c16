"""Schedules of periods, as Postgres and the journal hold them."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Protocol, TypedDict

from control.moments import moment, rfc3339
from quota.periods import Rule, Schedule, Unit


class PeriodColumns(Protocol):
    """The `period_…` columns of an entitlement."""

    @property
    def period_anchor(self) -> datetime: ...
    @property
    def period_every(self) -> int: ...
    @property
    def period_unit(self) -> str: ...
    @property
    def period_bounds(self) -> Sequence[int]: ...
    @property
    def period_starts_at(self) -> datetime | None: ...


class JoinedPeriodColumns(Protocol):
    """The same in a row that may be joined with no entitlement: all are NULL then."""

    @property
    def period_anchor(self) -> datetime | None: ...
    @property
    def period_every(self) -> int | None: ...
    @property
    def period_unit(self) -> str | None: ...
    @property
    def period_bounds(self) -> Sequence[int] | None: ...
    @property
    def period_starts_at(self) -> datetime | None: ...


class Columns(TypedDict):
    period_anchor: datetime
    period_every: int
    period_unit: str
    period_bounds: list[int]
    period_starts_at: datetime | None


def schedule_of(row: PeriodColumns) -> Schedule:
    return _schedule(row.period_anchor, row.period_every, row.period_unit, row.period_bounds, row.period_starts_at)


def joined_schedule(row: JoinedPeriodColumns) -> Schedule | None:
    """None where the row is joined with no entitlement."""
    anchor, every, unit, bounds = row.period_anchor, row.period_every, row.period_unit, row.period_bounds
    if anchor is None or every is None or unit is None or bounds is None:
        return None
    return _schedule(anchor, every, unit, bounds, row.period_starts_at)


def _schedule(anchor: datetime, every: int, unit: str, bounds: Sequence[int], starts_at: datetime | None) -> Schedule:
    return Schedule(
        int(anchor.timestamp()),
        Rule(every, Unit(unit), tuple(bounds)),
        None if starts_at is None else int(starts_at.timestamp()),
    )


def columns(schedule: Schedule) -> Columns:
    """For `insert_entitlement`."""
    return {
        "period_anchor": moment(schedule.anchor),
        "period_every": schedule.rule.every,
        "period_unit": schedule.rule.unit,
        "period_bounds": list(schedule.rule.bounds),
        "period_starts_at": None if schedule.starts_at is None else moment(schedule.starts_at),
    }


def journaled_schedule(schedule: Schedule) -> dict[str, Any]:
    """For the journal; what is as usual is left out."""
    content: dict[str, Any] = {"period_anchor": rfc3339(schedule.anchor)}
    if schedule.rule.bounds:
        content["period"] = {"bounds": [rfc3339(bound) for bound in schedule.rule.bounds]}
    elif schedule.rule != Rule():
        content["period"] = {"every": schedule.rule.every, "unit": schedule.rule.unit}
    if schedule.starts_at is not None:
        content["first_period_from"] = rfc3339(schedule.starts_at)
    return content
