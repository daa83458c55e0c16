"""The types of `schema.sql`."""

from control.sql.statements import Connection, Statements

sql = Statements("schema")


@sql
async def lock_migration(connection: Connection, *, key: int) -> None: ...


@sql
async def has_version(connection: Connection) -> bool: ...


@sql
async def create_version(connection: Connection) -> None: ...


@sql
async def set_version(connection: Connection, *, version: str) -> None: ...
