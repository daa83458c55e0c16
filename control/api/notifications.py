"""`/v1/notifications`: notifications of the vendor's own system: delivered, pending or given up."""

import json
from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any, Final, Literal
from uuid import UUID

from fastapi import APIRouter, Query

from control import journal, sql
from control.access.permissions import Permission
from control.cursors import read_page
from control.documents import View
from control.http.context import Ctx
from control.http.guards import Allowed, CallAuthor
from control.http.refusals import DOCUMENTED, Refusal
from control.journal import Change
from control.moments import moment
from quota import problems

router = APIRouter(prefix="/v1/notifications", tags=["notifications"], responses=DOCUMENTED)

ATTEMPTS_SHOWN: Final = 100

StateName = Literal["pending", "delivered", "given_up"]


class NotificationView(View):
    id: UUID
    """Its webhook-id."""
    type: str
    org: str | None
    body: dict[str, Any]
    """The body that is sent."""
    state: StateName
    attempts: int
    created_at: datetime
    next_attempt_at: datetime | None
    """When a pending notification is tried next."""
    ended_at: datetime | None
    """When the notification was delivered or given up. It is deleted a month later."""
    last_error: str | None
    """Why the last attempt failed."""


class FailedDeliveryView(View):
    at: datetime
    attempt: int
    """Counted anew when somebody asks for another try."""
    error: str


class WholeNotificationView(NotificationView):
    failed_attempts: list[FailedDeliveryView]
    """The newest first, at most a hundred."""


class NotificationPage(View):
    notifications: list[NotificationView]
    """The newest first."""
    next: UUID | None
    """`before` of the next page; null on the last."""


class ResentNotificationsView(View):
    resent: int
    """Notifications that are tried again."""


@router.get("", dependencies=[Allowed(Permission.NOTIFICATIONS_READ)])
async def list_notifications(
    ctx: Ctx,
    state: StateName | None = None,
    before: UUID | None = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
) -> NotificationPage:
    """Lists notifications: all of them, or those in the given `state`."""
    async with ctx.db.planned_anew() as connection:
        page = await read_page(
            "before",
            before,
            limit,
            exists=lambda notification: sql.notifications.is_notification(connection, id=notification),
            read=lambda notification, rows_max: sql.notifications.page(
                connection, state=state, before=notification, limit_rows=rows_max
            ),
            cursor_of=lambda notification: notification.id,
        )
    views = [NotificationView.model_validate(asdict(row) | {"body": json.loads(row.body)}) for row in page.rows]
    return NotificationPage(notifications=views, next=page.next)


@router.get("/{notification}", dependencies=[Allowed(Permission.NOTIFICATIONS_READ)])
async def get_notification(notification: UUID, ctx: Ctx) -> WholeNotificationView:
    """Returns one notification, and why attempts to deliver it failed."""
    async with ctx.db.snapshot() as connection:
        row = await sql.notifications.find(connection, id=notification)
        if row is None:
            raise Refusal(problems.NOT_FOUND, "There is no such notification.")
        failed = await sql.notifications.failed_attempts(connection, id=notification, limit_rows=ATTEMPTS_SHOWN)
    attempts = [FailedDeliveryView.model_validate(each) for each in failed]
    return WholeNotificationView.model_validate(
        asdict(row) | {"body": json.loads(row.body), "failed_attempts": attempts}
    )


@router.post("/{notification}/resend", dependencies=[Allowed(Permission.NOTIFICATIONS_WRITE)])
async def resend_notification(notification: UUID, ctx: Ctx, author: CallAuthor) -> ResentNotificationsView:
    """Sends a notification again, under the same id, that was delivered or given up. One that is on its way stays."""
    now = ctx.clock()
    async with ctx.db.transaction() as connection:
        if await sql.notifications.resend(connection, id=notification, at=moment(now)) is not None:
            change = Change("notifications.resent", None, None, {"count": 1, "notification": str(notification)})
            await journal.record(connection, author, now, [change])
            return ResentNotificationsView(resent=1)
        if not await sql.notifications.is_notification(connection, id=notification):
            raise Refusal(problems.NOT_FOUND, "There is no such notification.")
    return ResentNotificationsView(resent=0)


@router.post("/resend", dependencies=[Allowed(Permission.NOTIFICATIONS_WRITE)])
async def resend_given_up_notifications(ctx: Ctx, author: CallAuthor) -> ResentNotificationsView:
    """Sends notifications again that were given up, under the same ids. Use it when the endpoint works again."""
    now = ctx.clock()
    async with ctx.db.transaction() as connection:
        resent = await sql.notifications.resend_given_up(connection, at=moment(now))
        if resent:
            change = Change("notifications.resent", None, None, {"count": resent})
            await journal.record(connection, author, now, [change])
    return ResentNotificationsView(resent=resent)
