"""A forecast in words, and days in a chart. Pure."""

from collections.abc import Mapping
from datetime import date, datetime, timedelta

from markupsafe import Markup

from control.api.forecast import MeterForecastView
from control.api.usage import UsageView
from control.console.frame import charts
from control.console.frame.formats import count


def sentence_of(forecast: MeterForecastView) -> str:
    """What is to be expected of a meter, in one sentence."""
    if forecast.remaining <= 0 < forecast.limit:
        return "Nothing of it is left until the period ends."
    if forecast.at_end is None:
        return "There is too little history for a forecast: it begins after 7 days."
    runs_out = forecast.runs_out
    if runs_out is None:
        low, high = count(forecast.at_end.low), count(forecast.at_end.high)
        return f"Lasts until the period ends, probably at {low} to {high}."
    if runs_out.latest is None:
        return f"May run out from {_day(runs_out.earliest)} on, or last until the period ends."
    return f"Runs out {_span(runs_out.earliest, runs_out.latest)}."


def daily_chart(usage: UsageView) -> Markup:
    """A column for each day that the answer is about."""
    first, last = usage.since.date(), usage.until.date()
    days = [first + timedelta(days=n) for n in range(min(366, (last - first).days + 1))]
    of_meter: Mapping[str, Mapping[date, int]] = {
        each.meter: {bucket.start.date(): bucket.units for bucket in each.buckets} for each in usage.meters
    }
    points = [
        (f"{day:%b} {day.day}", {meter: by_day.get(day, 0) for meter, by_day in of_meter.items()}) for day in days
    ]
    return charts.columns("Used each day", points)


def ahead_chart(forecast: MeterForecastView) -> Markup:
    """What will have been used in the period by the end of each day, with its interval."""
    days = [forecast.used, *(each.used.likely for each in forecast.days)]
    low = [forecast.used, *(each.used.low for each in forecast.days)]
    high = [forecast.used, *(each.used.high for each in forecast.days)]
    labels = ["now", *(f"{each.until:%b} {each.until.day}" for each in forecast.days)]
    series = {"expected": days, "limit": [forecast.limit] * len(days)}
    return charts.lines("Used in the period", labels, series, band=(low, high))


def _day(at: datetime) -> str:
    return f"{at.day} {at:%B}"


def _span(earliest: datetime, latest: datetime) -> str:
    """12 to 17 December."""
    if earliest.date() == latest.date():
        return f"on {_day(earliest)}"
    if (earliest.year, earliest.month) == (latest.year, latest.month):
        return f"{earliest.day} to {_day(latest)}"
    return f"{_day(earliest)} to {_day(latest)}"
