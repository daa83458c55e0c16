"""`/v1/organizations/{org}/sites`: sites that codes have activated."""

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Path, Query
from pydantic import Field

from control.access.activation.rules import SiteEvent, SiteState
from control.access.activation.store import Call
from control.access.permissions import Permission
from control.documents import Body, View
from control.http.context import Context, Ctx
from control.http.guards import CallAuthor, Known, OfOrganization, Org
from control.http.refusals import DOCUMENTED, Refusal
from control.journal import Author
from control.sql.activation import Site
from quota import problems

router = APIRouter(prefix="/v1/organizations/{org}/sites", tags=["activation"], responses=DOCUMENTED)

SiteId = Annotated[str, Path(max_length=100, description="The site's id: claim `site` of its tokens.")]
READ = [OfOrganization(Permission.SITES_READ), Known]
WRITE = [OfOrganization(Permission.SITES_WRITE), Known]


class SiteBody(Body):
    name: Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")] | None
    """What people call it; null: only by its domain."""


class SiteView(View):
    id: str
    name: str | None
    domain: str
    former_domain: str | None
    """Where it was before it moved."""
    product: str
    kind: Literal["production", "staging"]
    """production: it has a seat of its code. staging: it has none, since its domain does not count or it is a copy."""
    clone_of: str | None
    """The site whose tokens were found here, too: this one is a copy."""
    state: Literal["active", "released", "revoked"]
    ended_by: str | None
    """release: by itself or an admin. replace: another one has its place. revoke: by an admin. reuse: an earlier
    refresh token of it was shown."""
    code: UUID
    """The activation code that it has its seat of."""
    activated_at: datetime
    seen_at: datetime
    """When it was activated or refreshed the last time."""
    ended_at: datetime | None


class SitePage(View):
    sites: list[SiteView]
    """The newest first."""
    next: str | None
    """`before` of the next page; null on the last."""


@router.get("", dependencies=READ)
async def list_sites(
    org: Org,
    ctx: Ctx,
    state: Literal["active", "released", "revoked"] | None = None,
    before: Annotated[str | None, Query(max_length=100)] = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
) -> SitePage:
    """Lists the sites of an organization."""
    page = await ctx.activation.administration.sites(org, SiteState(state) if state else None, before, limit)
    return SitePage(sites=[SiteView.model_validate(site) for site in page.rows], next=page.next)


@router.put("/{site}", dependencies=WRITE)
async def put_site(org: Org, site: SiteId, body: SiteBody, ctx: Ctx, author: CallAuthor) -> SiteView:
    """Names a site."""
    return _found(await ctx.activation.administration.rename_site(org, site, body.name, Call(ctx.clock(), author)))


@router.post("/{site}/release", dependencies=WRITE)
async def release_site(org: Org, site: SiteId, ctx: Ctx, author: CallAuthor) -> SiteView:
    """Releases a site: its seat is free, and its tokens are refused from the answer on."""
    return await _end(ctx, org, site, SiteEvent.RELEASE, author)


@router.post("/{site}/revoke", dependencies=WRITE)
async def revoke_site(org: Org, site: SiteId, ctx: Ctx, author: CallAuthor) -> SiteView:
    """Revokes a site: its tokens are refused from the answer on. Another code can activate it again, as another
    site."""
    return await _end(ctx, org, site, SiteEvent.REVOKE, author)


async def _end(ctx: Context, org: str, site: str, event: SiteEvent, author: Author) -> SiteView:
    return _found(await ctx.activation.administration.end_site(org, site, event, Call(ctx.clock(), author)))


def _found(site: Site | None) -> SiteView:
    if site is None:
        raise Refusal(problems.NOT_FOUND, "The organization has no such site.")
    return SiteView.model_validate(site)
