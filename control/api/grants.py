"""`/v1/organizations/{org}/grants`: extra units with an expiry."""

from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Header, Query, Response
from pydantic import Field

from control.access.permissions import Permission
from control.api.entitlements import install
from control.documents import Body, Moment, View, Whole
from control.entitlements import grants
from control.entitlements.grants import IdempotencyConflict, NewGrant, TooManyGrants
from control.entitlements.plans import Meter
from control.http.context import Ctx
from control.http.guards import Allowed, Alone, CallAuthor, OfOrganization, Org
from control.http.refusals import DOCUMENTED, Refusal, invalid_field
from control.moments import moment
from control.sql.grants import Grant, UsedGrant
from quota import problems
from quota.model import UNITS_MAX

router = APIRouter(prefix="/v1/organizations/{org}/grants", tags=["grants"], responses=DOCUMENTED)


class GrantBody(Body):
    meter: Meter
    units: Annotated[int, Whole, Field(strict=True, ge=1, le=UNITS_MAX)]
    """They are used after the allowance, those that expire first before the others."""
    expires_at: Moment
    """The units that are left at this time are void. Fractions of a second are ignored."""
    reason: Annotated[str, Field(min_length=1, max_length=500, pattern=r"^[^\x00]+$")]
    """For the journal."""


class GrantView(View):
    id: UUID
    meter: str
    units: int
    used: int
    """What is written to the database. It is a moment behind what the gateways enforce."""
    remaining: int
    expires_at: datetime
    reason: str
    created_at: datetime
    revoked_at: datetime | None
    state: Literal["live", "expired", "revoked"]


class GrantPage(View):
    grants: list[GrantView]
    """The newest first."""
    next: UUID | None
    """`before` of the next page; null on the last."""


@router.post(
    "",
    status_code=201,
    dependencies=[Allowed(Permission.GRANTS_WRITE), Alone("grant")],
    responses={200: {"model": GrantView, "description": "The key was used already: the grant that it created."}},
)
async def create_grant(
    org: Org,
    body: GrantBody,
    ctx: Ctx,
    author: CallAuthor,
    response: Response,
    idempotency_key: Annotated[
        str | None,
        Header(
            pattern=r"^[!-~]{1,255}$",
            description="A second request with the same key creates nothing, and gets the same grant.",
        ),
    ] = None,
) -> GrantView:
    """Creates a grant: extra units for an organization."""
    now = ctx.clock()
    if body.expires_at.timestamp() <= now:
        raise invalid_field("body.expires_at", "must be in the future")
    new = NewGrant(body.meter, body.units, body.expires_at.replace(microsecond=0), body.reason)
    try:
        grant, created = await grants.create(ctx.db, org, new, idempotency_key, now, author)
    except IdempotencyConflict as e:
        raise Refusal(problems.CONFLICT, "The Idempotency-Key was used for another grant.") from e
    except TooManyGrants as e:
        raise Refusal(problems.CONFLICT, str(e)) from e
    if not created:
        response.status_code = 200
    await install(ctx, org)
    return _view(grant, 0, now)


@router.get("", dependencies=[OfOrganization(Permission.GRANTS_READ)])
async def list_grants(
    org: Org, ctx: Ctx, before: UUID | None = None, limit: Annotated[int, Query(ge=1, le=500)] = 100
) -> GrantPage:
    """Lists the grants of an organization, with those that have expired or were revoked."""
    page = await grants.page(ctx.db, org, before, limit)
    return GrantPage(grants=[_view(grant, grant.used, ctx.clock()) for grant in page.rows], next=page.next)


@router.delete("/{grant}", status_code=204, dependencies=[Allowed(Permission.GRANTS_WRITE)])
async def revoke_grant(org: Org, grant: UUID, ctx: Ctx, author: CallAuthor) -> None:
    """Revokes a grant: its remaining units are void. Usage that it paid for stays paid."""
    if not await grants.revoke(ctx.db, org, grant, ctx.clock(), author):
        raise Refusal(problems.NOT_FOUND, "The organization has no such grant.")
    await install(ctx, org)


def _view(grant: Grant | UsedGrant, used: int, now: float) -> GrantView:
    if grant.revoked_at is not None:
        state: Literal["live", "expired", "revoked"] = "revoked"
    else:
        state = "live" if grant.expires_at > moment(now) else "expired"
    remaining = max(0, grant.units - used) if state == "live" else 0
    return GrantView.model_validate(asdict(grant) | {"used": used, "remaining": remaining, "state": state})
