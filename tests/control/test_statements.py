"""The types that statements are declared with, compared with what PostgreSQL says of them."""

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from datetime import date, datetime
from decimal import Decimal
from types import NoneType, UnionType
from typing import Any, get_args, get_origin
from uuid import UUID

import asyncpg
import pytest

from control.sql.statements import DIRECTORY, REGISTRY, Connection, Statement, StatementMismatch, Statements

FILES = sorted(file.stem for file in DIRECTORY.glob("*.sql"))
TYPES = {
    "bool": bool,
    "bytea": bytes,
    "date": date,
    "float8": float,
    "int2": int,
    "int4": int,
    "int8": int,
    "name": str,
    "numeric": Decimal,
    "text": str,
    "timestamptz": datetime,
    "uuid": UUID,
    "void": NoneType,
}


def fits(declared: Any, postgres: asyncpg.Type) -> bool:
    if isinstance(declared, UnionType):
        return any(fits(each, postgres) for each in get_args(declared) if each is not NoneType)
    if postgres.name.endswith("[]"):
        arrays = get_origin(declared) in (list, Sequence)
        return arrays and fits(get_args(declared)[0], asyncpg.Type(0, postgres.name[:-2], "scalar", "pg_catalog"))
    if postgres.name == "jsonb":
        return declared is Any or get_origin(declared) in (dict, list, Mapping)
    return bool(declared is TYPES[postgres.name])


@pytest.mark.parametrize("file", FILES)
def test_every_statement_is_declared_once_and_says_what_it_is_for(file: str) -> None:
    importlib.import_module(f"control.sql.{file}")
    statements = REGISTRY[file]
    assert statements.declared.keys() == statements.names
    assert [name for name, statement in statements.declared.items() if not statement.about] == []


def test_every_module_of_declarations_has_a_file_of_statements() -> None:
    modules = {file.stem for file in DIRECTORY.glob("*.py")} - {"__init__", "statements"}
    assert modules == set(FILES)


@pytest.mark.parametrize("file", FILES)
async def test_postgres_has_the_parameters_and_the_columns_that_are_declared(file: str, postgres_dsn: str) -> None:
    importlib.import_module(f"control.sql.{file}")
    connection = await asyncpg.connect(postgres_dsn)
    try:
        wrong = [
            f"{name}: {fault}"
            for name, statement in REGISTRY[file].declared.items()
            for fault in faults(statement, await connection.prepare(statement.sql))
        ]
    finally:
        await connection.close()
    assert wrong == []


def faults(statement: Statement, prepared: Any) -> list[str]:
    declared, types = list(statement.parameters.items()), prepared.get_parameters()
    mismatches = [
        f"parameter {name} is {annotation}, and {type_.name} in SQL"
        for (name, annotation), type_ in zip(declared, types, strict=False)
        if not fits(annotation, type_)
    ]
    if len(declared) != len(types):
        mismatches.append(f"{len(types)} parameters in SQL, {len(declared)} declared")
    columns = [(each.name, each.type) for each in prepared.get_attributes()]
    if statement.result is NoneType:
        return mismatches
    if not is_dataclass(statement.result):
        [(_, type_)] = columns
        return (
            mismatches
            if fits(statement.result, type_)
            else [*mismatches, f"{statement.result}, and {type_.name} in SQL"]
        )
    row = [(field.name, field.type) for field in fields(statement.result)]
    if [name for name, _ in row] != [name for name, _ in columns]:
        return [*mismatches, f"columns {[name for name, _ in columns]}, declared {[name for name, _ in row]}"]
    return mismatches + [
        f"column {name} is {annotation}, and {type_.name} in SQL"
        for (name, annotation), (_, type_) in zip(row, columns, strict=True)
        if not fits(annotation, type_)
    ]


@dataclass(frozen=True, slots=True)
class Named:
    name: str


async def renamed(connection: Connection, *, name: str) -> None: ...
async def rename(connection: Connection, *, name: str) -> None: ...
async def find(connection: Connection, *, org: str) -> list[Named]: ...
async def mirrored(connection: Connection, *, after: str, limit_rows: int) -> Named | None: ...
async def insert(connection: Connection, *, name: str, created_at: datetime) -> str | None: ...
async def lock(*, org: str) -> Named | None: ...


@pytest.mark.parametrize(
    ("declaration", "fault"),
    [
        (renamed, "has no statement renamed"),
        (rename, "has the parameters"),
        (find, "a row, which is a dataclass"),
        (mirrored, "a list of rows"),
        (insert, "has the parameters"),
        (lock, "the first parameter is the connection"),
    ],
)
def test_a_declaration_that_is_not_what_the_header_says_is_refused(declaration: Any, fault: str) -> None:
    with pytest.raises(StatementMismatch, match=fault):
        Statements("organizations")(declaration)
