"""Stripe's objects as plain data."""

from typing import Any

Object = dict[str, Any]
"""An object of Stripe's, as its API tells it."""


def id_of(value: Any) -> str | None:
    """The id of what may be an id, an expanded object, or null."""
    if isinstance(value, dict):
        value = value.get("id")
    return value if isinstance(value, str) else None
