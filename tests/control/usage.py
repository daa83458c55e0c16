"""What an organization has used, in Redis and as it is written."""

from uuid import uuid4

from control.http.context import Context
from quota.model import Admitted
from tests import charging


async def spend(context: Context, org: str, times: int = 1, units: int = 1) -> list[str]:
    """Charges so many requests; their ids."""
    ids = [uuid4().hex for _ in range(times)]
    for request_id in ids:
        assert isinstance(await charging.take(context.ledger, org, request_id, {"api_calls": units}), Admitted)
    return ids


async def used(context: Context, org: str) -> int:
    """As Redis counts it, of all meters; -1 where Redis does not know the organization."""
    standing = await context.ledger.peek(org)
    return -1 if standing is None else sum(counter.used for counter in standing.usage)


async def write_all(context: Context) -> None:
    await context.writer.resume()
    while not await context.writer.write():
        pass


async def written(context: Context, org: str) -> list[str]:
    """The ids of its requests that have a row, when the writer is through."""
    await write_all(context)
    async with context.db.connection() as connection:
        rows = await connection.fetch("SELECT request_id FROM usage_event WHERE org = $1 ORDER BY request_id", org)
    return [row["request_id"] for row in rows]


async def counted(context: Context, org: str) -> int:
    """As Postgres counts it, of all meters."""
    async with context.db.connection() as connection:
        return int(await connection.fetchval("SELECT sum(used)::bigint FROM usage_counter WHERE org = $1", org))
