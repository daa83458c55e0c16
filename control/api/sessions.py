"""`/v1/sessions`: who is signed in to the console; and one-time links into it."""

from datetime import datetime
from typing import Annotated
from urllib.parse import urlencode
from uuid import UUID

from fastapi import APIRouter, Query
from pydantic import Field

from control.access.permissions import ADMIN_PERMISSIONS, AdminRole, Permission
from control.documents import Body, View
from control.http.context import Ctx
from control.http.guards import Allowed, CallAuthor, Identified
from control.http.refusals import DOCUMENTED, Refusal
from quota import problems

router = APIRouter(prefix="/v1", tags=["sessions"], responses=DOCUMENTED)

PERSON_CHARACTERS_MAX = 512
PersonName = Annotated[str, Query(min_length=1, max_length=PERSON_CHARACTERS_MAX, pattern=r"^[^\x00-\x1f\x7f]+$")]


class SessionView(View):
    id: UUID
    person: str
    """`provider:subject`, or `link:` and who made the one-time link."""
    email: str | None
    """As the provider has verified it."""
    name: str | None
    address: str
    """From where the person signed in."""
    browser: str
    """What the browser says of itself."""
    created_at: datetime
    used_at: datetime
    """To the minute."""
    expires_at: datetime
    """It ends then in any case; earlier where it is not used."""


class SessionList(View):
    sessions: list[SessionView]
    """Those that were used last first; at most 500."""


class EndedView(View):
    ended: int
    """How many sessions there were."""


class LinkBody(Body):
    role: AdminRole = AdminRole.ADMIN
    """Of whoever uses the link."""


class LinkView(View):
    url: Annotated[str, Field(examples=["https://control.example.com/console/link?code=…"])]
    """Signs in once. It is shown only here."""
    expires_at: datetime


@router.get("/sessions", dependencies=[Allowed(Permission.SESSIONS_READ)])
async def list_sessions(ctx: Ctx, person: PersonName | None = None) -> SessionList:
    """Lists the sessions of people who are signed in, of one person or of all. A person is named as in the list, or by
    e-mail address."""
    rows = await ctx.signin.sessions.live(person)
    return SessionList(sessions=[SessionView.model_validate(row) for row in rows])


@router.delete("/sessions/{session}", status_code=204, dependencies=[Allowed(Permission.SESSIONS_WRITE)])
async def end_session(session: UUID, ctx: Ctx, author: CallAuthor) -> None:
    """Ends a session. From the answer on each process refuses it."""
    if not await ctx.signin.sessions.end(session, author):
        raise Refusal(problems.NOT_FOUND, "No such session is open.")


@router.delete("/sessions", dependencies=[Allowed(Permission.SESSIONS_WRITE)])
async def end_sessions(ctx: Ctx, author: CallAuthor, person: PersonName) -> EndedView:
    """Ends all sessions of a person, who is named as in the list, or by e-mail address."""
    return EndedView(ended=await ctx.signin.sessions.end_all(person, author))


@router.post("/console-links", status_code=201, dependencies=[Allowed(Permission.ACCESS_ADMIN)])
async def create_console_link(body: LinkBody, ctx: Ctx, author: CallAuthor, caller: Identified) -> LinkView:
    """Makes a link that signs in to the console once, within 15 minutes: for the first person, and where no identity
    provider is set up. What it opens ends when whoever made it could make none any more."""
    if not ADMIN_PERMISSIONS[body.role] <= caller.permissions:
        raise Refusal(problems.FORBIDDEN, "Nobody can give more than they have.")
    link = await ctx.signin.links.create(body.role, author, caller.maker)
    url = f"{ctx.signin.settings.public_url}/console/link?{urlencode({'code': link.code})}"
    return LinkView(url=url, expires_at=link.expires_at)
