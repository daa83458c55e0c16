"""What the templates of analytics have in common: names of definitions, labels of months, and where figures lead."""

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any, Final
from urllib.parse import quote, urlencode

from starlette.responses import Response

from control.access.permissions import Permission
from control.analytics.periods import next_start
from control.api.analytics_views import CohortRow, MovementRow
from control.api.quota_check import CheckTimeRow
from control.api.unit_economics import UsedRow, UserRow
from control.console.analytics.asked import Asked
from control.console.frame.formats import NOTHING
from control.console.frame.viewer import Viewer

NAMES: Final = {"stripe": "Stripe", "chartmogul": "ChartMogul", "baremetrics": "Baremetrics"}


def shown(viewer: Viewer, template: str, asked: Asked, **values: Any) -> Response:
    return viewer.page(
        template,
        asked=asked,
        names=NAMES,
        currencies=[(each, each.upper()) for each in asked.currencies],
        month_after=month_after,
        opened=opened,
        labels_of=labels_of,
        ends_of=ends_of,
        heads_of=heads_of,
        cohort_lines=cohort_lines,
        ratio=ratio,
        choices_of=choices_of,
        points_of=points_of,
        ranked=ranked,
        days_of=days_of,
        values_of=values_of,
        **values,
    )


def opened(figure: str, definition: str, currency: str, since: date | None = None, until: date | None = None) -> str:
    """The page of the subscriptions behind a figure."""
    query = {"figure": figure, "definition": definition, "currency": currency, "from": since, "to": until}
    return f"/console/analytics/subscriptions?{urlencode({k: v for k, v in query.items() if v is not None})}"


def month_after(start: date) -> date:
    return next_start(start, "month")


def labels_of(months: Sequence[MovementRow]) -> list[str]:
    return [f"{each.start:%b %y}" for each in months]


def ends_of(months: Sequence[MovementRow]) -> list[int]:
    return [each.end_minor for each in months]


def heads_of(ages: int) -> list[str]:
    return ["Paid first", *(f"+{age}" for age in range(ages))]


def cohort_lines(table: Mapping[date, Sequence[CohortRow]], field: str) -> list[tuple[str, list[float | None]]]:
    """As `chart.cohorts` takes them."""
    return [(f"{cohort:%b %Y}", [getattr(row, field) for row in rows]) for cohort, rows in table.items()]


def ratio(number: float | None) -> str:
    return NOTHING if number is None else f"{number:,.1f}"


def choices_of(words: Sequence[str]) -> list[tuple[str, str]]:
    return [(each, each) for each in words]


def points_of(rows: Sequence[UsedRow]) -> list[tuple[str, int]]:
    return [(f"{each.start:%b %y}", each.units) for each in rows]


def ranked(rows: Sequence[UserRow], viewer: Viewer) -> list[tuple[str, int, str | None]]:
    """As `chart.bars` takes them."""
    links = viewer.has("/console/organizations/{org}") and viewer.can(Permission.ORGANIZATIONS_READ)
    return [(each.name, each.units, f"/console/organizations/{quote(each.org)}" if links else None) for each in rows]


def days_of(rows: Sequence[CheckTimeRow]) -> list[str]:
    return [f"{each.start:%b %d}" for each in rows]


def values_of(rows: Sequence[CheckTimeRow], field: str) -> list[float]:
    return [getattr(each, field) for each in rows]
