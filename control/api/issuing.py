"""`/.well-known`: with which keys tokens of the control plane are verified. `/v1/signing-keys`: their rotation.
`/v1/organizations/{org}/tokens`: short-lived tokens."""

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Path
from fastapi.responses import JSONResponse
from pydantic import Field

from control import journal
from control.access.callers import Caller
from control.access.issuing import key_life
from control.access.issuing.issuer import ORG_CLAIM
from control.access.issuing.key_life import KeyLife
from control.access.issuing.store import SigningKeyUnknown
from control.access.people.members import role_claimed
from control.access.permissions import ORGANIZATION_PERMISSIONS, Permission
from control.documents import Body, View, Whole
from control.http.context import Ctx
from control.http.guards import (
    Allowed,
    CallAuthor,
    Identified,
    Known,
    OfOrganization,
    Org,
    require,
    require_said,
)
from control.http.issuing import NOT_ISSUING, TokenIssuer
from control.http.refusals import DOCUMENTED, Refusal, invalid_field
from control.journal import Change
from control.moments import moment, rfc3339
from quota import problems

well_known = APIRouter(prefix="/.well-known", tags=["issuing"], responses=DOCUMENTED)
router = APIRouter(prefix="/v1", tags=["issuing"], responses=DOCUMENTED)

KeyId = Annotated[str, Path(pattern=r"^[A-Za-z0-9_-]{43}$", description="The key's id: `kid` of the key set.")]
User = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[^\x00-\x1f\x7f]+$")]
Role = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.:-]{1,64}$")]
Scope = Annotated[str, Field(pattern=r"^[!#-\[\]-~]{1,128}$")]  # a scope-token: RFC 6749 section 3.3


class SigningKeyView(View):
    id: str
    """`kid` in the key set, and in the header of the tokens that it signs."""
    algorithm: str
    state: str
    """waiting: published, and does not sign yet. signing. verifying: until its last token has expired. leaving: out of
    the key set, its private part is about to be destroyed. retired: it is destroyed."""
    created_at: datetime
    signs_from: datetime
    signs_until: datetime | None
    """When the next one signs; null: there is none yet."""
    leaves_at: datetime | None
    """When it leaves, or has left, the key set; null: nobody knows yet."""


class SigningKeys(View):
    keys: list[SigningKeyView]
    """The oldest first."""


class Resealed(View):
    resealed: list[str]
    """Ids of the keys that another master key had sealed."""


class TokenBody(Body):
    user: User | None = None
    """Who of the organization it is for: the claim `sub`. null: nobody of its users."""
    roles: Annotated[list[Role], Field(max_length=20)] = Field(default_factory=list)
    scopes: Annotated[list[Scope], Field(max_length=50)] = Field(default_factory=list)
    seconds: Annotated[int, Whole, Field(strict=True, ge=1, le=86_400)] | None = None
    """How long it is valid; at most, and by default, `issuing.token_seconds` of the settings."""


class TokenView(View):
    token: str
    """It is shown this once."""
    token_id: str
    """Its claim `jti`, by which it can be revoked."""
    expires_at: datetime


class KeySetView(View):
    """A JWK set (RFC 7517)."""

    keys: list[dict[str, Any]]


class IssuerView(View):
    """What a verifier needs to know (OpenID Connect Discovery, RFC 8414)."""

    issuer: str
    jwks_uri: str
    response_types_supported: list[str]
    subject_types_supported: list[str]
    id_token_signing_alg_values_supported: list[str]
    claims_supported: list[str]


@well_known.get("/jwks.json", responses={200: {"model": KeySetView}})
async def get_key_set(ctx: Ctx) -> JSONResponse:
    """Returns the JWK set of the control plane as an issuer (RFC 7517). Everybody may read it."""
    if ctx.issuer is None:
        raise Refusal(problems.NOT_FOUND, NOT_ISSUING, reason="not_issuing")
    seconds = ctx.issuer.settings.jwks_max_age_seconds
    return JSONResponse(await ctx.issuer.key_set(), headers={"Cache-Control": f"public, max-age={seconds}"})


@well_known.get("/openid-configuration", responses={200: {"model": IssuerView}})
async def get_openid_configuration(ctx: Ctx) -> JSONResponse:
    """Returns what a verifier needs to know of the issuer, as OpenID Connect Discovery has it. Nobody signs in here."""
    return _metadata(ctx)


@well_known.get("/oauth-authorization-server", responses={200: {"model": IssuerView}})
async def get_authorization_server(ctx: Ctx) -> JSONResponse:
    """Returns the same by the name of RFC 8414."""
    return _metadata(ctx)


def _metadata(ctx: Ctx) -> JSONResponse:
    if ctx.issuer is None:
        raise Refusal(problems.NOT_FOUND, NOT_ISSUING, reason="not_issuing")
    settings = ctx.issuer.settings
    document = {
        "issuer": settings.issuer,
        "jwks_uri": f"{settings.issuer}/.well-known/jwks.json",
        "response_types_supported": [],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["EdDSA", "ES256"],
        "claims_supported": ["iss", "aud", "sub", "iat", "exp", "jti", ORG_CLAIM, "site", "roles", "scope"],
    }
    return JSONResponse(document, headers={"Cache-Control": f"public, max-age={settings.jwks_max_age_seconds}"})


@router.get("/signing-keys", dependencies=[Allowed(Permission.SIGNING_KEYS_READ)])
async def list_signing_keys(ctx: Ctx, issuer: TokenIssuer) -> SigningKeys:
    """Lists the signing keys, those that are retired too."""
    of_all = key_life.lives(await issuer.keys.read(), ctx.host_clock())
    return SigningKeys(keys=[_view(life) for life in of_all])


@router.post("/signing-keys", status_code=201, dependencies=[Allowed(Permission.SIGNING_KEYS_WRITE)])
async def rotate_signing_keys(ctx: Ctx, author: CallAuthor, issuer: TokenIssuer) -> SigningKeyView:
    """Makes a signing key and publishes it. It signs when nobody uses an older copy of the key set; the one before it
    stays in the set until its last token has expired."""
    made = await issuer.keys.rotate(author)
    issuer.forget()
    return await _shown(ctx, issuer, made.id)


@router.post("/signing-keys/reencrypt", dependencies=[Allowed(Permission.SIGNING_KEYS_WRITE)])
async def reencrypt_signing_keys(author: CallAuthor, issuer: TokenIssuer) -> Resealed:
    """Seals private keys with the first master key of the settings, where the other one has sealed them."""
    resealed = await issuer.keys.reencrypt(author)
    issuer.forget()
    return Resealed(resealed=resealed)


@router.post("/signing-keys/{signing_key}/retire", dependencies=[Allowed(Permission.SIGNING_KEYS_WRITE)])
async def retire_signing_key(signing_key: KeyId, ctx: Ctx, author: CallAuthor, issuer: TokenIssuer) -> SigningKeyView:
    """Takes a key out of the key set at once, and destroys its private part, as after a theft. If it signs, another one
    does from now on. Whoever verifies believes its tokens until they read the key set again."""
    await issuer.keys.retire(signing_key, author)
    issuer.forget()
    return await _shown(ctx, issuer, signing_key)


@router.post(
    "/organizations/{org}/tokens", status_code=201, dependencies=[OfOrganization(Permission.TOKENS_WRITE), Known]
)
async def issue_token(
    org: Org, body: TokenBody, ctx: Ctx, caller: Identified, author: CallAuthor, issuer: TokenIssuer
) -> TokenView:
    """Issues a short-lived token of the organization, which the gateway believes as an identity provider's. A token can
    do no more than who asks for it."""
    _refuse_more(caller, body, issuer.settings.issuer)
    longest = issuer.settings.token_seconds
    if body.seconds is not None and body.seconds > longest:
        raise invalid_field("body.seconds", f"must be at most {longest}")
    minted = await issuer.mint(org, user=body.user, roles=body.roles, scopes=body.scopes, seconds=body.seconds)
    after = {
        "token_id": minted.token_id,
        "user": body.user,
        "roles": body.roles,
        "scopes": body.scopes,
        "expires_at": rfc3339(minted.expires_s),
    }
    async with ctx.db.transaction() as connection:  # a token that is not in the journal is not handed out
        await journal.record(connection, author, ctx.clock(), [Change("token.issued", org, None, after)])
    return TokenView(token=minted.token, token_id=minted.token_id, expires_at=moment(minted.expires_s))


def _refuse_more(caller: Caller, body: TokenBody, issuer: str) -> None:
    """Raises Refusal for a role, a scope, or a user, that may do what the caller may not."""
    if caller.issuer == issuer:
        # A chain of tokens would outlive the person who began it, and each revocation of one of them.
        raise Refusal(problems.FORBIDDEN, "A token that was issued here issues no other one.")
    require_said(caller, [each for each in body.roles if role_claimed([each]) is None], body.scopes)
    role = role_claimed(body.roles)  # as the control API reads it, under each of its names
    if role is not None:
        for permission in sorted(ORGANIZATION_PERMISSIONS[role] - caller.permissions, key=lambda each: each.value):
            require(caller, permission)
    if body.user is not None and caller.org is not None:
        require(caller, Permission.OWNERS_WRITE)  # the user could be an owner


async def _shown(ctx: Ctx, issuer: TokenIssuer, key_id: str) -> SigningKeyView:
    for life in key_life.lives(await issuer.keys.read(), ctx.host_clock()):
        if life.key.id == key_id:
            return _view(life)
    raise SigningKeyUnknown(key_id)


def _view(life: KeyLife) -> SigningKeyView:
    def at(seconds: float | None) -> Any:
        return None if seconds is None else moment(seconds)

    key = life.key
    return SigningKeyView(
        id=key.id,
        algorithm=key.algorithm,
        state=life.state.value,
        created_at=moment(key.created_s),
        signs_from=moment(key.signs_from_s),
        signs_until=at(life.stops_s),
        leaves_at=at(life.leaves_s),
    )
