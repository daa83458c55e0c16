"""The types of `health.sql`."""

from decimal import Decimal

from control.sql.statements import Connection, Statements

sql = Statements("health")


@sql
async def ping(connection: Connection) -> int: ...


@sql
async def schema_version(connection: Connection) -> str | None: ...


@sql
async def time(connection: Connection) -> Decimal: ...


@sql
async def plan_anew(connection: Connection, *, most_ms: str) -> str: ...


@sql
async def follow_trace(connection: Connection, *, traceparent: str) -> None: ...
