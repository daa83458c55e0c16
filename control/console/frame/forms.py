"""What a person typed into a form -> a value, or the form again with what is wrong about it."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, Generic, TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError

from control.console.frame.fields import nested, typed

Form = TypeVar("Form", bound=BaseModel)

TOKEN: Final = "token"  # noqa: S105  # the name of the field that holds it
WHOLE: Final = ""
"""The name under which a fault of the form as a whole is kept."""


@dataclass(frozen=True, slots=True)
class Filled(Generic[Form]):
    value: Form | None = None
    """None: something is wrong, or nothing was sent yet."""
    errors: Mapping[str, str] = field(default_factory=dict)
    """What is wrong, by field."""
    given: Mapping[str, str] = field(default_factory=dict)
    """What was typed, by field."""

    def with_error(self, name: str | None, message: str) -> "Filled[Form]":
        """Also wrong, as who does it has found. None: the form as a whole."""
        return replace(self, value=None, errors={**self.errors, name or WHOLE: message})


def blank(**given: object) -> Filled[Any]:
    """A form that nobody has filled in yet, with these values in it."""
    return Filled(given={name: "" if value is None else str(value) for name, value in given.items()})


async def read_form(request: Request, model: type[Form], but: Collection[str] = ()) -> Filled[Form]:
    """A field that is left empty is one that is not given; `a.b` is the field b of a. `but`: fields of the form that
    are not the model's."""
    form = await request.form()
    return _read(model, [(name, text) for name, text in form.multi_items() if isinstance(text, str)], but)


def read_query(request: Request, model: type[Form], but: Collection[str] = ()) -> Filled[Form]:
    """The same of the page's address: a form that changes nothing is sent by GET."""
    return _read(model, request.query_params.multi_items(), but)


def _read(model: type[Form], fields: Iterable[tuple[str, str]], but: Collection[str]) -> Filled[Form]:
    sent = [(name, text) for name, text in fields if name != TOKEN and name not in but]
    given = dict(sent)
    try:
        content = nested(typed(model, sent))
        # Pydantic reads no lists from texts. Its other reading refuses texts for numbers that are strict.
        has_list = any(isinstance(value, list) for value in content.values())
        read = model.model_validate if has_list else model.model_validate_strings
        return Filled(read(content), {}, given)
    except ValidationError as e:
        errors = {".".join(str(part) for part in fault["loc"]): _message(fault) for fault in reversed(e.errors())}
        return Filled(None, errors, given)


def _message(fault: Mapping[str, Any]) -> str:
    if fault["type"] == "missing":
        return "Fill this in."
    message = str(fault["msg"]).removeprefix("Value error, ")
    return message[:1].upper() + message[1:].rstrip(".") + "."
