"""Stripe's objects as plain data."""

from datetime import UTC, datetime
from typing import Any

Object = dict[str, Any]
"""An object of Stripe's, as its API tells it."""


def id_of(value: Any) -> str | None:
    """The id of what may be an id, an expanded object, or null."""
    if isinstance(value, dict):
        value = value.get("id")
    return value if isinstance(value, str) else None


def customer_of(event: Object) -> str | None:
    """The customer that an event is about, as far as its payload names one."""
    data = event.get("data")
    found = data.get("object") if isinstance(data, dict) else None
    if not isinstance(found, dict):
        return None
    return id_of(found) if found.get("object") == "customer" else id_of(found.get("customer"))


def created_at(event: Object, now: float) -> datetime:
    """When Stripe made the event: seconds in events as ever, RFC 3339 in thin ones; `now` where it says neither."""
    created = event.get("created")
    try:
        if isinstance(created, str):
            return datetime.fromisoformat(created).astimezone(UTC)
        return datetime.fromtimestamp(created if isinstance(created, int) and created > 0 else now, UTC)
    except (ValueError, OverflowError, OSError):
        return datetime.fromtimestamp(now, UTC)
