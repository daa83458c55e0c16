"""`/v1/activations`: what a site calls, by its code and its refresh tokens (docs/activation.md)."""

from datetime import datetime
from typing import Annotated, Literal, NoReturn

from fastapi import APIRouter, Depends, Request
from pydantic import AfterValidator, Field

from control.access.activation import codes
from control.access.activation.domains import DomainInvalid
from control.access.activation.requests import (
    ActivateAgain,
    ActivationRefused,
    ActivationRequest,
    Again,
    Granted,
    RefreshRequest,
)
from control.access.activation.rules import SiteKind
from control.access.activation.site_keys import read_key
from control.access.guesses import Guess
from control.access.issuing.issuer import Issuer
from control.documents import Body, View
from control.entitlements import stored_state
from control.http.context import Context, Ctx
from control.http.issuing import TokenIssuer
from control.http.queries import refuse_unknown_queries
from control.http.refusals import DOCUMENTED, Refusal, invalid_field
from control.http.secrets import ClientAddress, TakesSecrets
from control.moments import moment
from quota import problems

REFUSED = "The code activates nothing here: it is mistyped, unknown, used up, expired, revoked, or of another product."
CHALLENGE = {"WWW-Authenticate": 'Bearer realm="quotagate", error="invalid_grant"'}
DETAILS = {
    Again.UNKNOWN: "The refresh token is not known, or the proof is not of the site's key.",
    Again.REUSED: "An earlier refresh token was shown again, so somebody else may have it: all tokens of the site are "
    "revoked.",
    Again.REVOKED: "The site was revoked.",
    Again.RELEASED: "The site was released.",
    Again.REPLACED: "The site was activated again, and has other tokens.",
    Again.EXPIRED: "The refresh token has expired.",
    Again.DOMAIN_TAKEN: "Another site of the organization has this domain.",
    Again.NO_STAGING_SEAT: "The organization has as many staging sites as it may have.",
}


async def no_queries(request: Request) -> None:
    refuse_unknown_queries(request)


router = APIRouter(
    prefix="/v1/activations",
    tags=["activation"],
    responses=DOCUMENTED,
    dependencies=[TakesSecrets, Depends(no_queries)],
)


def _site_key(text: str) -> str:
    return read_key(text).text


DomainText = Annotated[str, Field(min_length=1, max_length=2048)]
Proof = Annotated[str, Field(min_length=1, max_length=100)]
Attempt = Annotated[str, Field(min_length=8, max_length=100, pattern=r"^[!-~]+$")]


class ActivationBody(Body):
    code: Annotated[str, Field(min_length=1, max_length=100)]
    domain: DomainText
    """Of the site, or its address. Scheme, port, path, letter case and `www.` make no other site."""
    site_key: Annotated[str, Field(max_length=100), AfterValidator(_site_key)]
    """`ed25519:` or `hmac-sha256:`, and 32 bytes in base64url: what proofs are verified with."""
    proof: Proof
    """Signature of `quotagate activate`, the code and the domain, with line feeds between, in base64url."""
    product: Annotated[str, Field(max_length=100)] = ""
    """Which product is installed there; needed where the code is for one."""
    attempt: Attempt | None = None
    """Random, and written down before the request: with it the request can be repeated, however late."""


class RefreshBody(Body):
    refresh_token: Annotated[str, Field(min_length=1, max_length=200)]
    domain: DomainText
    proof: Proof
    """Signature of `quotagate refresh`, the refresh token and the domain, with line feeds between, in base64url."""
    attempt: Attempt | None = None
    """Random, and written down before the request: with it the request can be repeated, however late."""


class ReleaseBody(Body):
    refresh_token: Annotated[str, Field(min_length=1, max_length=200)]
    domain: DomainText
    proof: Proof
    """Signature of `quotagate release`, the refresh token and the domain, with line feeds between, in base64url."""


class SiteTokens(View):
    access_token: str
    token_type: Literal["Bearer"] = "Bearer"  # noqa: S105  # the type's name
    expires_in: int
    """Seconds from now. Refresh when a third of them is left."""
    expires_at: datetime
    refresh_token: str
    """Good for one refresh. Store it before the access token is used."""
    refresh_before: datetime
    """A site that does not refresh until then must be activated again."""
    organization: str
    plan: str | None
    site: str
    """Its id, as in the claim `site` of the access token."""
    domain: str
    """The domain as it was understood."""
    kind: Literal["production", "staging"]
    """staging: it takes no seat."""


@router.post("", status_code=201)
async def activate_site(
    body: ActivationBody, request: Request, ctx: Ctx, client: ClientAddress, issuer: TokenIssuer
) -> SiteTokens:
    """Activates a site by a code. Whoever repeats the request with the same key at once, or later with the same
    attempt, gets the same refresh token. Why a code is refused is told to an admin only."""
    asked = ActivationRequest(
        code=body.code,
        domain=body.domain,
        key=read_key(body.site_key),
        proof=body.proof,
        product=body.product,
        attempt=body.attempt,
        correlation_id=request.scope["correlation_id"],
    )
    handle = codes.handle(body.code)
    await ctx.guesses.check(Guess.ACTIVATION, client, handle)
    try:
        granted = await ctx.activation.activating.activate(asked)
    except DomainInvalid as e:
        raise invalid_field("body.domain", str(e)) from e
    except ActivationRefused as e:
        # Whatever the reason: if only unknown codes were counted, a wait would tell them from the others.
        await ctx.guesses.count(Guess.ACTIVATION, client, handle)
        raise Refusal(problems.ACTIVATION_REFUSED, REFUSED) from e
    return await _tokens(ctx, issuer, granted)


@router.post("/refresh")
async def refresh_activation(
    body: RefreshBody, request: Request, ctx: Ctx, client: ClientAddress, issuer: TokenIssuer
) -> SiteTokens:
    """Returns a new access token, and the successor of the refresh token. The same request again gets the same
    successor, within the grace or with the same attempt. An earlier refresh token revokes all tokens of the site."""
    shown = _request(body, body.attempt, request)
    await ctx.guesses.check(Guess.REFRESH, client, shown.family)
    try:
        granted = await ctx.activation.refreshing.refresh(shown)
    except DomainInvalid as e:
        raise invalid_field("body.domain", str(e)) from e
    except ActivateAgain as e:
        await _refuse(ctx, client, shown, e)
    return await _tokens(ctx, issuer, granted)


@router.post("/release", status_code=204)
async def release_activation(body: ReleaseBody, request: Request, ctx: Ctx, client: ClientAddress) -> None:
    """Gives the site's seat back. Its tokens are refused from the answer on."""
    shown = _request(body, None, request)
    await ctx.guesses.check(Guess.REFRESH, client, shown.family)
    try:
        await ctx.activation.refreshing.release(shown)
    except DomainInvalid as e:
        raise invalid_field("body.domain", str(e)) from e
    except ActivateAgain as e:
        await _refuse(ctx, client, shown, e)


def _request(body: RefreshBody | ReleaseBody, attempt: str | None, request: Request) -> RefreshRequest:
    return RefreshRequest(
        token=body.refresh_token,
        domain=body.domain,
        proof=body.proof,
        attempt=attempt,
        correlation_id=request.scope["correlation_id"],
    )


async def _refuse(ctx: Context, client: str, shown: RefreshRequest, e: ActivateAgain) -> NoReturn:
    if e.reason is Again.UNKNOWN:
        await ctx.guesses.count(Guess.REFRESH, client, shown.family)
    detail = f"{DETAILS[e.reason]} Activate the site again."
    raise Refusal(problems.ACTIVATE_AGAIN, detail, CHALLENGE, reason=e.reason.value) from e


async def _tokens(ctx: Context, issuer: Issuer, granted: Granted) -> SiteTokens:
    site, now = granted.site, ctx.clock()
    async with ctx.db.connection() as connection:
        state = await stored_state.load_state(connection, site.org, now)
    kind = SiteKind(site.kind)
    minted = await issuer.mint(
        site.org, site=site.id, roles=("site", kind.value), scopes=granted.scopes, seconds=granted.access_seconds
    )
    return SiteTokens(
        access_token=minted.token,
        expires_in=max(1, minted.expires_s - int(ctx.host_clock())),
        expires_at=moment(minted.expires_s),
        refresh_token=granted.token.text,
        refresh_before=moment(now + ctx.activation.settings.refresh_days * 86_400),
        organization=site.org,
        plan=state.terms.plan.code if state is not None and state.terms is not None else None,
        site=site.id,
        domain=site.domain,
        kind="production" if kind is SiteKind.PRODUCTION else "staging",
    )
