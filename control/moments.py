"""Seconds since the epoch, which the planes share, and datetimes, which Postgres and the API speak. Always UTC."""

from datetime import UTC, datetime
from functools import lru_cache


def moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


@lru_cache(maxsize=1024)  # most are the bounds of a period
def rfc3339(seconds: float) -> str:
    """As in `2026-11-30T23:59:59Z`: whole seconds, rounded down."""
    return moment(int(seconds)).isoformat().replace("+00:00", "Z")
