"""The JSON Schema of a settings file. No process needs it that serves."""

import ast
import inspect
import itertools
import textwrap
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema

from common.settings_file import is_model


def json_schema(model: type[BaseModel]) -> dict[str, Any]:
    """The JSON Schema of a settings file, for editors: numbers and booleans may also be `${NAME}` references."""
    schema = model.model_json_schema(schema_generator=_DocumentedSchema)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **_with_references(schema)}


class _DocumentedSchema(GenerateJsonSchema):
    """With the docstrings of fields. pydantic would read them from the sources at each start of a process."""

    def model_schema(self, schema: Any) -> dict[str, Any]:
        described = super().model_schema(schema)
        docstrings = _docstrings(schema["cls"])
        for name, field in described.get("properties", {}).items():
            if name in docstrings:
                field["description"] = docstrings[name]
        return described


def _docstrings(model: type[BaseModel]) -> dict[str, str]:
    """By the fields' names in the file."""
    docstrings: dict[str, str] = {}
    for kind in reversed([kind for kind in model.__mro__ if is_model(kind) and kind is not BaseModel]):
        [definition] = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
        assert isinstance(definition, ast.ClassDef)  # noqa: S101  the source of a class is one
        for field, text in itertools.pairwise(definition.body):
            match field, text:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(docstring))):
                    docstrings[model.model_fields[name].alias or name] = inspect.cleandoc(docstring)
    return docstrings


def _with_references(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_with_references(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    inner = {name: _with_references(value) for name, value in schema.items()}
    if schema.get("type") in ("integer", "number", "boolean"):
        annotations = {name: inner.pop(name) for name in ("title", "description", "default") if name in inner}
        return {**annotations, "anyOf": [inner, {"type": "string", "pattern": r"\$\{"}]}
    return inner
