"""Seconds since the epoch, which the planes share, and datetimes, which Postgres and the API speak. Always UTC."""

from datetime import UTC, datetime, timedelta
from functools import lru_cache

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
