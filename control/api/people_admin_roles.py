"""`/v1/admin-roles`: who of the vendor may sign in as what."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Path, Response

from control.access.people import admin_roles
from control.access.people.admin_roles import SubjectKind
from control.access.permissions import ADMIN_PERMISSIONS, AdminRole, Permission
from control.documents import Body, View
from control.http.context import Ctx
from control.http.guards import Allowed, CallAuthor, Identified
from control.http.refusals import DOCUMENTED, Refusal
from quota import problems

router = APIRouter(prefix="/v1/admin-roles", tags=["people"], responses=DOCUMENTED)

Subject = Annotated[
    str,
    Path(
        pattern=r"^[!-.0-~]{1,255}$",
        description="The `sub` that the identity provider says, or an e-mail address that it has verified.",
    ),
]


class AdminRoleBody(Body):
    role: AdminRole


class AdminRoleView(View):
    kind: SubjectKind
    subject: str
    role: AdminRole
    created_at: datetime
    created_by: str


class AdminRoleList(View):
    admin_roles: list[AdminRoleView]
    """All of them, by kind and subject."""


@router.put(
    "/{kind}/{subject}",
    dependencies=[Allowed(Permission.ACCESS_ADMIN)],
    responses={201: {"model": AdminRoleView, "description": "The person has an admin role from now on."}},
)
async def put_admin_role(
    kind: SubjectKind,
    subject: Subject,
    body: AdminRoleBody,
    ctx: Ctx,
    author: CallAuthor,
    caller: Identified,
    response: Response,
) -> AdminRoleView:
    """Gives whoever signs in so an admin role (201), or another one (200)."""
    if not ADMIN_PERMISSIONS[body.role] <= caller.permissions:
        raise Refusal(problems.FORBIDDEN, "Nobody gives a permission that he does not have.")
    stored, created = await admin_roles.assign(ctx.db, kind, subject, body.role, ctx.clock(), author)
    response.status_code = 201 if created else 200
    return AdminRoleView.model_validate(stored)


@router.get("", dependencies=[Allowed(Permission.ACCESS_ADMIN)])
async def list_admin_roles(ctx: Ctx) -> AdminRoleList:
    """Lists who has which admin role."""
    return AdminRoleList(admin_roles=[AdminRoleView.model_validate(row) for row in await admin_roles.all_of(ctx.db)])


@router.delete("/{kind}/{subject}", status_code=204, dependencies=[Allowed(Permission.ACCESS_ADMIN)])
async def withdraw_admin_role(kind: SubjectKind, subject: Subject, ctx: Ctx, author: CallAuthor) -> None:
    """Withdraws an admin role: it counts no more with the next request."""
    if not await admin_roles.withdraw(ctx.db, kind, subject, ctx.clock(), author):
        raise Refusal(problems.NOT_FOUND, "Nobody has an admin role by this subject.")
