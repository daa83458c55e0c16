"""Stripe's objects as plain data."""

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
    found: Any = (event.get("data") or {}).get("object") or {}
    if not isinstance(found, dict):
        return None
    return id_of(found) if found.get("object") == "customer" else id_of(found.get("customer"))
