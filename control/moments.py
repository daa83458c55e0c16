"""Seconds since the epoch, which the planes share, and datetimes, which Postgres and the API speak. Always UTC."""

from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import Any

MICROSECOND = timedelta(microseconds=1)


def moment(seconds: float) -> datetime:
    """In whole microseconds, rounded down: what expires must not outlive its time by a rounding.

    What `datetime.timestamp` made comes back unchanged."""
    nearest = datetime.fromtimestamp(seconds, UTC)
    return nearest if nearest.timestamp() <= seconds else nearest - MICROSECOND


@lru_cache(maxsize=1024)  # most are the bounds of a period
def rfc3339(seconds: float) -> str:
    """As in `2026-11-30T23:59:59Z`: whole seconds, rounded down."""
    return moment(int(seconds)).isoformat().replace("+00:00", "Z")


def with_texts(row: Mapping[str, Any]) -> dict[str, Any]:
    """As commands print it: days and times as texts."""
    return {name: _text(value) for name, value in row.items()}


def _text(value: Any) -> Any:
    if isinstance(value, datetime):
        return rfc3339(value.timestamp())
    return value.isoformat() if isinstance(value, date) else value
