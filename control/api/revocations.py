"""`/v1/organizations/{org}/revocations`: tokens that are refused by an id that they carry."""

from datetime import datetime
from typing import Annotated, Self

from fastapi import APIRouter, Query
from pydantic import Field, model_validator

from control.access import publishing, revocations
from control.access.permissions import Permission
from control.api.key_views import Reason
from control.documents import Body, BoundedMoment, View
from control.http.context import Ctx
from control.http.guards import CallAuthor, Known, OfOrganization, Org
from control.http.refusals import DOCUMENTED, Refusal, invalid_field
from control.moments import moment
from control.sql.revocations import Revocation
from quota import problems
from quota.access import MarkKind

router = APIRouter(prefix="/v1/organizations/{org}/revocations", tags=["revocations"], responses=DOCUMENTED)

Subject = Annotated[str, Field(min_length=1, max_length=255, pattern=r"^[^\x00-\x1f\x7f]+$")]


class RevocationBody(Body):
    kind: MarkKind
    """What is refused: one token, those of a session, of a user, of a site, or all of the organization."""
    subject: Subject | None = None
    """The token's `jti`, the session's `sid`, the user's or the site's id. Of kind organization there is none."""
    issued_until_now: bool = False
    """Refuses only what was issued until now: who signs in again gets on. API keys of the user or of the organization
    are revoked with it, for good."""
    expires_at: BoundedMoment | None = None
    """When the last token that this refuses has expired: the revocation is dropped some time later. null: it stays
    until it is lifted."""
    reason: Reason | None = None
    """For the journal."""

    @model_validator(mode="after")
    def _names_its_subject(self) -> Self:
        if (self.kind is MarkKind.ORGANIZATION) != (self.subject is None):
            raise ValueError("subject is required, unless the kind is organization")
        return self


class RevocationView(View):
    kind: MarkKind
    subject: str | None
    issued_until: datetime | None
    """It refuses what was issued until then; null: whatever carries the subject."""
    expires_at: datetime | None
    reason: str | None
    set_at: datetime


class NewRevocationView(RevocationView):
    keys_revoked: int
    """API keys that were revoked with it."""


class RevocationPage(View):
    revocations: list[RevocationView]
    """Those in force, by kind and subject."""
    next: str | None
    """`after` of the next page; null on the last."""


@router.post("", status_code=201, dependencies=[OfOrganization(Permission.REVOCATIONS_WRITE), Known])
async def create_revocation(org: Org, body: RevocationBody, ctx: Ctx, author: CallAuthor) -> NewRevocationView:
    """Refuses tokens by an id that they carry. Every request that begins after the answer is refused, in every gateway
    and by this API. Repeating the call does no harm. 503 `not-in-force`: it is stored, and comes into force as soon as
    Redis is back."""
    now = ctx.clock()
    if body.expires_at is not None and body.expires_at.timestamp() <= now:
        raise invalid_field("body.expires_at", "must be in the future")
    async with ctx.db.transaction() as connection:
        marked = await revocations.set_mark(
            connection,
            org,
            body.kind,
            body.subject or "",
            now,
            author,
            issued_until=moment(int(now)) if body.issued_until_now else None,
            expires_at=body.expires_at,
            reason=body.reason,
        )
    await publishing.enforce(ctx.publisher, org)
    return NewRevocationView(**_view(marked.revocation).model_dump(), keys_revoked=marked.keys_revoked)


@router.get("", dependencies=[OfOrganization(Permission.REVOCATIONS_READ), Known])
async def list_revocations(
    org: Org,
    ctx: Ctx,
    kind: MarkKind | None = None,
    after: Annotated[str | None, Query(pattern=r"^[a-z]{1,20}:[^\x00]{0,255}$")] = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
) -> RevocationPage:
    """Lists what is revoked of an organization beside its keys."""
    place = None if after is None else (after.partition(":")[0], after.partition(":")[2])
    page = await revocations.page(ctx.db, org, place, kind.value if kind else None, limit)
    cursor = None if page.next is None else ":".join(page.next)
    return RevocationPage(revocations=[_view(row) for row in page.rows], next=cursor)


@router.delete(
    "/{kind}",
    status_code=204,
    dependencies=[OfOrganization(Permission.REVOCATIONS_WRITE), Known],
)
async def lift_revocation(
    org: Org,
    kind: MarkKind,
    ctx: Ctx,
    author: CallAuthor,
    subject: Annotated[Subject | None, Query(description="Required, unless the kind is organization.")] = None,
) -> None:
    """Lifts a revocation: what carries the subject is accepted again, unless something else refuses it. API keys that
    were revoked with it stay revoked."""
    if (kind is MarkKind.ORGANIZATION) != (subject is None):
        raise invalid_field("query.subject", "is required, unless the kind is organization")
    async with ctx.db.transaction() as connection:
        lifted = await revocations.lift_mark(connection, org, kind, subject or "", ctx.clock(), author)
    if not lifted:
        raise Refusal(problems.NOT_FOUND, "The organization has no such revocation.")
    await publishing.announce(ctx.publisher, org)


def _view(row: Revocation) -> RevocationView:
    return RevocationView(
        kind=MarkKind(row.kind),
        subject=row.subject or None,
        issued_until=row.issued_until,
        expires_at=row.expires_at,
        reason=row.reason,
        set_at=row.set_at,
    )
