"""`…/activation-codes`: made, listed, revoked; by the vendor, and by an organization for its own sites."""

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Query
from pydantic import Field

from control.access.activation.administration import MadeCode, NewCode, TooManySites
from control.access.activation.store import Call
from control.access.permissions import Permission
from control.documents import Body, View, Whole
from control.http.context import Context, Ctx
from control.http.guards import Allowed, CallAuthor, Identified, Known, OfOrganization, Org, require_said
from control.http.refusals import DOCUMENTED, Refusal, invalid_field
from control.ids import uuid7
from control.journal import Author
from control.moments import moment
from control.settings.activation import DomainPattern
from control.sql.activation import UsedCode
from quota import problems

router = APIRouter(prefix="/v1", tags=["activation"], responses=DOCUMENTED)

Scope = Annotated[str, Field(pattern=r"^[!#-\[\]-~]{1,128}$")]  # a scope-token: RFC 6749 section 3.3
Printable = r"^[^\x00-\x1f\x7f]+$"


class CodeBody(Body):
    sites: Annotated[int, Whole, Field(strict=True, ge=1, le=1_000_000)] = 1
    """How many sites it activates. Staging sites, and a site that is activated again, take none of them."""
    valid_seconds: Annotated[int, Whole, Field(strict=True, ge=1, le=31_536_000)] | None = None
    """null: as the settings say. An expired code activates nothing; its sites go on."""
    product: Annotated[str, Field(max_length=100, pattern=r"^[!-~]*$")] = ""
    """Whoever activates must name this product. Empty: any, and a site stands for the organization alone."""
    scopes: Annotated[list[Scope], Field(max_length=50)] = Field(default_factory=list)
    """Of the access tokens of its sites."""
    uncounted_domains: Annotated[list[DomainPattern], Field(max_length=100)] = Field(default_factory=list)
    """Further domains that take no seat: `*.example.com` is all below it, `label.*` a first label."""
    access_seconds: Annotated[int, Whole, Field(strict=True, ge=1, le=86_400)] | None = None
    """The life of its sites' access tokens; null: as the settings say."""
    note: Annotated[str, Field(min_length=1, max_length=500, pattern=Printable)] | None = None


class PlanCodeBody(CodeBody):
    plan: Annotated[str, Field(min_length=1, max_length=100, pattern=Printable)]
    """The first activation makes an organization with this plan."""


class CodeView(View):
    id: UUID
    handle: str
    """The code's first characters, by which people call it."""
    organization: str
    plan: str | None
    """It makes the organization, with this plan; null: the organization is there without it."""
    product: str
    sites: int
    sites_taken: int
    scopes: list[str]
    uncounted_domains: list[str]
    access_seconds: int | None
    note: str | None
    created_by: str
    created_at: datetime
    expires_at: datetime
    state: Literal["valid", "used_up", "expired", "revoked"]
    refusals: int
    """How often it was tried in vain."""
    refused_for: str | None
    """Why, the last time."""
    refused_at: datetime | None


class CreatedCode(CodeView):
    code: str
    """It is shown this once."""


class CodePage(View):
    activation_codes: list[CodeView]
    """The newest first."""
    next: UUID | None
    """`before` of the next page; null on the last."""


Before = Annotated[UUID | None, Query()]
Limit = Annotated[int, Query(ge=1, le=500)]
Code = UUID


@router.post(
    "/organizations/{org}/activation-codes",
    status_code=201,
    dependencies=[OfOrganization(Permission.ACTIVATION_WRITE), Known],
)
async def create_activation_code(
    org: Org, body: CodeBody, ctx: Ctx, caller: Identified, author: CallAuthor
) -> CreatedCode:
    """Makes an activation code for sites of the organization. Its own people make codes for so many sites in all as
    the settings allow, with scopes that their own token has."""
    require_said(caller, (), body.scopes)
    sites_max = None if caller.org is None else ctx.activation.settings.self_service_sites_max
    try:
        made = await ctx.activation.administration.create_code(
            org, _new(ctx, body), Call(ctx.clock(), author), sites_max=sites_max
        )
    except TooManySites as e:
        raise Refusal(problems.CONFLICT, str(e)) from e
    return _created(made, ctx.clock())


@router.post("/activation-codes", status_code=201, dependencies=[Allowed(Permission.ACTIVATION_WRITE)])
async def create_plan_activation_code(body: PlanCodeBody, ctx: Ctx, author: CallAuthor) -> CreatedCode:
    """Makes an activation code that brings a plan: its first activation creates the organization."""
    made = await ctx.activation.administration.create_code(
        f"org_{uuid7().hex}", _new(ctx, body), Call(ctx.clock(), author), plan=body.plan
    )
    return _created(made, ctx.clock())


@router.get("/organizations/{org}/activation-codes", dependencies=[OfOrganization(Permission.ACTIVATION_READ), Known])
async def list_activation_codes(org: Org, ctx: Ctx, before: Before = None, limit: Limit = 100) -> CodePage:
    """Lists the activation codes of an organization."""
    return await _page(ctx, org, before, limit)


@router.get("/activation-codes", dependencies=[Allowed(Permission.ACTIVATION_READ)])
async def list_all_activation_codes(ctx: Ctx, before: Before = None, limit: Limit = 100) -> CodePage:
    """Lists the activation codes of all organizations, those that do not exist yet included."""
    return await _page(ctx, None, before, limit)


@router.delete(
    "/organizations/{org}/activation-codes/{code}",
    status_code=204,
    dependencies=[OfOrganization(Permission.ACTIVATION_WRITE), Known],
)
async def revoke_activation_code(org: Org, code: Code, ctx: Ctx, author: CallAuthor) -> None:
    """Revokes an activation code: it activates nothing more. Its sites go on."""
    await _revoke(ctx, org, code, author)


@router.delete("/activation-codes/{code}", status_code=204, dependencies=[Allowed(Permission.ACTIVATION_WRITE)])
async def revoke_any_activation_code(code: Code, ctx: Ctx, author: CallAuthor) -> None:
    """Revokes an activation code, of whatever organization."""
    await _revoke(ctx, None, code, author)


def _new(ctx: Context, body: CodeBody) -> NewCode:
    settings = ctx.activation.settings
    valid_seconds = settings.code_seconds if body.valid_seconds is None else body.valid_seconds
    if valid_seconds > settings.code_seconds_max:
        raise invalid_field("body.valid_seconds", f"must be at most {settings.code_seconds_max}")
    return NewCode(
        sites=body.sites,
        valid_seconds=valid_seconds,
        product=body.product,
        scopes=body.scopes,
        uncounted_domains=body.uncounted_domains,
        access_seconds=body.access_seconds,
        note=body.note,
    )


async def _page(ctx: Context, org: str | None, before: UUID | None, limit: int) -> CodePage:
    page = await ctx.activation.administration.codes(org, before, limit)
    return CodePage(activation_codes=[_view(code, ctx.clock()) for code in page.rows], next=page.next)


async def _revoke(ctx: Context, org: str | None, code: UUID, author: Author) -> None:
    if not await ctx.activation.administration.revoke_code(org, code, Call(ctx.clock(), author)):
        raise Refusal(problems.NOT_FOUND, "There is no such activation code.")


def _created(made: MadeCode, now: float) -> CreatedCode:
    return CreatedCode(code=made.text, **_view(made.code, now).model_dump())


def _view(code: UsedCode, now: float) -> CodeView:
    state: Literal["valid", "used_up", "expired", "revoked"] = "used_up" if code.taken >= code.sites else "valid"
    if code.revoked_at is not None:
        state = "revoked"
    elif code.expires_at <= moment(now):
        state = "expired"
    return CodeView(
        id=code.id,
        handle=code.handle,
        organization=code.org,
        plan=code.plan,
        product=code.product,
        sites=code.sites,
        sites_taken=code.taken,
        scopes=list(code.scopes),
        uncounted_domains=list(code.uncounted_domains),
        access_seconds=code.access_seconds,
        note=code.note,
        created_by=code.created_by,
        created_at=code.created_at,
        expires_at=code.expires_at,
        state=state,
        refusals=code.refusals,
        refused_for=code.refused_for,
        refused_at=code.refused_at,
    )
