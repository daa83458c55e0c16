"""Who changed what: the list with its filters, one entry with what it was and is, and the state of the chain."""

from datetime import UTC, date, datetime, time, timedelta
from typing import Final
from uuid import UUID

from starlette.responses import Response

from control.access.permissions import Permission
from control.api.audit import SEALS, get_journal_chain, get_journal_entry, list_journal
from control.console.frame.guards import Viewing
from control.console.frame.pages import Pages
from control.console.frame.sections import sections
from control.http.context import Ctx
from control.http.refusals import invalid_field
from control.journal import ACTIONS

router = Pages("/console/journal")

LISTED: Final = 25  # a page stays below 100 KB
YEARS: Final = range(1970, 2100)


@router.page("", permission=Permission.AUDIT_READ, twin="/v1/journal")
async def show(
    ctx: Ctx,
    viewer: Viewing,
    q: str = "",
    actor: str = "",
    action: str = "",
    org: str = "",
    since: str = "",
    until: str = "",
    before: UUID | None = None,
) -> Response:
    """The newest entries that the filters let through."""
    found = await sections(
        entries=list_journal(
            ctx,
            org.strip() or None,
            action or None,
            actor.strip() or None,
            q.strip() or None,
            _midnight("since", since),
            _midnight("until", until, days=1),
            before,
            LISTED,
        ),
        chain=get_journal_chain(ctx, None, SEALS),
    )
    given = {"q": q, "actor": actor, "action": action, "org": org, "since": since, "until": until}
    return viewer.page("journal/list.html", found=found, given=given, before=before, actions=_actions(action))


@router.page("/{entry}", permission=Permission.AUDIT_READ, twin="/v1/journal/{entry}")
async def show_entry(entry: UUID, ctx: Ctx, viewer: Viewing) -> Response:
    """One entry."""
    return viewer.page("journal/entry.html", entry=await get_journal_entry(entry, ctx))


def _midnight(name: str, text: str, days: int = 0) -> datetime | None:
    """The beginning of a day, or of one some days later. The address may hold a time, as the twin takes it."""
    if not text:
        return None
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise invalid_field(f"query.{name}", "must be a day as in 2026-11-30") from None
    if at.year not in YEARS:
        raise invalid_field(f"query.{name}", "must be from 1970 to 2099")
    if len(text) > len("2026-11-30"):
        return at if at.tzinfo else at.replace(tzinfo=UTC)
    return datetime.combine(date(at.year, at.month, at.day), time(), UTC) + timedelta(days=days)


def _actions(chosen: str) -> list[tuple[str, str]]:
    """Options of the filter. What an earlier release wrote stays to be chosen by its address."""
    words = sorted({*ACTIONS, *([chosen] if chosen else [])})
    return [("", "All actions"), *((word, word) for word in words)]
