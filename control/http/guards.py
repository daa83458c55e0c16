"""Who may call an endpoint, as FastAPI dependencies. Each endpoint names the permission that it needs:

    @router.get("/v1/incidents", dependencies=[Allowed(Permission.INCIDENTS_READ)])           # about all organizations
    @router.get("/v1/organizations/{org}/keys", dependencies=[OfOrganization(Permission.KEYS_READ)])  # about this one
    @router.get("/v1/plans", dependencies=[Holding(Permission.PLANS_READ)])                   # about none

A test refuses an endpoint that names none, unless it is in `PUBLIC`. The OpenAPI document shows it (`x-permission`).

They are coroutines since FastAPI would run a function in a thread, which takes longer than all of them together.

401: no token that is believed. 503: no key could be read that would verify it. 403: a believed token that does not
reach this far, whether what it asks for exists or not.
"""

import hmac
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Annotated, Any, ClassVar, Final

from fastapi import APIRouter, Depends, Path, Query, Request, params
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from fastapi.security import HTTPBearer

from control.access.callers import Caller, KeysUnavailable, Kind
from control.access.permissions import Permission
from control.actions.sums import needs_second_person
from control.http.context import Context, Ctx
from control.http.queries import refuse_unknown_queries
from control.http.refusals import Refusal, invalid_field
from control.http.signed_in import carries_session, session_caller
from control.journal import Author
from control.organizations import store
from control.settings.approvals import Approved
from identity.bearer import bearer_token
from identity.keysets.keyset import RETRY_SECONDS
from identity.refusals import Reason, TokenRefused
from quota import problems
from quota.keys import ORG_PATTERN


class _Bearer(HTTPBearer):
    """The token as the gateway finds it; FastAPI's own reading takes the first of two fields.

    None: there is none, and the request carries a session."""

    async def __call__(self, request: Request) -> bytes | None:  # type: ignore[override]  # FastAPI asks for its result only
        fields = [value for name, value in request.scope["headers"] if name == b"authorization"]
        try:
            if len(fields) > 1:
                raise TokenRefused(Reason.INVALID_REQUEST)
            if not fields and carries_session(request):
                return None
            return bearer_token(fields[0] if fields else None)
        except TokenRefused as e:
            raise refusal_of(e) from e


def refusal_of(refused: TokenRefused) -> Refusal:
    challenge = {"WWW-Authenticate": refused.challenge.decode()}
    problem = problems.FORBIDDEN if refused.forbidden else problems.TOKEN_REFUSED
    return Refusal(problem, refused.detail, challenge, reason=refused.reason)


bearer = _Bearer(
    scheme_name="bearer",
    description="The admin token; or an organization's token, which reads its own data.",
    auto_error=False,
)

Org = Annotated[str, Path(pattern=ORG_PATTERN, description="The organization's id, as in its tokens.")]


async def identify_caller(ctx: Ctx, token: Annotated[bytes | None, Depends(bearer)], request: Request) -> Caller:
    if token is None:
        identified = await session_caller(ctx, request)
    else:
        identified = await _identify_token(ctx, token, request)
    refuse_unknown_queries(request)  # here, since strangers are told nothing else than that they are
    return identified


async def _identify_token(ctx: Context, token: bytes, request: Request) -> Caller:
    client = request.scope["client_address"]
    try:
        return await ctx.callers.identify(token, client)
    except TokenRefused as e:
        raise refusal_of(e) from e
    except KeysUnavailable as e:
        # Whoever is told 401 throws a good token away.
        detail = "The keys that verify tokens could not be read. Try again."
        raise Refusal(problems.KEYS_UNAVAILABLE, detail, {"Retry-After": str(RETRY_SECONDS)}) from e


_Identified = Annotated[Caller, Depends(identify_caller)]


async def caller_with_role(ctx: Ctx, caller: _Identified) -> Caller:
    return await ctx.callers.with_role(caller)


Identified = Annotated[Caller, Depends(caller_with_role)]
"""Whoever calls, with all its permissions. The endpoint asks for one, too: this only says who it is."""


def require(caller: Caller, permission: Permission) -> Caller:
    """Raises Refusal."""
    if permission not in caller.permissions:
        raise Refusal(problems.FORBIDDEN, f"This needs the permission {permission.value}; the token lacks it.")
    return caller


def require_said(caller: Caller, roles: Iterable[str], scopes: Iterable[str]) -> None:
    """Raises Refusal where an organization's token, or a session of its portal, would pass on a role or a scope that it
    does not have itself: what routes ask for (`require`), the organization's issuer gives."""
    if caller.kind in (Kind.ORGANIZATION_TOKEN, Kind.PORTAL_SESSION):
        lacking = sorted({*roles} - caller.roles) + sorted({*scopes} - caller.scopes)
        if lacking:
            raise Refusal(problems.FORBIDDEN, f"The token lacks this itself: {', '.join(lacking)}.")


class Naming:
    """A dependency that names the permission which an endpoint or a page needs."""

    __slots__ = ()
    reach: ClassVar[str]
    permission: Permission | None


@dataclass(frozen=True, slots=True)
class _Everywhere(Naming):
    reach: ClassVar = "vendor"
    permission: Permission

    async def __call__(self, caller: _Identified) -> Caller:
        if caller.org is not None:
            raise Refusal(problems.FORBIDDEN, "Only an admin may do this.")
        return require(caller, self.permission)


@dataclass(frozen=True, slots=True)
class _OfOrganization(Naming):
    reach: ClassVar = "organization"
    permission: Permission

    async def __call__(self, org: Org, caller: _Identified, ctx: Ctx) -> Caller:
        refuse_others(caller, org)
        return require(await ctx.callers.with_role(caller, self.permission), self.permission)


@dataclass(frozen=True, slots=True)
class _Holding(Naming):
    reach: ClassVar = "caller"
    permission: Permission

    async def __call__(self, caller: _Identified, ctx: Ctx) -> Caller:
        return require(await ctx.callers.with_role(caller, self.permission), self.permission)


@dataclass(frozen=True, slots=True)
class _Documented(Naming):
    reach: ClassVar = "vendor"
    permission: Permission

    async def __call__(self, request: Request, ctx: Ctx) -> None:
        if not ctx.expose.docs:
            await _Everywhere(self.permission)(await identify_caller(ctx, await bearer(request), request))


@dataclass(frozen=True, slots=True)
class _Scraper(Naming):
    reach: ClassVar = "vendor"
    permission: Permission

    async def __call__(self, request: Request, ctx: Ctx) -> None:
        if ctx.expose.metrics:
            return
        token = await bearer(request)
        metrics_token = ctx.expose.metrics_token.get_secret_value().encode()
        if token is None or not metrics_token or not hmac.compare_digest(token, metrics_token):
            await _Everywhere(self.permission)(await identify_caller(ctx, token, request))


class Allowed(params.Depends):
    """Admins and machines of the vendor, who reach all organizations."""

    def __init__(self, permission: Permission) -> None:
        super().__init__(_Everywhere(permission))


class OfOrganization(params.Depends):
    """The same, and the people and machines of the organization that the path names (`{org}`)."""

    def __init__(self, permission: Permission) -> None:
        super().__init__(_OfOrganization(permission))


class Holding(params.Depends):
    """Whoever has the permission, in whatever organization: the endpoint itself is about none, or has a `Subject`."""

    def __init__(self, permission: Permission) -> None:
        super().__init__(_Holding(permission))


class Alone(params.Depends):
    """Refuses what the settings say that one person must not do alone: it is asked for as an action, which another
    person approves. It goes behind the permission."""

    def __init__(self, *actions: Approved) -> None:
        async def check(ctx: Ctx) -> None:
            for action in actions:
                refuse_alone(ctx, action)

        super().__init__(check)


def refuse_alone(ctx: Context, action: Approved) -> None:
    """Raises Refusal where this needs a second person."""
    if ctx.approvals.need(action, None):
        raise second_person_needed(action)


def second_person_needed(action: Approved) -> Refusal:
    detail = f"This needs a second person: ask for it by POST /v1/organizations/{{org}}/actions/{action}."
    return Refusal(problems.FORBIDDEN, detail, reason="second_person")


async def refuse_money_alone(
    ctx: Context, action: Approved, amount_minor: int | None, org: str, author: Author
) -> None:
    """The same, with what was given lately."""
    async with ctx.db.connection() as connection:
        needed = await needs_second_person(
            connection, ctx.approvals, action, amount_minor, org, author.actor, ctx.clock()
        )
    if needed:
        raise second_person_needed(action)


def refuse_others(caller: Caller, org: str) -> None:
    """Raises Refusal where the caller speaks for another organization."""
    if caller.org not in (None, org):
        raise Refusal(problems.FORBIDDEN, "The token belongs to another organization.")


async def require_known_organization(org: Org, ctx: Ctx, caller: _Identified) -> None:
    refuse_others(caller, org)
    await store.find(ctx.db, org)


async def subject(
    caller: _Identified,
    org: Annotated[
        str | None,
        Query(
            pattern=ORG_PATTERN,
            description="The organization; required with the admin token. An organization's token names its own.",
        ),
    ] = None,
) -> str:
    if caller.org is not None:
        refuse_others(caller, org or caller.org)
        return caller.org
    if org is None:
        raise invalid_field("query.org", "is required with the admin token, which belongs to no organization")
    return org


async def author(request: Request, caller: _Identified) -> Author:
    return Author(caller.actor, request.scope["correlation_id"])


Known = Depends(require_known_organization)
"""404 for an unknown organization, before anything else of the request is checked. It goes behind the permission: a
caller without rights must not learn which organizations exist."""
Subject = Annotated[str, Depends(subject)]
"""The organization that the call is about: the token's own, or the one that an admin names. It goes with `Holding`."""
Documented = Depends(_Documented(Permission.API_READ))
"""Whoever may read what the API is: everybody or an admin, by the settings."""
Scraper = Depends(_Scraper(Permission.METRICS_READ))
"""The same for metrics; they may have a token of their own."""
CallAuthor = Annotated[Author, Depends(author)]
"""The caller, as the journal's author."""

PUBLIC: Final = frozenset(
    {
        ("GET", "/-/health"),
        ("GET", "/-/ready"),
        ("GET", "/.well-known/jwks.json"),
        ("GET", "/.well-known/oauth-authorization-server"),
        ("GET", "/.well-known/openid-configuration"),
        ("POST", "/api/webhooks/clerk"),
        ("POST", "/api/webhooks/stripe"),
        ("POST", "/v1/activations"),
        ("POST", "/v1/activations/refresh"),
        ("POST", "/v1/activations/release"),
        ("POST", "/v1/keys/leaks"),
    }
)
"""Endpoints that need no permission: probes, and what proves its sender by a signature. Pages name theirs in
control/console."""


def permissions_of(dependant: Dependant) -> frozenset[tuple[Permission, str]]:
    """What an endpoint names, and who may have it: only the `vendor`, also the `organization` of the path, or each
    `caller`."""
    naming, own = dependant.call, set[tuple[Permission, str]]()
    if isinstance(naming, Naming) and naming.permission is not None:
        own.add((naming.permission, naming.reach))
    return frozenset(own).union(*(permissions_of(each) for each in dependant.dependencies))


def document_permissions(routers: Iterable[APIRouter], document: Mapping[str, Any]) -> None:
    """Adds `x-permission` and `x-reach` to each operation of the OpenAPI document that needs a permission."""
    for route in chain.from_iterable(router.routes for router in routers):
        if isinstance(route, APIRoute) and route.include_in_schema:
            for permission, reach in permissions_of(route.dependant):
                for method in route.methods or ():
                    operation = document["paths"][route.path][method.lower()]
                    operation |= {"x-permission": permission.value, "x-reach": reach}
