"""Usage over time as charts have it. Pure."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from control.api.usage import MeterUsageView, UsageView
from control.usage.buckets import Size

RANKED_MAX: Final = 20
LABELS: Final[dict[Size, str]] = {"hour": "%d %b %H:00", "day": "%d %b", "month": "%b %Y"}
NOBODY: Final = {"key": "Without a key", "user": "Without a user"}


@dataclass(frozen=True, slots=True)
class Chart:
    meter: str
    units: int
    overage: int
    points: Sequence[tuple[str, dict[str, float]]]


@dataclass(frozen=True, slots=True)
class Ranking:
    meter: str
    by: str
    rows: Sequence[tuple[str, int, None]]
    """Whom, how many units, and no link: as `chart.bars` takes them."""
    more: int
    """How many there are beside those."""


def charted(usage: UsageView) -> list[Chart]:
    """A chart for each meter, with a column for each hour, day or month, whether something was used in it or not."""
    starts = list(_starts(usage.since, usage.until, usage.bucket))
    return [Chart(m.meter, m.units, m.overage, _points(m, starts, usage.bucket)) for m in usage.meters]


def ranked(usage: UsageView) -> list[Ranking]:
    """Keys or users by what they used, for each meter."""
    if usage.by is None:
        return []
    units: defaultdict[str, dict[str, int]] = defaultdict(dict)
    for principal in usage.principals or ():
        for meter in principal.meters:
            units[meter.meter][principal.principal or NOBODY[usage.by]] = meter.units
    rankings = []
    for name, used in sorted(units.items()):
        rows = sorted(used.items(), key=lambda row: -row[1])
        shown = [(principal_id, value, None) for principal_id, value in rows[:RANKED_MAX]]
        rankings.append(Ranking(name, usage.by, shown, max(0, len(rows) - RANKED_MAX)))
    return rankings


def _points(meter: MeterUsageView, starts: Sequence[datetime], size: Size) -> list[tuple[str, dict[str, float]]]:
    buckets = {bucket.start: bucket for bucket in meter.buckets}
    points = []
    for start in starts:
        bucket = buckets.get(start)
        overage = bucket.overage if bucket else 0
        within = bucket.units - overage if bucket else 0
        # Two series only where something is sold: a chart of one has no legend.
        values: dict[str, float] = {"Included": within}
        if meter.overage:
            values["Billed beyond"] = overage
        points.append((start.strftime(LABELS[size]), values))
    return points


def _starts(since: datetime, until: datetime, size: Size) -> list[datetime]:
    at = since.replace(minute=0, second=0, microsecond=0)
    at = at if size == "hour" else at.replace(hour=0)
    at = at.replace(day=1) if size == "month" else at
    starts = []
    while at < until:
        starts.append(at)
        if size == "month":
            at = (at.replace(day=1) + timedelta(days=32)).replace(day=1)
        else:
            at += timedelta(days=1) if size == "day" else timedelta(hours=1)
    return starts
