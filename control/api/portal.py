"""`/v1/portal-sessions`: an organization's people come in to the portal by a link that the vendor's server asks for."""

from datetime import datetime
from typing import Annotated
from urllib.parse import urlencode
from uuid import UUID

from fastapi import APIRouter, Query
from pydantic import Field

from control.access.people import members
from control.access.permissions import OrganizationRole, Permission
from control.api.billing import Url
from control.api.people import USER_PATTERN
from control.documents import Body, View
from control.http.context import Ctx
from control.http.guards import Allowed, CallAuthor, Identified
from control.http.refusals import DOCUMENTED, Refusal
from control.organizations import store as organizations
from quota import problems
from quota.keys import ORG_PATTERN

router = APIRouter(prefix="/v1/portal-sessions", tags=["portal"], responses=DOCUMENTED)


class PortalLinkBody(Body):
    """Who is to come in. The vendor's server has signed this person in, and is believed."""

    org: Annotated[str, Field(pattern=ORG_PATTERN)]
    user: Annotated[str, Field(pattern=USER_PATTERN)] | None = None
    """The user's id, as in the user claim of tokens. null: nobody of the organization's users."""
    role: OrganizationRole = OrganizationRole.MEMBER
    """What the person may do there. The role of a user that is known here as a member counts instead."""
    return_url: Url | None = None
    """The vendor's page that the portal leads back to."""


class PortalLinkView(View):
    url: Annotated[str, Field(examples=["https://control.example.com/portal/link?code=…"])]
    """Opens the portal once: send the browser there. It is shown only here."""
    role: OrganizationRole
    """What the person may do there now."""
    expires_at: datetime


class PortalSessionView(View):
    id: UUID
    org: str
    user: str | None = Field(validation_alias="user_id")
    role: OrganizationRole
    """Of the user's membership, where it is known here."""
    opened_by: str
    """Who made the link, or the person as the identity provider names it."""
    address: str
    browser: str
    """What the browser says of itself."""
    created_at: datetime
    used_at: datetime
    """To the minute."""
    expires_at: datetime
    """It ends then in any case; earlier where it is not used."""


class PortalSessionList(View):
    sessions: list[PortalSessionView]
    """Those that were used last first; at most 500."""


@router.post("", status_code=201, dependencies=[Allowed(Permission.PORTAL_WRITE)])
async def create_portal_session(
    body: PortalLinkBody, ctx: Ctx, author: CallAuthor, caller: Identified
) -> PortalLinkView:
    """Makes a link that opens the portal of an organization once, within 5 minutes by default.

    The session that begins there ends with itself, with the organization, with a revocation of its user, and when
    whoever made the link could make none any more: a service token is revoked, a person's role withdrawn."""
    await organizations.find(ctx.db, body.org)
    known = None if body.user is None else await members.role_of(ctx.db, body.org, body.user)
    role = known or body.role
    link = await ctx.portal.create_link(body.org, body.user, role, body.return_url, author, caller.maker)
    url = f"{ctx.portal_url}/portal/link?{urlencode({'code': link.code})}"
    return PortalLinkView(url=url, role=role, expires_at=link.expires_at)


@router.get("", dependencies=[Allowed(Permission.SESSIONS_READ)])
async def list_portal_sessions(
    ctx: Ctx,
    org: Annotated[str, Query(pattern=ORG_PATTERN)],
    user: Annotated[str | None, Query(pattern=USER_PATTERN)] = None,
) -> PortalSessionList:
    """Lists the people of an organization who are in its portal."""
    await organizations.find_any(ctx.db, org)
    rows = await ctx.portal.live(org, user)
    return PortalSessionList(sessions=[PortalSessionView.model_validate(row) for row in rows])


@router.delete("/{session}", status_code=204, dependencies=[Allowed(Permission.SESSIONS_WRITE)])
async def end_portal_session(session: UUID, ctx: Ctx, author: CallAuthor) -> None:
    """Ends a session. From the answer on each process refuses it."""
    if not await ctx.portal.end(session, author):
        raise Refusal(problems.NOT_FOUND, "No such session is open.")
