"""The fields of an action, as a form shows them. Pure."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import Enum
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from control.actions.action import Action
from control.documents import View

Kind = Literal["text", "number", "choice", "moment"]


class OptionView(View):
    value: str
    label: str


class FieldView(View):
    """A field of an action."""

    name: str
    label: str
    kind: Kind
    required: bool
    default: str | None
    hint: str | None
    options: list[OptionView] | None
    """Values to choose from; null: any that fits."""

    @property
    def pairs(self) -> list[tuple[str, str]]:
        return [(each.value, each.label) for each in self.options or ()]


def fields_of(action: Action[Any], choices: Mapping[str, Sequence[tuple[str, str]]]) -> list[FieldView]:
    return [_field(name, info, choices.get(name)) for name, info in action.fields.model_fields.items()]


def _field(name: str, info: FieldInfo, choices: Sequence[tuple[str, str]] | None) -> FieldView:
    kind, words = _kind_of(info.annotation)
    if choices is not None:
        kind, options = "choice", [OptionView(value=value, label=label) for value, label in choices]
    elif kind == "choice":
        options = [OptionView(value=word, label=word.replace("_", " ").lower()) for word in words]
    else:
        options = []
    default = None if info.is_required() or info.default is None else str(info.default)
    return FieldView(
        name=name,
        label=name.removesuffix("_minor").replace("_", " ").capitalize(),
        kind=kind,
        required=info.is_required(),
        default=default,
        hint=info.description,
        options=options or None,
    )


def _kind_of(annotation: Any) -> tuple[Kind, Sequence[str]]:
    """The kind, and the words of a choice."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _kind_of(get_args(annotation)[0])
    if origin in (Union, UnionType):
        return _kind_of(next(each for each in get_args(annotation) if each is not NoneType))
    if origin is Literal:
        return "choice", get_args(annotation)
    if isinstance(annotation, type):
        if issubclass(annotation, Enum):
            return "choice", [str(each.value) for each in annotation]
        if issubclass(annotation, int | float):
            return "number", ()
        if issubclass(annotation, datetime):
            return "moment", ()
    return "text", ()
