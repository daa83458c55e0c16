"""`/v1/users` and `/v1/organizations/{org}/members`: people, and what they are in which organization."""

from datetime import datetime
from typing import Annotated, Final

from fastapi import APIRouter, Path, Query, Response
from pydantic import Field

from control.access.callers import Caller
from control.access.people import members as store
from control.access.people import users as user_store
from control.access.permissions import OrganizationRole, Permission
from control.access.publishing import announce, enforce
from control.documents import Body, View
from control.http.context import Ctx
from control.http.guards import Allowed, CallAuthor, Identified, Known, OfOrganization, Org
from control.http.refusals import DOCUMENTED
from control.sql.people import Membership

USER_PATTERN: Final = r"^[A-Za-z0-9_.:@|-]{1,128}$"

users = APIRouter(prefix="/v1/users", tags=["people"], responses=DOCUMENTED)
members = APIRouter(prefix="/v1/organizations/{org}/members", tags=["people"], responses=DOCUMENTED)

UserId = Annotated[str, Path(pattern=USER_PATTERN, description="The user's id, as in the user claim of tokens.")]
After = Annotated[str | None, Query(pattern=USER_PATTERN)]
Limit = Annotated[int, Query(ge=1, le=500)]
Email = Annotated[str, Field(max_length=512, pattern=r"^[^@\s\x00]+@[^@\s\x00]+$")]
Name = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")]


class UserBody(Body):
    email: Email | None = None
    name: Name | None = None


class UserView(View):
    id: str
    email: str | None
    name: str | None
    mirrored: bool
    """It follows the identity provider, and is changed there."""
    created_at: datetime


class MembershipView(View):
    org: str
    role: OrganizationRole
    created_at: datetime


class UserWithMembershipsView(UserView):
    memberships: list[MembershipView]
    """In the order of the organizations' ids."""


class UserPage(View):
    users: list[UserView]
    """In the order of their ids."""
    next: str | None
    """`after` of the next page; null on the last."""


class MemberBody(Body):
    role: OrganizationRole


class MemberView(View):
    user: str
    role: OrganizationRole
    created_at: datetime
    email: str | None
    """Only an admin of the vendor is shown address and name: of a person, an organization knows the id."""
    name: str | None


class MemberPage(View):
    members: list[MemberView]
    """In the order of the users' ids."""
    next: str | None
    """`after` of the next page; null on the last."""


@users.put(
    "/{user}",
    dependencies=[Allowed(Permission.USERS_WRITE)],
    responses={201: {"model": UserView, "description": "The user was created."}},
)
async def put_user(user: UserId, body: UserBody, ctx: Ctx, author: CallAuthor, response: Response) -> UserView:
    """Creates a user (201), or sets address and name (200): what is left out is removed."""
    stored, created = await user_store.put(ctx.db, user, body.email, body.name, ctx.clock(), author)
    response.status_code = 201 if created else 200
    return UserView.model_validate(stored)


@users.get("", dependencies=[Allowed(Permission.USERS_READ)])
async def list_users(ctx: Ctx, after: After = None, limit: Limit = 100) -> UserPage:
    """Lists users."""
    page = await user_store.page(ctx.db, after, limit)
    return UserPage(users=[UserView.model_validate(row) for row in page.rows], next=page.next)


@users.get("/{user}", dependencies=[Allowed(Permission.USERS_READ)])
async def get_user(user: UserId, ctx: Ctx) -> UserWithMembershipsView:
    """Returns a user, and the organizations that it is a member of."""
    stored, memberships = await user_store.find(ctx.db, user)
    views = [MembershipView.model_validate(row) for row in memberships]
    return UserWithMembershipsView(**UserView.model_validate(stored).model_dump(), memberships=views)


@users.delete("/{user}", status_code=204, dependencies=[Allowed(Permission.USERS_WRITE)])
async def delete_user(user: UserId, ctx: Ctx, author: CallAuthor) -> None:
    """Deletes a user: address, name and memberships. From the answer on, its tokens and its keys are refused in every
    organization that knew it. The last owner of an organization stays (409)."""
    for org in await user_store.delete(ctx.db, user, ctx.clock(), author):
        await enforce(ctx.publisher, org)


@members.get("", dependencies=[OfOrganization(Permission.MEMBERS_READ), Known])
async def list_members(org: Org, ctx: Ctx, caller: Identified, after: After = None, limit: Limit = 100) -> MemberPage:
    """Lists the members of an organization."""
    page = await store.page(ctx.db, org, after, limit)
    return MemberPage(members=[_view(row, caller) for row in page.rows], next=page.next)


@members.put(
    "/{user}",
    dependencies=[OfOrganization(Permission.MEMBERS_WRITE), Known],
    responses={201: {"model": MemberView, "description": "The person is a member from now on."}},
)
async def put_member(
    org: Org, user: UserId, body: MemberBody, ctx: Ctx, author: CallAuthor, caller: Identified, response: Response
) -> MemberView:
    """Makes a person a member (201), or gives a member another role (200). Only an owner makes and unmakes owners; the
    last one stays (409)."""
    may_own = Permission.OWNERS_WRITE in caller.permissions
    made = await store.set_role(ctx.db, org, user, body.role, ctx.clock(), author, may_own=may_own)
    if made.publish:
        await announce(ctx.publisher, org)
    response.status_code = 201 if made.created else 200
    return _view(made.member, caller)


@members.delete("/{user}", status_code=204, dependencies=[OfOrganization(Permission.MEMBERS_WRITE), Known])
async def remove_member(org: Org, user: UserId, ctx: Ctx, author: CallAuthor, caller: Identified) -> None:
    """Removes a member. From the answer on, the person's tokens of this organization are refused, until the person is a
    member again, and the person's keys are revoked. The last owner stays (409)."""
    may_own = Permission.OWNERS_WRITE in caller.permissions
    await store.end_membership(ctx.db, org, user, ctx.clock(), author, may_own=may_own)
    await enforce(ctx.publisher, org)


def _view(row: Membership, caller: Caller) -> MemberView:
    known = caller.org is None
    return MemberView(
        user=row.user_id,
        role=OrganizationRole(row.role),
        created_at=row.created_at,
        email=row.email if known else None,
        name=row.name if known else None,
    )
