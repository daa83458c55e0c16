"""`POST /api/webhooks/clerk`: an event is verified, filed and answered. What it names is looked at afterwards.

`/v1/mirror`: what waits to be looked at, and a look at everything.
"""

import json
from datetime import datetime
from typing import Annotated, Any

import structlog
from fastapi import APIRouter, Query, Request, Response

from control import sql
from control.access.people.mirror.objects import EVERYTHING, subject_of
from control.access.people.mirror.parts import Mirror
from control.access.permissions import Permission
from control.documents import View
from control.http.context import Context, Ctx
from control.http.guards import Allowed
from control.http.refusals import DOCUMENTED, Refusal
from control.webhook_signature import SignatureRefused, check
from quota import problems

log = structlog.get_logger()
webhooks = APIRouter(prefix="/api/webhooks", tags=["people"], responses=DOCUMENTED)
router = APIRouter(prefix="/v1/mirror", tags=["people"], responses=DOCUMENTED)

TYPE_CHARACTERS_MAX = 255


class MirrorView(View):
    waiting: int
    """Users and organizations that wait to be looked at."""


@webhooks.post("/clerk", include_in_schema=False)  # who calls it is proved by a signature, not by a token
async def receive(request: Request, ctx: Ctx) -> Response:
    """Where Clerk sends its events. 200 once an event is filed, 400 for what Clerk did not sign."""
    mirror = ctx.mirror
    if mirror is None or not mirror.settings.webhook_keys:
        raise Refusal(problems.NOT_FOUND, "No secret for Clerk's webhooks is set.")
    body = await request.body()
    try:
        id_ = check(mirror.settings.webhook_keys, request.scope["headers"], body, ctx.host_clock())
        event = _event(body)
    except SignatureRefused as e:
        log.warning("refused a webhook of Clerk's", reason=str(e))
        raise Refusal(problems.BAD_REQUEST, f"The webhook is refused: {e}.") from e
    await mirror.inbox.file(id_, event["type"], subject_of(event))
    return Response(status_code=200)


def _event(body: bytes) -> dict[str, Any]:
    try:
        event = json.loads(body)
    except (ValueError, RecursionError) as e:
        raise SignatureRefused("the body is not JSON") from e
    type_ = event.get("type") if isinstance(event, dict) else None
    if not isinstance(type_, str) or not type_.isprintable() or not 0 < len(type_) <= TYPE_CHARACTERS_MAX:
        raise SignatureRefused("the body is not an event")
    found: dict[str, Any] = event
    return found


class LookView(View):
    kind: str
    """Whether it is a user, an organization, or everything."""
    subject: str
    """Its id at Clerk."""
    attempts: int
    next_attempt_at: datetime
    last_error: str | None


class LookList(View):
    looks: list[LookView]


@router.get("", dependencies=[Allowed(Permission.WEBHOOKS_READ)])
async def get_mirror(ctx: Ctx) -> MirrorView:
    """Returns how far the mirror of Clerk is behind."""
    return MirrorView(waiting=await _mirror_of(ctx).inbox.waiting())


@router.get("/looks", dependencies=[Allowed(Permission.WEBHOOKS_READ)])
async def list_mirror_looks(ctx: Ctx, limit: Annotated[int, Query(ge=1, le=500)] = 100) -> LookList:
    """Lists what waits to be looked at, the most tried first, and why the last look failed."""
    _mirror_of(ctx)
    async with ctx.db.connection() as connection:
        rows = await sql.mirror.waiting_looks(connection, limit_rows=limit)
    return LookList(looks=[LookView.model_validate(row) for row in rows])


@router.post("/resync", status_code=202, dependencies=[Allowed(Permission.WEBHOOKS_WRITE)])
async def resync_mirror(ctx: Ctx) -> MirrorView:
    """Has everything looked at that may be different at Clerk."""
    mirror = _mirror_of(ctx)
    await mirror.inbox.ask(EVERYTHING)
    return MirrorView(waiting=await mirror.inbox.waiting())


def _mirror_of(ctx: Context) -> Mirror:
    """Raises Refusal where people are not mirrored."""
    if ctx.mirror is None:
        raise Refusal(problems.NOT_FOUND, "Nothing is mirrored: no key of Clerk's is set.")
    return ctx.mirror
