"""`/v1/notifications`: what the vendor's own system was told, is about to be told, or could not be told."""

import json
from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Query

from control import journal, sql
from control.cursors import CursorUnknown
from control.documents import View
from control.http.context import Ctx
from control.http.guards import Admin, AdminAuthor
from control.http.refusals import DOCUMENTED
from control.journal import Change
from control.moments import moment

router = APIRouter(prefix="/v1/notifications", tags=["notifications"], responses=DOCUMENTED)

StateName = Literal["pending", "delivered", "given_up"]


class NotificationView(View):
    id: UUID
    """Its webhook-id."""
    type: str
    org: str | None
    body: dict[str, Any]
    """As it is sent."""
    state: StateName
    attempts: int
    created_at: datetime
    next_attempt_at: datetime | None
    """Of one that is pending."""
    ended_at: datetime | None
    """When it was delivered or given up; a month later it is dropped."""
    last_error: str | None
    """Why the last attempt failed."""


class NotificationPage(View):
    notifications: list[NotificationView]
    """The newest first."""
    next: UUID | None
    """`before` of the next page; null on the last."""


class ResentNotificationsView(View):
    resent: int
    """Notifications that are tried again."""


@router.get("", dependencies=[Admin])
async def list_notifications(
    ctx: Ctx,
    state: StateName | None = None,
    before: UUID | None = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
) -> NotificationPage:
    """A page of notifications; `state` leaves out the others."""
    async with ctx.db.connection() as connection:
        if before is not None and not await sql.notifications.is_notification(connection, id=before):
            raise CursorUnknown("before")
        rows = await sql.notifications.page(connection, state=state, before=before, limit_rows=limit)
        found = [NotificationView.model_validate(asdict(row) | {"body": json.loads(row.body)}) for row in rows]
    return NotificationPage(notifications=found, next=found[-1].id if len(found) == limit else None)


@router.post("/resend")
async def resend_given_up(ctx: Ctx, author: AdminAuthor) -> ResentNotificationsView:
    """Tries again what was given up, under the same ids: for when the endpoint is there again."""
    now = ctx.clock()
    async with ctx.db.transaction() as connection:
        resent = await sql.notifications.resend_given_up(connection, at=moment(now))
        if resent:
            change = Change("notifications.resent", None, None, {"count": resent})
            await journal.record(connection, author, now, [change])
    return ResentNotificationsView(resent=resent)
