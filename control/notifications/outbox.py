"""Notifications that wait to be delivered, written in the transaction of what they tell."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from control import sql
from control.db import Connection
from control.ids import uuid7
from control.moments import moment, rfc3339


@dataclass(frozen=True, slots=True)
class Notification:
    type: str
    """What happened: `usage.threshold_reached`."""
    org: str | None
    data: Mapping[str, Any]
    id: UUID | None = None
    """An id of its own makes a notification that is added twice be sent once; None: it gets one here."""


async def add(connection: Connection, now: float, notifications: Sequence[Notification]) -> None:
    """Each gets its id and its body here, once and for all: what is sent again is the same."""
    if not notifications:
        return
    await sql.notifications.add(
        connection,
        ids=[n.id or uuid7() for n in notifications],
        types=[n.type for n in notifications],
        orgs=[n.org for n in notifications],
        bodies=[_body(n, now) for n in notifications],
        at=moment(now),
    )


def _body(notification: Notification, now: float) -> str:
    content = {"type": notification.type, "timestamp": rfc3339(now), "data": notification.data}
    return json.dumps(content, separators=(",", ":"))
