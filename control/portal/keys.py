"""The organization's API keys: made, rolled, switched off and revoked."""

from typing import Annotated, Final

from fastapi import Path, Query
from pydantic import Field
from starlette.responses import Response

from control.access.permissions import Permission
from control.api.key_views import KeyBody, Name, NewKeyView, RollBody
from control.api.keys import create_key, list_keys, revoke_key, roll_key
from control.console.frame.forms import blank, read_form
from control.console.frame.rendering import redirect
from control.console.frame.sections import section
from control.documents import Body
from control.http.context import Ctx
from control.http.refusals import Refusal
from control.portal.pages import Viewing, portal_pages
from quota.access import KEY_ID_PATTERN

router = portal_pages("/keys")

SHOWN: Final = 50
KeyId = Annotated[str, Path(pattern=KEY_ID_PATTERN)]


class KeyForm(Body):
    name: Annotated[Name, Field(max_length=100)]


@router.page("", permission=Permission.KEYS_READ, twin="/v1/organizations/{org}/keys")
async def show(
    ctx: Ctx, viewer: Viewing, before: Annotated[str | None, Query(pattern=KEY_ID_PATTERN)] = None
) -> Response:
    """All keys, the newest first."""
    found = await section(list_keys(viewer.org, ctx, before=before, limit=SHOWN))
    return viewer.page("portal/keys.html", found=found, before=before, form=blank())


@router.action("", permission=Permission.KEYS_WRITE)
async def create(ctx: Ctx, viewer: Viewing) -> Response:
    """Makes a key, and shows it this once."""
    form = await read_form(viewer.request, KeyForm)
    if form.value is not None:
        try:
            made = await create_key(viewer.org, KeyBody(name=form.value.name), ctx, viewer.author)
        except Refusal as e:
            form = form.with_error(None, str(e.detail))
        else:
            return _shown(viewer, made)
    found = await section(list_keys(viewer.org, ctx, limit=SHOWN))
    return viewer.page("portal/keys.html", 422, found=found, before=None, form=form)


@router.action("/{key}/roll", permission=Permission.KEYS_WRITE)
async def roll(key: KeyId, ctx: Ctx, viewer: Viewing) -> Response:
    """Replaces a key. The old one works for another day."""
    rolled = await roll_key(viewer.org, key, ctx, viewer.author, RollBody())
    return _shown(viewer, rolled.new)


@router.action("/{key}/revoke", permission=Permission.KEYS_WRITE)
async def revoke(key: KeyId, ctx: Ctx, viewer: Viewing) -> Response:
    """Revokes a key for good."""
    await revoke_key(viewer.org, key, ctx, viewer.author)
    return redirect("/portal/keys", done="The key is revoked: it is refused from now on.")


def _shown(viewer: Viewing, made: NewKeyView) -> Response:
    return viewer.page("portal/new-key.html", 201, made=made)
