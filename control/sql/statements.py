"""Statements in SQL files, and their types in Python: how the one is bound to the other.

`organizations.sql` holds the statements, each with its name and with what it is for. `organizations.py`, beside it,
declares each of them as a function: its parameters, and what it returns.

    sql = Statements("organizations")

    @sql
    async def find(connection: Connection, *, org: str) -> Organization | None: ...

mypy checks the callers. A declaration is compared with the header in the SQL file when it is imported, so a process
does not start with one that has another name, other parameters, or another kind of result. The tests compare each
declaration with what PostgreSQL itself says of the statement.
"""

import inspect
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, BinaryIO, Literal, ParamSpec, Protocol, TypeVar, get_args, get_origin

import aiosql
from aiosql.types import SQLOperationType as Operation

DIRECTORY = Path(__file__).parent

P = ParamSpec("P")
T = TypeVar("T")

REGISTRY: dict[str, "Statements"] = {}
"""By the name of the SQL file, of all modules that are imported."""


class Connection(Protocol):
    """What statements, and what moves whole tables, ask of a connection. asyncpg's have it, and its pool's."""

    async def execute(self, query: str, *args: object) -> str: ...
    async def executemany(self, command: str, args: Iterable[Sequence[object]]) -> None: ...
    async def fetch(self, query: str, *args: object) -> Sequence[Any]: ...
    async def fetchrow(self, query: str, *args: object) -> Any: ...
    async def fetchval(self, query: str, *args: object) -> Any: ...
    async def copy_records_to_table(
        self, table_name: str, *, records: Iterable[Sequence[object]], columns: Iterable[str]
    ) -> str: ...
    async def copy_to_table(
        self, table_name: str, *, source: BinaryIO, columns: Iterable[str], format: Literal["csv"], header: bool
    ) -> str: ...
    async def copy_from_query(
        self, query: str, *, output: Callable[[bytes], Coroutine[Any, Any, None]], format: Literal["csv"], header: bool
    ) -> str: ...
    def transaction(
        self, *, isolation: Literal["repeatable_read"] | None = None, readonly: bool = False
    ) -> AbstractAsyncContextManager[object]: ...


class StatementMismatch(TypeError):
    """A declaration and the header of its statement do not say the same."""


@dataclass(slots=True)
class Statement:
    """A statement as it is declared. `make` makes a row of a record, or is None where one column is the value."""

    sql: str
    operation: Operation
    about: str
    parameters: Mapping[str, Any]
    """By name, in the order of `$1`, `$2`; their types."""
    result: Any
    """The type of a row, or of the value; None for a statement that returns nothing."""
    optional: bool
    """There may be no row, or no value."""
    make: Callable[[Any], Any]


class Statements:
    """The statements of one SQL file; a decorator for what declares them."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.declared: dict[str, Statement] = {}
        queries = aiosql.from_path(DIRECTORY / f"{name}.sql", "asyncpg")
        # aiosql has each query a second time, as a cursor.
        names = [each for each in queries.available_queries if not each.endswith("_cursor")]
        self._queries: dict[str, Any] = {each: getattr(queries, each) for each in names}
        REGISTRY[name] = self

    @property
    def names(self) -> frozenset[str]:
        """Of all statements in the file."""
        return frozenset(self._queries)

    def __call__(self, declaration: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, Coroutine[Any, Any, T]]:
        """Raises StatementMismatch."""
        name = declaration.__name__
        query = self._queries.get(name)
        if query is None:
            raise StatementMismatch(f"{self.name}.sql has no statement {name}")
        try:
            statement = _read(query, inspect.signature(declaration))
        except StatementMismatch as e:
            raise StatementMismatch(f"{self.name}.{name}: {e}") from None
        self.declared[name] = statement
        run: Any = _RUN[statement.operation](statement)
        run.__name__, run.__qualname__, run.__module__ = name, name, declaration.__module__
        run.__doc__, run.__signature__ = statement.about, inspect.signature(declaration)
        bound: Callable[P, Coroutine[Any, Any, T]] = run
        return bound


def _read(query: Any, declared: inspect.Signature) -> Statement:
    operation: Operation = query.operation
    names = [name for name in query.__signature__.parameters if name != "self"]  # in the order of $1, $2
    result, optional = _without_none(declared.return_annotation)
    given = list(declared.parameters.values())
    if not given or given[0].annotation is not Connection:
        raise StatementMismatch("the first parameter is the connection")
    if operation is Operation.INSERT_UPDATE_DELETE_MANY:
        [row] = get_args(given[1].annotation) if len(given) == 2 else [None]
        if row is None or not is_dataclass(row):
            raise StatementMismatch("a statement of many rows takes a sequence of a dataclass")
        types = {field.name: field.type for field in fields(row)}
    else:
        types = {each.name: each.annotation for each in given[1:] if each.kind is each.KEYWORD_ONLY}
    if list(types) != list(query.parameters or names):
        raise StatementMismatch(f"the header has the parameters {query.parameters or names}, not {list(types)}")
    if operation is Operation.SELECT:
        if get_origin(result) is not list or optional:
            raise StatementMismatch("it returns a list of rows")
        [result] = get_args(result)
    elif operation in (Operation.INSERT_UPDATE_DELETE, Operation.INSERT_UPDATE_DELETE_MANY):
        if result is not NoneType:
            raise StatementMismatch("it returns nothing")
    elif operation is Operation.SELECT_ONE and not is_dataclass(result):
        raise StatementMismatch("it returns a row, which is a dataclass")
    return Statement(
        query.sql, operation, query.__doc__, {name: types[name] for name in names}, result, optional, _make(result)
    )


def _without_none(annotation: Any) -> tuple[Any, bool]:
    """The type, and whether None is allowed beside it."""
    if annotation is None:
        return NoneType, False
    if isinstance(annotation, UnionType) and NoneType in get_args(annotation):
        [rest] = [each for each in get_args(annotation) if each is not NoneType]
        return rest, True
    return annotation, False


def _make(result: Any) -> Callable[[Any], Any]:
    if not is_dataclass(result):
        return lambda record: record[0]
    # By name: a newer schema may have more columns than this release knows.
    names = [field.name for field in fields(result)]
    row: Any = result
    return lambda record: row(*[record[name] for name in names])


def _many(statement: Statement) -> Callable[..., Awaitable[Any]]:
    async def run(connection: Connection, **parameters: Any) -> list[Any]:
        records = await connection.fetch(statement.sql, *[parameters[name] for name in statement.parameters])
        return [statement.make(record) for record in records]

    return run


def _one(statement: Statement) -> Callable[..., Awaitable[Any]]:
    async def run(connection: Connection, **parameters: Any) -> Any:
        record = await connection.fetchrow(statement.sql, *[parameters[name] for name in statement.parameters])
        if record is None and not statement.optional:
            raise LookupError(f"no row: {statement.about}")
        return None if record is None else statement.make(record)

    return run


def _value(statement: Statement) -> Callable[..., Awaitable[Any]]:
    async def run(connection: Connection, **parameters: Any) -> Any:
        return await connection.fetchval(statement.sql, *[parameters[name] for name in statement.parameters])

    return run


def _nothing(statement: Statement) -> Callable[..., Awaitable[Any]]:
    async def run(connection: Connection, **parameters: Any) -> None:
        await connection.execute(statement.sql, *[parameters[name] for name in statement.parameters])

    return run


def _each(statement: Statement) -> Callable[..., Awaitable[Any]]:
    names = list(statement.parameters)

    async def run(connection: Connection, rows: Sequence[Any]) -> None:
        await connection.executemany(statement.sql, [[getattr(row, name) for name in names] for row in rows])

    return run


_RUN = {
    Operation.SELECT: _many,
    Operation.SELECT_ONE: _one,
    Operation.SELECT_VALUE: _value,
    Operation.INSERT_RETURNING: _value,
    Operation.INSERT_UPDATE_DELETE: _nothing,
    Operation.INSERT_UPDATE_DELETE_MANY: _each,
}
