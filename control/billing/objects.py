"""Stripe's objects as plain data."""

import json
import math
import re
from datetime import UTC, datetime
from typing import Any, Final

Object = dict[str, Any]
"""An object of Stripe's, as its API tells it."""

DEPTH_MAX: Final = 64  # of nested objects and lists; Stripe's own have about ten
_ID: Final = re.compile(
    r"[A-Za-z0-9_.:-]{1,255}"
)  # https://docs.stripe.com/upgrades: object ids have up to 255 characters
_UNSTORABLE: Final = re.compile(r"[\x00\ud800-\udfff]")


class ObjectUnreadable(ValueError):
    """It is no JSON that PostgreSQL holds."""


def parsed(payload: bytes) -> Any:
    """The value in a JSON text. Raises ObjectUnreadable, also where two parsers could read two values."""
    try:
        return storable(json.loads(payload.decode(), object_pairs_hook=_unique, parse_constant=_no_constant))
    except (ValueError, RecursionError) as e:
        raise ObjectUnreadable("it is not JSON that can be stored") from e


def storable(value: Any, depth: int = 0) -> Any:
    """The value without NUL and lone surrogates in its texts, which PostgreSQL cannot hold, and nobody needs. Raises
    ObjectUnreadable for what is nested too deep, and for numbers beyond all bounds."""
    if isinstance(value, str):
        return _UNSTORABLE.sub("", value)
    if isinstance(value, dict | list) and depth > DEPTH_MAX:
        raise ObjectUnreadable(f"it is nested more than {DEPTH_MAX} deep")
    if isinstance(value, dict):
        return {storable(name): storable(each, depth + 1) for name, each in value.items()}
    if isinstance(value, list):
        return [storable(each, depth + 1) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        raise ObjectUnreadable("a number is beyond all bounds")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> Object:
    members = dict(pairs)
    if len(members) < len(pairs):
        raise ValueError("a member is given twice")
    return members


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def about_of(payload: Object) -> Object:
    """The object that an event tells of, as far as its payload holds one; `id` and `object` are texts where they are
    there."""
    data = payload.get("data")
    about = data.get("object") if isinstance(data, dict) else None
    if not isinstance(about, dict):
        return {}
    unfit = [name for name in ("id", "object") if not _is_id(about.get(name))]
    return {name: value for name, value in about.items() if name not in unfit}


def _is_id(value: Any) -> bool:
    return isinstance(value, str) and _ID.fullmatch(value) is not None


def id_of(value: Any) -> str | None:
    """The id of what may be an id, an expanded object, or null."""
    if isinstance(value, dict):
        value = value.get("id")
    return value if _is_id(value) else None


def customer_of(event: Object) -> str | None:
    """The customer that an event is about, as far as its payload names one."""
    about = about_of(event)
    return id_of(about) if about.get("object") == "customer" else id_of(about.get("customer"))


def created_at(event: Object, now: float) -> datetime:
    """When Stripe made the event: seconds in events as ever, RFC 3339 in thin ones; `now` where it says neither."""
    created = event.get("created")
    try:
        if isinstance(created, str):
            return datetime.fromisoformat(created).astimezone(UTC)
        return datetime.fromtimestamp(created if isinstance(created, int) and created > 0 else now, UTC)
    except (ValueError, OverflowError, OSError):
        return datetime.fromtimestamp(now, UTC)
