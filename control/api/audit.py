"""`/v1/journal`: who changed what, of all organizations, and whether it is what was sealed."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Annotated, Final
from uuid import UUID

from fastapi import APIRouter, Query

from control import journal, sql
from control.access.permissions import Permission
from control.api.organizations import JournalEntryView
from control.audit.chain import BEGINNING
from control.audit.verify import proved, verify_part
from control.documents import BoundedMoment, View
from control.http.context import Ctx
from control.http.guards import Allowed
from control.http.queries import unknown_word
from control.http.refusals import DOCUMENTED, Refusal, invalid_field
from control.http.rereading import ReadingRoute
from control.journal import ACTIONS
from control.organizations import store as organizations
from control.sql.journal import SealedEntry
from quota import problems
from quota.keys import ORG_PATTERN

router = APIRouter(prefix="/v1/journal", tags=["journal"], responses=DOCUMENTED, route_class=ReadingRoute)

SEALS_MAX: Final = 5000
SEALS: Final = 1000


class SealedEntryView(JournalEntryView):
    org: str | None
    """The organization that the entry is about; null if it is about all, such as a change of a plan."""
    seq: int | None
    """The number of its seal; null until it is sealed, about a second later."""
    hash: str | None
    """The hash of its seal: SHA-256, in hexadecimal digits."""
    verified: bool | None
    """Whether the entry is what was sealed: its hash was recomputed for this answer. null: it is not sealed yet."""


class SealedJournalPage(View):
    entries: list[SealedEntryView]
    """The newest first."""
    next: UUID | None
    """`before` of the next page; null on the last."""


class BrokenView(View):
    seq: int | None
    entry: str | None
    reason: str


class ChainView(View):
    head_seq: int
    """The number of the last seal; 0: nothing is sealed."""
    head_hash: str
    """Note `head_seq:head_hash` elsewhere: `quotagate audit verify --expect` finds out whether it still holds."""
    waiting: int
    """Entries that are not sealed yet."""
    verified_from: int
    verified_to: int
    """The seals from `verified_from` to here were recomputed, and are good."""
    broken: BrokenView | None
    """The first thing that is wrong behind it."""


@router.get("", dependencies=[Allowed(Permission.AUDIT_READ)])
async def list_journal(
    ctx: Ctx,
    org: Annotated[str | None, Query(pattern=ORG_PATTERN)] = None,
    action: Annotated[str | None, Query(max_length=200, pattern=r"^[^\x00]+$")] = None,
    actor: Annotated[str | None, Query(max_length=400, pattern=r"^[^\x00]+$")] = None,
    q: Annotated[
        str | None,
        Query(
            max_length=200,
            pattern=r"^[^\x00]+$",
            description="Words of what was and is, of the actor and of the correlation id: all of them.",
        ),
    ] = None,
    since: BoundedMoment | None = None,
    until: Annotated[BoundedMoment | None, Query(description="Exclusive.")] = None,
    before: UUID | None = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
) -> SealedJournalPage:
    """Lists the journal. It can be limited to an organization, to an action such as `entitlement.set`, to an actor, to
    words, and to a time."""
    if org is not None:
        await organizations.find_any(ctx.db, org)
    async with ctx.reading.planned_anew() as connection:
        # What an earlier release wrote stays to be found.
        if action is not None and action not in ACTIONS and not await sql.journal.has_action(connection, action=action):
            raise unknown_word("action", action, ACTIONS)
        wanted = journal.Wanted(org, action, actor, q, since, until)
        page = await journal.search(connection, wanted, before, limit)
        good = await proved(connection, [row.id for row in page.rows])
    return SealedJournalPage(entries=_views(page.rows, good), next=page.next)


@router.get("/chain", dependencies=[Allowed(Permission.AUDIT_READ)])
async def get_journal_chain(
    ctx: Ctx,
    after: Annotated[int | None, Query(ge=0, le=2**53, description="None: so many before the last one.")] = None,
    limit: Annotated[int, Query(ge=1, le=SEALS_MAX)] = SEALS,
) -> ChainView:
    """Recomputes a part of the chain, the newest seals if none are named, and says how far the journal is sealed. The
    whole is verified by `quotagate audit verify`."""
    async with ctx.db.snapshot() as connection:
        head = await sql.audit.head(connection)
        start = max(0, (head.seq if head else 0) - limit) if after is None else after
        try:
            verdict = await verify_part(connection, start, limit)
        except ValueError as e:
            raise invalid_field("query.after", str(e)) from e
    broken = verdict.broken
    return ChainView(
        head_seq=verdict.head.seq,
        head_hash=(verdict.head.hash or BEGINNING).hex(),
        waiting=verdict.waiting,
        verified_from=start + 1,
        verified_to=start + verdict.verified,
        broken=None if broken is None else BrokenView(seq=broken.seq, entry=broken.entry, reason=broken.reason),
    )


@router.get("/{entry}", dependencies=[Allowed(Permission.AUDIT_READ)])
async def get_journal_entry(entry: UUID, ctx: Ctx) -> SealedEntryView:
    """Returns one entry, and whether it is what was sealed."""
    async with ctx.db.snapshot() as connection:
        row = await journal.find(connection, entry)
        if row is None:
            raise Refusal(problems.NOT_FOUND, "There is no such entry.")
        return _views([row], await proved(connection, [entry]))[0]


def _views(rows: Sequence[SealedEntry], good: Mapping[UUID, bool]) -> list[SealedEntryView]:
    return [SealedEntryView.model_validate(asdict(row) | {"verified": good.get(row.id)}) for row in rows]
