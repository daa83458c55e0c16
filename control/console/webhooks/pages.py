"""Messages that come in and go out: their payloads, why attempts failed, and another try for one or for many."""

from typing import Final, Literal
from uuid import UUID

from pydantic import ValidationError
from starlette.responses import Response

from control.access.permissions import Permission
from control.api.notifications import (
    get_notification,
    list_notifications,
    resend_given_up_notifications,
    resend_notification,
)
from control.api.people_mirror import get_mirror, list_mirror_looks, resync_mirror
from control.api.stripe_events import (
    EventState,
    ReplayBody,
    ReplayView,
    get_stripe_event,
    list_stripe_events,
    replay_stripe_events,
)
from control.console.frame.guards import Viewing
from control.console.frame.pages import Pages
from control.console.frame.rendering import redirect
from control.console.frame.sections import section, sections
from control.http.context import Ctx
from control.http.refusals import invalid_field

router = Pages("/console/webhooks")

LISTED: Final = 30  # a page stays below 100 KB
COUNTED: Final = 1000


@router.page("", permission=Permission.WEBHOOKS_READ, twin="/api/admin/webhooks")
async def show(ctx: Ctx, viewer: Viewing, state: EventState | Literal[""] = "", before: str | None = None) -> Response:
    """Events of Stripe."""
    found = await section(list_stripe_events(ctx, state or None, before, LISTED))
    return viewer.page("webhooks/stripe.html", found=found, state=state, before=before)


@router.page("/notifications", permission=Permission.NOTIFICATIONS_READ, twin="/v1/notifications")
async def show_notifications(
    ctx: Ctx,
    viewer: Viewing,
    state: Literal["pending", "delivered", "given_up", ""] = "",
    before: UUID | None = None,
) -> Response:
    """Notifications of the vendor's own system."""
    found = await section(list_notifications(ctx, state or None, before, LISTED))
    return viewer.page("webhooks/notifications.html", found=found, state=state, before=before)


@router.page(
    "/notifications/{notification}",
    permission=Permission.NOTIFICATIONS_READ,
    twin="/v1/notifications/{notification}",
)
async def show_notification(notification: UUID, ctx: Ctx, viewer: Viewing) -> Response:
    """One notification."""
    return viewer.page("webhooks/notification.html", notification=await get_notification(notification, ctx))


@router.page("/clerk", permission=Permission.WEBHOOKS_READ, twin="/v1/mirror/looks")
async def show_clerk(ctx: Ctx, viewer: Viewing) -> Response:
    """What waits to be looked at at Clerk."""
    found = await sections(mirror=get_mirror(ctx), looks=list_mirror_looks(ctx, LISTED))
    return viewer.page("webhooks/clerk.html", found=found)


@router.page("/replay", permission=Permission.WEBHOOKS_READ, twin="/api/admin/webhooks")
async def confirm_replay(ctx: Ctx, viewer: Viewing) -> Response:
    """Asks whether all that were given up are to be processed again, and says how many those are."""
    return viewer.page("webhooks/replay.html", found=await section(list_stripe_events(ctx, "dead", None, COUNTED)))


@router.action("/replay", permission=Permission.WEBHOOKS_WRITE)
async def replay(ctx: Ctx, viewer: Viewing) -> Response:
    """Processes the chosen events again, or all that were given up."""
    form = await viewer.request.form()
    chosen = [text for text in form.getlist("events") if isinstance(text, str)]
    try:
        body = ReplayBody(state="dead") if form.get("state") == "dead" else ReplayBody(events=chosen)
    except ValidationError as e:
        raise invalid_field("body.events", "an event that Stripe has made is named like evt_1abc") from e
    if not body.events and body.state is None:
        return redirect("/console/webhooks", "Nothing was chosen.")
    return redirect("/console/webhooks", _replayed(await replay_stripe_events(body, ctx, viewer.author)))


@router.action("/notifications/resend", permission=Permission.NOTIFICATIONS_WRITE)
async def resend_all(ctx: Ctx, viewer: Viewing) -> Response:
    """Sends all that were given up again."""
    resent = (await resend_given_up_notifications(ctx, viewer.author)).resent
    return redirect("/console/webhooks/notifications", f"Sent again: {resent}.")


@router.action("/notifications/{notification}/resend", permission=Permission.NOTIFICATIONS_WRITE)
async def resend(notification: UUID, ctx: Ctx, viewer: Viewing) -> Response:
    """Sends one again."""
    resent = (await resend_notification(notification, ctx, viewer.author)).resent
    said = "It is sent again, under the same id." if resent else "It is on its way already."
    return redirect(f"/console/webhooks/notifications/{notification}", said)


@router.action("/clerk/resync", permission=Permission.WEBHOOKS_WRITE)
async def resync(ctx: Ctx) -> Response:
    """Has everything looked at that may be different at Clerk."""
    await resync_mirror(ctx)
    return redirect("/console/webhooks/clerk", "Everything is looked at again.")


@router.page("/{event}", permission=Permission.WEBHOOKS_READ, twin="/api/admin/webhooks/{event}")
async def show_event(event: str, ctx: Ctx, viewer: Viewing) -> Response:
    """One event of Stripe."""
    return viewer.page("webhooks/event.html", event=await get_stripe_event(event, ctx))


def _replayed(view: ReplayView) -> str:
    said = f"Processed again: {view.replayed}."
    return said + (f" Not known to anybody: {', '.join(view.unknown[:5])}." if view.unknown else "")
