"""Settings files: YAML in, a frozen pydantic model out; or a message with file, line and field of every fault.

`${NAME}` and `${NAME:-default}` inside a value are replaced from the environment, as a shell would (`:-` also covers
an empty variable); `$${` stands for a literal `${`. A value that came from the environment is never printed: it can be
a secret.
"""

import difflib
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib import resources
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Final, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

M = TypeVar("M", bound=BaseModel)
Location = tuple[str | int, ...]  # ("routes", 1, "upstream")

REFERENCE: Final = re.compile(r"\$(\$?)\{(?:([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\})?")
SHORTEST_MASKED: Final = 6  # an environment value of fewer characters is masked only in the message about its own field


class SettingsError(Exception):
    """The settings cannot be used: one line for each fault, `file:line: field: what`."""


class SettingsConflict(ValueError):
    """A validator raises it for fields that are valid alone and conflict with each other.

    A fault is (location relative to the model that validates, message), so that the message names the field's own line.
    """

    def __init__(self, faults: Iterable[tuple[Location, str]]) -> None:
        self.faults = list(faults)
        super().__init__("; ".join(message for _, message in self.faults))


class SettingsModel(BaseModel):
    """The base of every settings model: frozen, without unknown fields, and documented by docstrings of its fields."""

    # A validator is built when it is first used: a worker is given settings that the supervisor has validated.
    model_config = ConfigDict(
        frozen=True, extra="forbid", hide_input_in_errors=True, allow_inf_nan=False, defer_build=True
    )


class _Loader(yaml.SafeLoader):
    """Leaves all scalars as text: `_typed` gives them types."""


_Loader.yaml_implicit_resolvers = {}


def compose(text: str, *, quickly: bool = True) -> yaml.Node | None:
    """The tree of a file. `quickly`: by libyaml, where PyYAML has it, in a fraction of the time. Its messages are
    others, so what it refuses is read again. Raises YAMLError."""
    if quickly and _QUICK is not None:
        try:
            return yaml.compose(text, Loader=_QUICK)
        except yaml.YAMLError:
            pass
    return yaml.compose(text, Loader=_Loader)


def _quick_loader() -> type[yaml.CSafeLoader] | None:
    if not yaml.__with_libyaml__:
        return None

    class Quick(yaml.CSafeLoader): ...

    Quick.yaml_implicit_resolvers = {}
    return Quick


_QUICK: Final = _quick_loader()


# YAML 1.2's core types. YAML 1.1 would read `no` as a boolean, `1:30` as 90 and a date as a date.
_TYPES: Final[list[tuple[re.Pattern[str], Callable[[str], object]]]] = [
    (re.compile(r"~|null|"), lambda _: None),
    (re.compile(r"true|false"), lambda text: text == "true"),
    (re.compile(r"[-+]?[0-9]{1,30}"), int),
    (re.compile(r"[-+]?[0-9]+(?:\.[0-9]*)?(?:[eE][-+]?[0-9]+)?"), float),
]
_PLAIN_TAGS: Final = {f"tag:yaml.org,2002:{kind}" for kind in ("str", "seq", "map")}


def _typed(text: str) -> object:
    return next((read(text) for pattern, read in _TYPES if pattern.fullmatch(text)), text)


class _Document:
    """One YAML file as plain data, with the line of every field and the values that came from the environment."""

    def __init__(self, name: str, text: str, environ: Mapping[str, str]) -> None:
        self.name = name
        self.environ = environ
        self.lines: dict[Location, int] = {(): 1}
        self.substituted: set[Location] = set()
        self.secrets: dict[Location, list[tuple[str, str]]] = {}  # (value, variable) of each field
        self.faults: list[tuple[Location, str]] = []
        try:
            root = compose(text)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            line = mark.line + 1 if mark else 1
            problem = ", ".join(filter(None, (error.context, error.problem)))
            raise SettingsError(f"{name}:{line}: not valid YAML: {problem}") from None
        except yaml.YAMLError as error:  # a byte that YAML does not allow
            raise SettingsError(f"{name}:1: not valid YAML: {' '.join(str(error).split())}") from None
        data = None if root is None else self._value(root, (), ())
        self.data: Any = {} if data is None else data

    def _value(self, node: yaml.Node, at: Location, parents: tuple[yaml.Node, ...]) -> Any:
        if node.tag not in _PLAIN_TAGS:
            self.faults.append((at, "YAML tags (!) are not supported"))
            return None
        if node in parents:
            self.faults.append((at, "an alias (*) must not contain itself"))
            return None
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, at, (*parents, node))
        if isinstance(node, yaml.SequenceNode):
            for index, item in enumerate(node.value):
                self.lines[*at, index] = item.start_mark.line + 1
            return [self._value(item, (*at, index), (*parents, node)) for index, item in enumerate(node.value)]
        assert isinstance(node, yaml.ScalarNode)  # noqa: S101  YAML has no fourth kind
        return self._scalar(node, at)

    def _mapping(self, node: yaml.MappingNode, at: Location, parents: tuple[yaml.Node, ...]) -> dict[str, Any]:
        fields: dict[str, Any] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                self.faults.append((at, f"line {line}: a field's name must be plain text"))
            elif key.value in fields:
                first = self.lines[*at, key.value]
                self.faults.append(((*at, key.value), f"given twice: on line {first} and on line {line}"))
            else:
                self.lines[*at, key.value] = line
                fields[key.value] = self._value(value, (*at, key.value), parents)
        return fields

    def _scalar(self, node: yaml.ScalarNode, at: Location) -> object:
        text: str = node.value
        if "${" not in text:
            return text if node.style else _typed(text)  # plain: libyaml says "", PyYAML None
        self.substituted.add(at)
        return REFERENCE.sub(lambda match: self._reference(match, at), text)

    def _reference(self, match: re.Match[str], at: Location) -> str:
        escaped, variable, default = match.groups()
        if escaped:
            return match[0][1:]
        if variable is None:
            self.faults.append((at, "`${` must be ${NAME} or ${NAME:-default} (a literal one is written `$${`)"))
            return match[0]
        value = self.environ.get(variable)
        if value is None and default is None:
            self.faults.append((at, f"environment variable {variable} is not set"))
            return match[0]
        if default is not None and not value:
            return default
        assert value is not None  # noqa: S101  the two branches above leave nothing else; mypy does not see it
        self.secrets.setdefault(at, []).append((value, variable))
        return value

    def location_in_file(self, location: Location) -> Location:
        """The part of a pydantic location that the file has: it has no union members and no validators."""
        at: Location = ()
        for step in location:
            if (*at, step) in self.lines:
                at = (*at, step)
        return at

    def at(self, location: Location) -> Any:
        value = self.data
        for step in location:
            value = value[step]
        return value

    def masked(self, at: Location, message: str) -> str:
        for field, values in self.secrets.items():
            for value, variable in values:
                if value and (field == at or len(value) >= SHORTEST_MASKED):
                    message = message.replace(value, f"${{{variable}}}")
        return message

    def retype(self, error: ValidationError) -> bool:
        """Gives types to substituted values that failed as text (`port: "${PORT}"`). True if any value changed."""
        changed = False
        for fault in error.errors(include_url=False):
            at = self.location_in_file(fault["loc"])
            if at in self.substituted and fault["type"] in {"int_type", "float_type", "bool_type", "none_required"}:
                parent = self.at(at[:-1])
                if isinstance(text := parent[at[-1]], str) and (value := _typed(text)) is not text:
                    parent[at[-1]], changed = value, True
        return changed


def load(path: Path | None, default_name: str, model: type[M], environ: Mapping[str, str] = os.environ) -> M:
    """The settings in `path`, or in the packaged `default_name` when it is None. Raises SettingsError."""
    source = resources.files("config") / default_name if path is None else path
    name = f"packaged config/{default_name}" if path is None else str(path)
    try:
        text = source.read_text(encoding="utf-8")
    except OSError as error:
        raise SettingsError(f"{name}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise SettingsError(f"{name}:{line}: not UTF-8 text") from None
    return parse(name, text, model, environ)


def parse(name: str, text: str, model: type[M], environ: Mapping[str, str], *, strict: bool | None = True) -> M:
    """`text` as a `model`; messages call the file `name`. `strict`: None leaves it to the model's fields. Raises
    SettingsError."""
    document = _Document(name, text, environ)
    faults = list(document.faults)
    unresolved = {at for at, _ in faults}
    try:
        settings = _validated(document, model, strict)
    except ValidationError as error:
        faults += [(at, message) for at, message in _faults(error, document, model) if at not in unresolved]
    else:
        if not faults:
            return settings
    raise SettingsError("\n".join(_lines(document, faults)))


def places(name: str, text: str) -> Callable[[Location], str]:
    """`file:line: field: ` of what is in a file that `parse` has read, for what is found wrong with it later."""
    document = _Document(name, text, os.environ)
    return lambda at: f"{name}:{document.lines[document.location_in_file(at)]}: {spell(at)}"


def is_read_as_text(text: str) -> bool:
    """Whether YAML without quotes around it would be this text, and nothing else."""
    return _typed(text) is text and "${" not in text


def escaped(text: str) -> str:
    """The text in a file that is read as this one."""
    return text.replace("${", "$${")


def _validated(document: _Document, model: type[M], strict: bool | None) -> M:
    try:
        return _as_json(document, model, strict)
    except ValidationError as error:
        if not document.retype(error):
            raise
    return _as_json(document, model, strict)


def _as_json(document: _Document, model: type[M], strict: bool | None) -> M:
    # For Python data, pydantic's strict mode refuses a list where a tuple is expected.
    return model.model_validate_json(json.dumps(document.data), strict=strict)


def _faults(error: ValidationError, document: _Document, model: type[BaseModel]) -> Iterator[tuple[Location, str]]:
    for fault in error.errors(include_url=False):
        at = document.location_in_file(fault["loc"])
        cause = fault.get("ctx", {}).get("error")
        if isinstance(cause, SettingsConflict):
            yield from (((*at, *inner), message) for inner, message in cause.faults)
        elif fault["type"] == "missing":
            yield (*at, fault["loc"][-1]), "is missing"
        elif fault["type"] == "too_short" and isinstance(value := document.at(at), str):
            yield (
                at,
                f"must have at least {fault['ctx']['min_length']} characters",
            )  # pydantic would say "items" for a secret
        elif fault["type"] == "too_short" and value:
            continue  # pydantic counts valid items only, and the others have their own faults
        elif fault["type"] == "extra_forbidden":
            yield at, _unknown(str(at[-1]), fields_at(model, at[:-1]))
        else:
            yield at, str(cause) if cause else fault["msg"].removeprefix("Input ")


def _unknown(field: str, fields: list[str]) -> str:
    near = difflib.get_close_matches(field, fields, n=1)
    return f"unknown field (did you mean {near[0]}?)" if near else f"unknown field (known: {', '.join(sorted(fields))})"


def fields_at(model: type[BaseModel], at: Location) -> list[str]:
    """The names of the fields that are allowed at a location of the file."""
    kinds: list[Any] = [model]
    for step in at:
        kinds = [inner for kind in kinds for inner in _inside(kind, step)]
    return [info.alias or name for kind in kinds if is_model(kind) for name, info in kind.model_fields.items()]


def _inside(kind: Any, step: str | int) -> Iterator[Any]:
    """The types of what a value of type `kind` holds at one step: a model's field, a list's item, a mapping's value."""
    if is_model(kind):
        for name, field in kind.model_fields.items():
            if step == (field.alias or name):
                yield from _members(field.annotation)
    else:
        for argument in [a for a in get_args(kind) if a is not Ellipsis][-1:]:
            yield from _members(argument)


def _members(annotation: Any) -> tuple[Any, ...]:
    if get_origin(annotation) is Annotated:
        return _members(get_args(annotation)[0])
    if get_origin(annotation) in {Union, UnionType}:
        return tuple(kind for member in get_args(annotation) for kind in _members(member))
    return (annotation,)


def is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _lines(document: _Document, faults: list[tuple[Location, str]]) -> list[str]:
    """One line for each field, in the order of the file. The messages of several union members are joined."""
    messages: dict[Location, list[str]] = {}
    for at, message in faults:
        of_field = messages.setdefault(at, [])
        if (masked := document.masked(at, message)) not in of_field:
            of_field.append(masked)
    lines = sorted(
        (document.lines[document.location_in_file(at)], at, " or ".join(of_field)) for at, of_field in messages.items()
    )
    return [f"{document.name}:{line}: {spell(at)}{message}" for line, at, message in lines]


def spell(at: Location) -> str:
    """`("routes", 1, "upstream")` as `routes[1].upstream: `; nothing for the whole file."""
    spelt = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in at).removeprefix(".")
    return f"{spelt}: " if spelt else ""
