"""`/v1/service-tokens`: tokens of machines, made and revoked."""

from datetime import datetime
from typing import Annotated, Self
from uuid import UUID

from fastapi import APIRouter, Query
from pydantic import Field, model_validator

from control.access.people import service_tokens
from control.access.people.service_tokens import BOOTSTRAP, LastAdministrator, NameTaken, NewToken
from control.access.permissions import AdminRole, OrganizationRole, Permission
from control.documents import Body, BoundedMoment, View
from control.http.context import Ctx
from control.http.guards import Allowed, CallAuthor, Identified
from control.http.refusals import DOCUMENTED, Refusal, invalid_field
from control.organizations import store
from control.sql.service_tokens import ServiceToken
from quota import problems
from quota.keys import ORG_PATTERN

router = APIRouter(prefix="/v1/service-tokens", tags=["service tokens"], responses=DOCUMENTED)


class ServiceTokenBody(Body):
    """Either `role` or `permissions`: nothing that the caller does not have itself."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
    """What the journal calls it. Of each name one token can be in use."""
    org: Annotated[str, Field(pattern=ORG_PATTERN)] | None = None
    """The only organization that it reaches; null: all of them."""
    role: AdminRole | OrganizationRole | None = None
    """viewer, support, billing or admin; of an organization's token: member, admin or owner."""
    permissions: Annotated[list[Permission], Field(min_length=1, max_length=100)] | None = None
    expires_at: BoundedMoment | None = None
    """null: it works until it is revoked."""

    @model_validator(mode="after")
    def _says_what_it_may(self) -> Self:
        if (self.role is None) is (self.permissions is None):
            raise ValueError("either role or permissions must be given")
        roles = AdminRole if self.org is None else OrganizationRole
        if self.role is not None and self.role.value not in {each.value for each in roles}:
            raise ValueError(f"the role must be one of {', '.join(each.value for each in roles)}")
        return self


class ServiceTokenView(View):
    id: UUID
    name: str
    org: str | None
    role: str | None
    permissions: list[str] | None
    created_at: datetime
    created_by: str
    expires_at: datetime | None
    last_used_at: datetime | None
    """To the minute."""
    revoked_at: datetime | None


class NewServiceTokenView(ServiceTokenView):
    token: str
    """It is shown here and nowhere else: only its SHA-256 is stored."""


class ServiceTokenPage(View):
    service_tokens: list[ServiceTokenView]
    """The newest first, with those that have expired or were revoked."""
    next: UUID | None
    """`before` of the next page; null on the last."""


@router.post("", status_code=201, dependencies=[Allowed(Permission.ACCESS_ADMIN)])
async def create_service_token(
    body: ServiceTokenBody, ctx: Ctx, author: CallAuthor, caller: Identified
) -> NewServiceTokenView:
    """Creates a service token, and shows it once."""
    if body.name == BOOTSTRAP:
        raise invalid_field("body.name", "is the name of the token in the settings")
    if body.expires_at is not None and body.expires_at.timestamp() <= ctx.host_clock():
        raise invalid_field("body.expires_at", "must be in the future")
    role = None if body.role is None else body.role.value
    permissions = None if body.permissions is None else sorted({each.value for each in body.permissions})
    if not service_tokens.permissions_of(body.org, role, permissions) <= caller.permissions:
        raise Refusal(problems.FORBIDDEN, "A token cannot have a permission that its creator does not have.")
    if body.org is not None:
        await store.find(ctx.db, body.org)
    wanted = NewToken(body.name, body.org, role, permissions, body.expires_at)
    try:
        stored, token = await service_tokens.create(ctx.db, wanted, ctx.host_clock(), author)
    except NameTaken as e:
        raise Refusal(problems.CONFLICT, f"A service token with the name {e} is in use.") from e
    return NewServiceTokenView(**_view(stored).model_dump(), token=token)


@router.get("", dependencies=[Allowed(Permission.ACCESS_ADMIN)])
async def list_service_tokens(
    ctx: Ctx, before: UUID | None = None, limit: Annotated[int, Query(ge=1, le=500)] = 100
) -> ServiceTokenPage:
    """Lists service tokens, without what they are."""
    page = await service_tokens.page(ctx.db, before, limit)
    return ServiceTokenPage(service_tokens=[_view(row) for row in page.rows], next=page.next)


@router.delete("/{service_token}", status_code=204, dependencies=[Allowed(Permission.ACCESS_ADMIN)])
async def revoke_service_token(service_token: UUID, ctx: Ctx, author: CallAuthor) -> None:
    """Revokes a service token: from the answer on it opens nothing. Of `bootstrap`, the value in the settings is
    refused, also after a restart. The last token that can make others stays (409)."""
    try:
        known = await service_tokens.revoke(ctx.db, service_token, ctx.host_clock(), author)
    except LastAdministrator as e:
        detail = f"Without this token nobody could make another one: first create one with {_ADMIN}."
        raise Refusal(problems.CONFLICT, detail) from e
    if not known:
        raise Refusal(problems.NOT_FOUND, f"No service token has the id {service_token}.")


_ADMIN = f"the permission {Permission.ACCESS_ADMIN.value}"


def _view(row: ServiceToken) -> ServiceTokenView:
    return ServiceTokenView.model_validate(row)
