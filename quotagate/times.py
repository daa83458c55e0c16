"""Times as commands take them: how long something lasts, and when it ends."""

import re
from datetime import UTC, datetime, timedelta
from typing import Final

import typer

_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
DURATION: Final = "DURATION"
LONGEST: Final = timedelta(days=36_500)  # what is longer ends after the last date that Python has
WHEN: Final = "DURATION|DAY|TIME"


def duration(text: str, option: str, longest: timedelta = LONGEST) -> timedelta:
    """`90s`, `30m`, `12h` or `7d`. Raises BadParameter."""
    match = re.fullmatch(r"([1-9][0-9]{0,6})([smhd])", text)
    if match is None:
        raise typer.BadParameter("must be a whole number and a unit: 90s, 30m, 12h or 7d", param_hint=option)
    lasts = timedelta(**{_UNITS[match[2]]: int(match[1])})
    if lasts > longest:
        raise typer.BadParameter(f"must be at most {longest.days}d", param_hint=option)
    return lasts


def moment(text: str, option: str) -> datetime:
    """`30d`, which is from now on, `2026-12-31`, of which the end is meant (UTC), or `2027-01-01T00:00:00Z`. Raises
    BadParameter."""
    from common.clock import end_of_day

    if re.fullmatch(r"[0-9]+[smhd]", text):
        return datetime.now(UTC) + duration(text, option)
    if (day := end_of_day(text)) is not None:
        return day
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        at = None
    if at is None or at.tzinfo is None:
        forms = "30d from now, the end of a day, 2026-12-31 (UTC), or a time, 2027-01-01T00:00:00Z"
        raise typer.BadParameter(f"must be {forms}", param_hint=option)
    return at
