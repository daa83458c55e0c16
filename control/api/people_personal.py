"""`/v1/people`: what is stored of a person, and its erasure (docs/privacy.md).

The person is named in the body: paths and queries are in the logs of whatever is between."""

from datetime import datetime
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from fastapi import APIRouter, Query
from pydantic import Field, model_validator

from control.access.people import personal
from control.access.people.personal import Named, PersonAmbiguous, PersonUnknown
from control.access.permissions import Permission
from control.access.publishing import enforce_all
from control.api.actions import Reason
from control.api.people import USER_PATTERN, Email
from control.documents import Body, View
from control.http.context import Context, Ctx
from control.http.guards import Allowed, CallAuthor
from control.http.refusals import DOCUMENTED, Refusal
from control.journal import Author
from control.moments import moment
from control.sql.journal import Entry
from quota import problems

router = APIRouter(prefix="/v1/people", tags=["people"], responses=DOCUMENTED)

Subject = Annotated[str, Field(min_length=3, max_length=400, pattern=r"^[^\x00-\x1f\x7f:]+:[^\x00-\x1f\x7f]+$")]


class PersonBody(Body):
    user: Annotated[str, Field(pattern=USER_PATTERN)] | None = None
    """The id of a user, as in the user claim of tokens."""
    email: Email | None = None
    """Of a user, or of somebody who signed in to the console."""
    subject: Subject | None = None
    """`provider:subject`, as the list of sessions has it."""

    @model_validator(mode="after")
    def _names_somebody(self) -> Self:
        if self.user is None and self.email is None and self.subject is None:
            raise ValueError("must name somebody: by user, email or subject")
        return self

    @property
    def named(self) -> Named:
        return Named(self.user, self.email, self.subject)


class ErasureBody(PersonBody):
    reason: Reason | None = None
    """For the journal, which stays: name nobody."""


class PlaceView(View):
    rows: int
    erasure: str
    """What an erasure makes of them, in words."""


class PersonSummaryView(View):
    users: list[str]
    emails: list[str]
    subjects: list[str]
    organizations: list[str]
    """In which the user was something."""
    places: dict[str, PlaceView]
    """What is stored, by table; where a column names the person as who did something, by table and column."""
    stripe_customers: list[str]
    """Customers of the user's organizations at Stripe."""
    is_cut: bool
    """There is more than the newest 1,000 of a table, or 10,000 of the journal."""


class PersonRequestView(View):
    id: UUID
    at: datetime
    actor: str
    kind: Literal["export", "erasure"]
    names: list[str]
    """Of the person. After an erasure, but for a user's id, they are aliases."""
    reason: str | None
    correlation_id: str


class PersonRequestPage(View):
    requests: list[PersonRequestView]
    """The newest first."""
    next: UUID | None
    """`before` of the next page; null on the last."""


class UsedView(View):
    org: str
    meter: str
    units: int
    charges: int
    first_at: datetime
    last_at: datetime


class EntryOfPersonView(View):
    at: datetime
    actor: str
    action: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    correlation_id: str


class PersonView(View):
    exported_at: datetime
    users: list[str]
    emails: list[str]
    subjects: list[str]
    rows: dict[str, list[dict[str, Any]]]
    """What is stored, by table; where a column names the person as who did something, by table and column."""
    usage: list[UsedView]
    """What the user's requests have used, of the events that are not archived."""
    journal: list[EntryOfPersonView]
    """Entries that name the person, the newest first."""
    stripe_customers: list[str]
    """Customers of the user's organizations at Stripe: what is there of a person is exported there."""
    is_cut: bool
    """There is more than the newest 1,000 of a table, or 10,000 of the journal."""


class ErasureView(View):
    users: list[str]
    """Their ids stay in events and in the journal, and mean nobody who is known here."""
    alias: str
    """In place of the person, where it is stored who did something."""
    rows: dict[str, int]
    """How many were deleted or changed, by table or column."""
    organizations: list[str]
    """In which the user's tokens and keys are refused from now on."""
    stripe_customers: list[str]
    """Customers of the user's organizations at Stripe: what is there of a person is erased there."""


@router.get("", dependencies=[Allowed(Permission.PEOPLE_ADMIN)])
async def list_person_requests(
    ctx: Ctx, before: UUID | None = None, limit: Annotated[int, Query(ge=1, le=500)] = 50
) -> PersonRequestPage:
    """Lists who was exported or erased, by whom, and why, as the journal has it."""
    page = await personal.requests(ctx.db, before, limit)
    return PersonRequestPage(requests=[_request_view(entry) for entry in page.rows], next=page.next)


@router.post("/find", dependencies=[Allowed(Permission.PEOPLE_ADMIN)])
async def find_person(body: PersonBody, ctx: Ctx) -> PersonSummaryView:
    """Returns how much is stored of a person and where, and what an erasure would make of it. Nothing is changed."""
    try:
        found = await personal.look(ctx.db, body.named)
    except (PersonUnknown, PersonAmbiguous) as e:
        raise _refused(e) from e
    stored = {place: len(rows) for place, rows in found.rows.items()}
    stored |= {"usage_event": sum(each.charges for each in found.usage), "audit_journal": len(found.journal)}
    places = {place: PlaceView(rows=rows, erasure=personal.erasure_of(place)) for place, rows in stored.items() if rows}
    return PersonSummaryView(
        users=list(found.person.users),
        emails=list(found.person.emails),
        subjects=list(found.person.subjects),
        organizations=list(found.organizations),
        places=places,
        stripe_customers=list(found.stripe_customers),
        is_cut=found.is_cut,
    )


@router.post("/export", dependencies=[Allowed(Permission.PEOPLE_ADMIN)])
async def export_person(body: PersonBody, ctx: Ctx, author: CallAuthor) -> PersonView:
    """Returns all that is stored of a person, of the vendor's or of an organization's. The journal says who asked."""
    now = ctx.clock()
    try:
        found = await personal.export(ctx.db, body.named, now, author)
    except (PersonUnknown, PersonAmbiguous) as e:
        raise _refused(e) from e
    return PersonView.model_validate(personal.document(found) | {"exported_at": moment(now)})


@router.post("/erase", dependencies=[Allowed(Permission.PEOPLE_ADMIN)])
async def erase_person(body: ErasureBody, ctx: Ctx, author: CallAuthor) -> ErasureView:
    """Erases a person. A user is deleted, with memberships, and refused from the answer on; sessions and admin roles
    end; the journal names an alias from now on, and its chain of hashes stays valid. It cannot be undone."""
    erased = await erased_person(body, ctx, author)
    await enforce_all(ctx.publisher, erased.organizations)
    return erased


async def erased_person(body: ErasureBody, ctx: Context, author: Author) -> ErasureView:
    """It is stored; the organizations are to be published, so that gateways go by it."""
    try:
        erased = await personal.erase(ctx.db, body.named, ctx.clock(), author, body.reason)
    except (PersonUnknown, PersonAmbiguous) as e:
        raise _refused(e) from e
    return ErasureView(
        users=list(erased.person.users),
        alias=erased.alias,
        rows=dict(erased.rows),
        organizations=list(erased.organizations),
        stripe_customers=list(erased.stripe_customers),
    )


def _request_view(entry: Entry) -> PersonRequestView:
    content = entry.after or {}
    return PersonRequestView(
        id=entry.id,
        at=entry.at,
        actor=entry.actor,
        kind="erasure" if entry.action == "person.erased" else "export",
        names=[*content.get("users", ()), *content.get("emails", ()), *content.get("person", ())],
        reason=content.get("reason"),
        correlation_id=entry.correlation_id,
    )


def _refused(e: PersonUnknown | PersonAmbiguous) -> Refusal:
    if isinstance(e, PersonUnknown):
        return Refusal(problems.NOT_FOUND, "Nothing is stored of such a person.")
    return Refusal(problems.CONFLICT, f"Several users have this address: {e}. Name one of them by user.")
