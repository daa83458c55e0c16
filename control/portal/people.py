"""Who belongs to the organization, and as what."""

import re
from typing import Annotated, Final

from fastapi import Path, Query
from pydantic import AfterValidator
from starlette.responses import Response

from control.access.permissions import OrganizationRole, Permission
from control.api.people import USER_PATTERN, MemberBody, list_members, put_member, remove_member
from control.console.frame.forms import blank, read_form
from control.console.frame.rendering import redirect
from control.console.frame.sections import section
from control.documents import Body
from control.http.context import Ctx
from control.portal.pages import Viewing, portal_pages

router = portal_pages("/people")

SHOWN: Final = 50
ROLES: Final = [(role.value, role.value.capitalize()) for role in OrganizationRole]
UserId = Annotated[str, Path(pattern=USER_PATTERN)]


def _user_id(text: str) -> str:
    if re.fullmatch(USER_PATTERN, text) is None:
        raise ValueError("must be letters, digits and _ . : @ | -, up to 128 of them")
    return text


class MemberForm(Body):
    user: Annotated[str, AfterValidator(_user_id)]
    role: OrganizationRole


@router.page("", permission=Permission.MEMBERS_READ, twin="/v1/organizations/{org}/members")
async def show(ctx: Ctx, viewer: Viewing, after: Annotated[str | None, Query(pattern=USER_PATTERN)] = None) -> Response:
    """All members."""
    found = await section(list_members(viewer.org, ctx, viewer.caller, after=after, limit=SHOWN))
    return viewer.page("portal/people.html", found=found, after=after, form=blank(), role_options=ROLES)


@router.action("", permission=Permission.MEMBERS_WRITE)
async def put(ctx: Ctx, viewer: Viewing) -> Response:
    """Makes a person a member, or gives a member another role."""
    form = await read_form(viewer.request, MemberForm)
    if form.value is None:
        found = await section(list_members(viewer.org, ctx, viewer.caller, limit=SHOWN))
        return viewer.page("portal/people.html", 422, found=found, after=None, form=form, role_options=ROLES)
    body = MemberBody(role=form.value.role)
    await put_member(viewer.org, form.value.user, body, ctx, viewer.author, viewer.caller, Response())
    return redirect("/portal/people", done=f"{form.value.user} is {_with_article(form.value.role)} now.")


@router.action("/{user}/remove", permission=Permission.MEMBERS_WRITE)
async def remove(user: UserId, ctx: Ctx, viewer: Viewing) -> Response:
    """Ends a membership, with the person's tokens, keys and sessions."""
    await remove_member(viewer.org, user, ctx, viewer.author, viewer.caller)
    return redirect("/portal/people", done=f"{user} is no member any more.")


def _with_article(role: OrganizationRole) -> str:
    return f"{'a' if role is OrganizationRole.MEMBER else 'an'} {role.value}"
