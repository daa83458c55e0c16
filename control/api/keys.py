"""`/v1/organizations/{org}/keys`: API keys of an organization."""

from typing import Annotated

from fastapi import APIRouter, Path, Query

from control.access import publishing
from control.access.keys import store
from control.access.keys.store import NewKey
from control.access.keys.terms import Identity, digest_of_hash, identity_of
from control.access.permissions import Permission
from control.api.key_views import (
    KEY_ID_EXAMPLE,
    Environment,
    ImportBody,
    ImportedView,
    ImportView,
    KeyBody,
    KeyPage,
    KeyPatch,
    KeyState,
    KeyView,
    NewKeyView,
    Reason,
    RollBody,
    RolledView,
    User,
    key_view,
)
from control.http.context import Context, Ctx
from control.http.guards import Allowed, CallAuthor, Known, OfOrganization, Org
from control.http.refusals import DOCUMENTED, invalid_field
from identity.api_key import generate, hash_of
from quota.access import KEY_ID_PATTERN

router = APIRouter(prefix="/v1/organizations/{org}/keys", tags=["keys"], responses=DOCUMENTED)

KeyId = Annotated[str, Path(pattern=KEY_ID_PATTERN, description="The id of the key.", examples=[KEY_ID_EXAMPLE])]


@router.post("", status_code=201, dependencies=[OfOrganization(Permission.KEYS_WRITE), Known])
async def create_key(org: Org, body: KeyBody, ctx: Ctx, author: CallAuthor) -> NewKeyView:
    """Creates a key, and shows it: this once. It works when the answer is there, unless `published` is false."""
    now = ctx.clock()
    if body.expires_at is not None and body.expires_at.timestamp() <= now:
        raise invalid_field("body.expires_at", "must be in the future")
    text, identity = _made(ctx, _environment(ctx, body.environment, "body.environment"), body.user)
    key = await store.create(ctx.db, org, NewKey(identity, body.terms()), now, author)
    return await _shown(ctx, org, key_view(key, now), text)


@router.get("", dependencies=[OfOrganization(Permission.KEYS_READ), Known])
async def list_keys(
    org: Org,
    ctx: Ctx,
    before: Annotated[str | None, Query(pattern=KEY_ID_PATTERN)] = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
    state: KeyState | None = None,
    user: User | None = None,
    environment: Environment | None = None,
) -> KeyPage:
    """Lists the keys of an organization, with those that have expired or were revoked. None of them is shown itself."""
    now = ctx.clock()
    page = await store.page(ctx.db, org, before, limit, now, state=state, user=user, environment=environment)
    return KeyPage(keys=[key_view(key, now) for key in page.rows], next=page.next)


@router.post("/import", status_code=201, dependencies=[Allowed(Permission.KEYS_WRITE), Known])
async def import_keys(org: Org, body: ImportBody, ctx: Ctx, author: CallAuthor) -> ImportView:
    """Imports keys that were given out elsewhere, by their SHA-256: their holders go on with them. Up to 1,000 in one
    call. A hash that the organization has already changes nothing.

    Gateways accept keys of another form than `qg_live_…` only where `auth.keys.imported` is true."""
    new = []
    for n, each in enumerate(body.keys):
        digest = digest_of_hash(each.hash)
        if digest is None:
            raise invalid_field(f"body.keys.{n}.hash", "must be a SHA-256, 64 hexadecimal digits or base64")
        environment = _environment(ctx, each.environment, f"body.keys.{n}.environment")
        identity = Identity(digest, environment, each.user, each.starts_with, each.last_four, imported=True)
        new.append(NewKey(identity, each.terms()))
    ids = await store.import_hashes(ctx.db, org, new, ctx.clock(), author)
    published = await publishing.announce(ctx.publisher, org)
    views = [ImportedView(hash=each.hash, id=key_id) for each, key_id in zip(body.keys, ids, strict=True)]
    return ImportView(keys=views, published=published)


@router.get("/{key}", dependencies=[OfOrganization(Permission.KEYS_READ), Known])
async def get_key(org: Org, key: KeyId, ctx: Ctx) -> KeyView:
    """Returns a key: what it may do, and when it was used last."""
    return key_view(await store.find(ctx.db, org, key), ctx.clock())


@router.patch("/{key}", dependencies=[OfOrganization(Permission.KEYS_WRITE), Known])
async def change_key(org: Org, key: KeyId, body: KeyPatch, ctx: Ctx, author: CallAuthor) -> KeyView:
    """Changes a key, disables it, or enables it again. When the answer is there, the change is in force in every
    gateway. 503 `not-in-force`: it is stored, and comes into force as soon as Redis is back."""
    now = ctx.clock()
    changed = await store.change(ctx.db, org, key, body.edit, now, author)
    await publishing.enforce(ctx.publisher, org)
    return key_view(changed, now)


@router.post("/{key}/roll", status_code=201, dependencies=[OfOrganization(Permission.KEYS_WRITE), Known])
async def roll_key(org: Org, key: KeyId, ctx: Ctx, author: CallAuthor, body: RollBody | None = None) -> RolledView:
    """Replaces a key by a new one that may do the same. The new key is shown: this once. Both work until the grace is
    over, by default a day. A quota of its own is counted anew for the new key."""
    now, grace_seconds = ctx.clock(), (body or RollBody()).grace_seconds
    old = await store.find(ctx.db, org, key)
    text, identity = _made(ctx, old.environment, old.user_id)
    rolled = await store.roll(ctx.db, org, key, identity, grace_seconds, now, author)
    new = await _shown(ctx, org, key_view(rolled.new, now), text)
    return RolledView(old=key_view(rolled.old, now), new=new)


@router.delete("/{key}", status_code=204, dependencies=[OfOrganization(Permission.KEYS_WRITE), Known])
async def revoke_key(
    org: Org,
    key: KeyId,
    ctx: Ctx,
    author: CallAuthor,
    reason: Annotated[Reason | None, Query(description="For the journal.")] = None,
) -> None:
    """Revokes a key for good. Every request that begins after the answer is refused, in every gateway. Repeating the
    call changes nothing. 503 `not-in-force`: it is stored, and comes into force as soon as Redis is back."""
    await store.revoke(ctx.db, org, key, ctx.clock(), author, reason)
    await publishing.enforce(ctx.publisher, org)


def _environment(ctx: Context, asked: str | None, field: str) -> str:
    known = ctx.access.keys.environments
    if asked is not None and asked not in known:
        raise invalid_field(field, f"is none that keys are accepted for (auth.keys.environments: {', '.join(known)})")
    return asked or known[0]


def _made(ctx: Context, environment: str, user: str | None) -> tuple[str, Identity]:
    text = generate(ctx.access.keys.prefix, environment)
    return text, identity_of(text, hash_of(text.encode()), environment, user)


async def _shown(ctx: Context, org: str, view: KeyView, text: str) -> NewKeyView:
    published = await publishing.announce(ctx.publisher, org)
    return NewKeyView(**view.model_dump(), key=text, published=published)
