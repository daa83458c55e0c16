"""The audit journal: who changed what, from what, to what. Written in the transaction of the change itself."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from control.db import Connection, statements
from control.ids import uuid7
from control.moments import moment

Content = Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class Author:
    """Who changes something, and in answer to which request."""

    actor: str
    correlation_id: str


@dataclass(frozen=True, slots=True)
class Change:
    action: str
    """What happened to what: `entitlement.set`, `grant.revoked`."""
    org: str | None
    """None: it concerns all, such as a plan."""
    before: Content
    after: Content


async def record(connection: Connection, author: Author, now: float, changes: Sequence[Change]) -> None:
    at = moment(now)
    await statements("journal").record(
        connection,
        [
            {
                "id": uuid7(),
                "at": at,
                "actor": author.actor,
                "action": change.action,
                "org": change.org,
                "before": change.before,
                "after": change.after,
                "correlation_id": author.correlation_id,
            }
            for change in changes
        ],
    )


async def of_organization(connection: Connection, org: str, before: UUID | None, limit: int) -> list[dict[str, Any]]:
    """The newest first; `before` is the id of the last entry of the previous page."""
    rows = statements("journal").of_organization(connection, org=org, before=before, limit_rows=limit)
    return [dict(row) async for row in rows]
