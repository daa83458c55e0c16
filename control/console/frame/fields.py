"""The fields of a form as they are sent, and the form that a model has. Pure."""

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from pydantic import BaseModel

from common.clock import end_of_day

ENDS: Final = frozenset({"expires_at"})
"""Times that something ends at: a day without a time is its last second."""
_LOCAL: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}(:[0-9]{2})?")


def typed(model: type[BaseModel], sent: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """Lists where the model has lists; times of `datetime-local` are of UTC, as the label says, and so is a day that
    something ends at; the empty are left out."""
    found: dict[str, Any] = {}
    for name, text in sent:
        if text == "":
            continue
        known = model.model_fields.get(name)
        annotation = "" if known is None else repr(known.annotation)
        if annotation.startswith(("list", "set", "frozenset")):
            found.setdefault(name, []).append(text)
        elif "atetime" in annotation and _LOCAL.fullmatch(text):
            found[name] = f"{text}Z"
        elif name in ENDS and (day := end_of_day(text)) is not None:
            found[name] = day.isoformat()
        else:
            found[name] = text
    return found


def nested(fields: Mapping[str, Any]) -> dict[str, Any]:
    """`{"a.b": 1}` -> `{"a": {"b": 1}}`."""
    found: dict[str, Any] = {}
    for name, value in fields.items():
        *path, last = name.split(".")
        at = found
        for part in path:
            deeper = at.setdefault(part, {})
            at = deeper if isinstance(deeper, dict) else {}
        at[last] = value
    return found
