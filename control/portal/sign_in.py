"""How customers sign in by the vendor's identity provider."""

from collections.abc import Sequence
from typing import Annotated, Final
from urllib.parse import urlencode

import structlog
from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from control.access.portal.admission import NotAdmitted, Reason, admit, organizations_of
from control.access.portal.identified import identified_by
from control.access.signin.attempt import own_path
from control.console.frame.page_route import PageRefused
from control.console.frame.rendering import page
from control.console.signin import cookies, round_trip
from control.console.signin.round_trip import Way
from control.http.context import Context, Ctx
from control.http.secrets import ClientAddress, TakesSecrets
from control.moments import moment
from control.portal.entry import come_in
from control.portal.route import PortalRoute
from control.portal.viewer import SIGN_IN, START
from quota.keys import ORG_PATTERN

router = APIRouter(prefix="/portal", include_in_schema=False, route_class=PortalRoute)
log = structlog.get_logger()

ATTEMPT_COOKIE: Final = "__Host-quotagate-portal-signin"
LEAVE: Final = "/portal/sign-in/go"
NAME: Final = "portal"  # of the way, in attempts and in the log
ReturnTo = Annotated[str | None, Query(alias="return")]
Organization = Annotated[str | None, Query(pattern=ORG_PATTERN)]


@router.get("/sign-in")
async def choose(ctx: Ctx, return_to: ReturnTo = None) -> Response:
    """The ways in: the vendor's identity provider, or the vendor's own pages."""
    title = None if ctx.portal_provider is None else _title(ctx)
    leave_at = f"{LEAVE}?{urlencode({'return': own_path(return_to, START)})}"
    return page("portal/sign-in.html", 401, brand=ctx.portal.settings.brand, title=title, leave_at=leave_at)


@router.get("/sign-in/go")
async def leave(ctx: Ctx, return_to: ReturnTo = None, org: Organization = None) -> Response:
    """To the provider, which sends the browser back to `arrive`. `org`: of several, the one to come into."""
    return await round_trip.leave(_way(ctx), return_to, org or "")


@router.get("/signed-in", dependencies=[TakesSecrets])
async def arrive(ctx: Ctx, request: Request, client: ClientAddress) -> Response:
    """Back from the provider, with a code or an error."""
    way = _way(ctx)
    try:
        answer = await _arrived(ctx, request, client, way)
    except PageRefused as e:
        actions = [{"href": SIGN_IN, "text": "Sign in again"}]
        if isinstance(e.__cause__, NotAdmitted):  # the provider would let the same person in again
            url = await way.provider.end_session_url(f"{ctx.portal_url}/portal/signed-out")
            actions += [{"href": url, "text": f"Sign out of {way.title}"}] if url else []
        answer = _refused(ctx, request, e, actions)
    cookies.forget(answer, ATTEMPT_COOKIE)
    return answer


async def _arrived(ctx: Context, request: Request, client: str, way: Way) -> Response:
    """Raises PageRefused, TooManyGuesses."""
    at = moment(ctx.clock())  # before the provider is asked: what is revoked meanwhile refuses the session
    attempt, claims = await round_trip.come_back(ctx, request, client, way)
    person = identified_by(claims, way.provider.settings)
    try:
        organizations = await organizations_of(ctx.db, person)
        if not attempt.organization and len(organizations) > 1:
            brand = ctx.portal.settings.brand
            return page("portal/choose.html", brand=brand, organizations=_choices(organizations, attempt.return_to))
        org = attempt.organization or organizations[0]
        if org not in organizations:
            raise NotAdmitted(Reason.NO_ORGANIZATION, person)
        customer = await admit(ctx.db, person, org, at)
    except NotAdmitted as e:
        log.warning("sign-in refused", provider=way.name, person=person.subject, reason=str(e))
        raise PageRefused(403, "You have no access", _why(e.reason, way.title)) from e
    return await come_in(ctx, request, customer, attempt.return_to)


def _choices(organizations: Sequence[str], return_to: str) -> list[tuple[str, str]]:
    """Organizations, and the addresses that lead into them."""
    return [(org, f"{LEAVE}?{urlencode({'org': org, 'return': return_to})}") for org in organizations]


def _why(reason: Reason, title: str) -> str:
    match reason:
        case Reason.NO_ORGANIZATION:
            return f"{title} names no organization of yours that there is here."
        case Reason.NO_USER:
            return f"{title} does not say who you are in a form that is known here."
        case Reason.NO_MEMBER:
            return "You are no member of this organization. One of its admins can make you one."
        case Reason.NO_ROLE:
            return f"{title} gives you no role in this organization."
        case Reason.REVOKED:
            return "Your access to this organization has ended. One of its admins can let you in again."


def _refused(ctx: Context, request: Request, e: PageRefused, actions: list[dict[str, str]]) -> Response:
    values = {"title": e.title, "detail": e.detail, "correlation_id": request.scope["correlation_id"]}
    answer = page("portal/message.html", e.status, brand=ctx.portal.settings.brand, actions=actions, **values)
    if e.retry_seconds is not None:
        answer.headers["Retry-After"] = str(e.retry_seconds)
    return answer


def _title(ctx: Context) -> str:
    settings = ctx.portal.settings
    return (settings.sign_in and settings.sign_in.label) or settings.brand.name


def _way(ctx: Context) -> Way:
    """Raises PageRefused."""
    if ctx.portal_provider is None:
        raise PageRefused(404, "There is no such page", "No identity provider is set up here.")
    return Way(ctx.portal_provider, NAME, _title(ctx), ATTEMPT_COOKIE, f"{ctx.portal_url}{START}", START)
