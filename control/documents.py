"""What all bodies and views of the API have in common."""

import re
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field

from control.attribute_docstrings import docstrings_of

_RFC3339 = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ]")


def _written_out(value: Any) -> Any:
    if not isinstance(value, str) or not _RFC3339.match(value):
        raise ValueError("must be a time as in 2026-11-30T23:59:59Z")
    return value


def _whole(value: Any) -> Any:
    return int(value) if type(value) is float and value.is_integer() else value


Whole = BeforeValidator(_whole)
"""Of a strict integer: 1837.0 is the number 1837 (RFC 8259 knows one kind, and JSON Schema says so), "1837" is not."""
Moment = Annotated[AwareDatetime, BeforeValidator(_written_out)]
"""A time with its offset, RFC 3339. Numbers are refused: they could be seconds or milliseconds."""


def _bounded(at: datetime) -> datetime:
    if not datetime(1970, 1, 1, tzinfo=UTC) <= at < datetime(2100, 1, 1, tzinfo=UTC):
        raise ValueError("must be from 1970 to 2099")
    return at


BoundedMoment = Annotated[Moment, AfterValidator(_bounded)]
"""For queries: beyond that, dates with an offset overflow."""


class _Described(BaseModel):
    """A docstring below a field is its description. Pydantic's `use_attribute_docstrings` does the same, but finds a
    class by the frames of the stack: a fifth of what a control plane's start took."""

    def __init_subclass__(cls, **config: Any) -> None:
        super().__init_subclass__(**config)
        own = cls.__annotations__
        for name, docstring in docstrings_of(cls).items():
            own[name] = Annotated[own[name], Field(description=docstring)]


class Body(_Described):
    """The body of a request. An unknown field is refused: otherwise a misspelled one would be ignored in silence."""

    model_config = ConfigDict(extra="forbid")


class View(_Described):
    """The body of an answer."""

    model_config = ConfigDict(from_attributes=True)
