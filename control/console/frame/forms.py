"""What a person typed into a form -> a value, or the form again with what is wrong about it."""

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, Generic, TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError

from control.console.frame.amounts import in_minor, named_as_typed
from control.console.frame.fields import nested, typed
from control.http.in_words import message_of

Form = TypeVar("Form", bound=BaseModel)

TOKEN: Final = "token"  # noqa: S105  # the name of the field that holds it
WHOLE: Final = ""
"""The name under which a fault of the form as a whole is kept."""

CurrencyOf = Callable[[Mapping[str, str]], Awaitable[str | None]]
"""What was sent -> the currency of its amounts; None: it is not known."""


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
    return _read(model, _sent(await _posted(request), but))


def read_query(request: Request, model: type[Form], but: Collection[str] = ()) -> Filled[Form]:
    """The same of the page's address: a form that changes nothing is sent by GET."""
    return _read(model, _sent(request.query_params.multi_items(), but))


async def read_amounts(
    request: Request, model: type[Form], currency_of: CurrencyOf, but: Collection[str] = ()
) -> Filled[Form]:
    """The same of either, where the model may have amounts, which people type in the main unit of their currency."""
    fields = await _posted(request) if request.method == "POST" else request.query_params.multi_items()
    sent = _sent(fields, but)
    read, wrong = in_minor(model, sent, await currency_of(dict(sent)))
    filled = _read(model, read)
    value = None if wrong else filled.value
    return Filled(value, {**named_as_typed(filled.errors), **wrong}, dict(sent))


async def _posted(request: Request) -> list[tuple[str, str]]:
    form = await request.form()
    return [(name, text) for name, text in form.multi_items() if isinstance(text, str)]


def _sent(fields: Iterable[tuple[str, str]], but: Collection[str]) -> list[tuple[str, str]]:
    return [(name, text) for name, text in fields if name != TOKEN and name not in but]


def _read(model: type[Form], sent: list[tuple[str, str]]) -> Filled[Form]:
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
    message = message_of(fault)
    return message[:1].upper() + message[1:].rstrip(".") + "."
