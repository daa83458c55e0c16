"""Times as commands take them: how long something lasts, and when it ends."""

import re
from datetime import UTC, datetime, timedelta
from typing import Final

import typer

_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
DURATION: Final = "DURATION"
LONGEST: Final = timedelta(days=36_500)  # what is longer ends after the last date that Python has
WHEN: Final = "DURATION|TIME"


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
    """`30d`, which is from now on, or `2027-01-01T00:00:00Z`. Raises BadParameter."""
    if re.fullmatch(r"[0-9]+[smhd]", text):
        return datetime.now(UTC) + duration(text, option)
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        at = None
    if at is None or at.tzinfo is None:
        raise typer.BadParameter("must be a time from now, 30d, or one as 2027-01-01T00:00:00Z", param_hint=option)
    return at
