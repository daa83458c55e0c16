"""The organization's activated sites."""

from typing import Annotated, Final

from fastapi import Path, Query
from starlette.responses import Response

from control.access.permissions import Permission
from control.api.sites import list_sites, release_site
from control.console.frame.rendering import redirect
from control.console.frame.sections import section
from control.http.context import Ctx
from control.portal.pages import Viewing, portal_pages

router = portal_pages("/sites")

SHOWN: Final = 50


@router.page("", permission=Permission.SITES_READ, twin="/v1/organizations/{org}/sites")
async def show(ctx: Ctx, viewer: Viewing, before: Annotated[str | None, Query(max_length=100)] = None) -> Response:
    """All sites, the newest first."""
    found = await section(list_sites(viewer.org, ctx, before=before, limit=SHOWN))
    return viewer.page("portal/sites.html", found=found, before=before)


@router.action("/{site}/release", permission=Permission.SITES_WRITE)
async def release(site: Annotated[str, Path(max_length=100)], ctx: Ctx, viewer: Viewing) -> Response:
    """Releases a site."""
    await release_site(viewer.org, site, ctx, viewer.author)
    return redirect("/portal/sites", done="The site is released: its seat is free.")
