"""Actions for many organizations: what each would do to some of them, and how one is begun, found and stopped."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final
from uuid import UUID

from control import journal, sql
from control.actions import performing
from control.actions.action import Action, Call
from control.actions.catalogue import ACTIONS
from control.actions.effect import Effect
from control.actions.failures import NotPossible
from control.actions.parts import ActionParts
from control.billing.failures import StripeRefused
from control.directory import listing
from control.directory.listing import Filter
from control.entitlements.changes import BilledBySubscription, EntitlementMissing, PlanUnknown
from control.entitlements.stored_state import MeterUnknown
from control.ids import uuid7
from control.journal import Change
from control.moments import moment

ORGANIZATIONS_MAX: Final = 10_000  # of one: whoever wants more makes two
SAMPLE: Final = 5
OFFERED: Final[Mapping[str, Action[Any]]] = {
    name: ACTIONS[name]
    for name in (
        "override",
        "grant",
        "suspend",
        "resume",
        "shadow",
        "credit",
        "discount",
        "cancel",
        "resync",
        "reconcile",
    )
}
"""Others name something of one organization, or make a secret that is shown once."""
REFUSES: Final = (
    NotPossible,
    StripeRefused,
    BilledBySubscription,
    EntitlementMissing,
    PlanUnknown,
    MeterUnknown,
)
"""What an action is refused by: of this organization, not of all."""


class TooMany(Exception):
    """The filter matches more organizations than one action is done to."""


class CountDiffers(Exception):
    """The filter matches another number of organizations than were shown."""


@dataclass(frozen=True, slots=True)
class Sampled:
    org: str
    effect: Effect | None
    refused: str | None
    """Why it would not be done to this one."""


@dataclass(frozen=True, slots=True)
class BulkPreview:
    found: int
    sample: Sequence[Sampled]


async def preview(parts: ActionParts, action: Action[Any], chosen: Filter, call: Call[Any]) -> BulkPreview:
    """How many organizations there are, and what it would do to the first of them; `call` is for whichever.

    Raises TooMany, StoreUnavailable, LedgerUnavailable, StripeAway."""
    orgs = await _matching(parts, chosen)
    sample = [
        await _sampled(parts, action, Call(org, call.fields, call.reason, call.author, call.now))
        for org in orgs[:SAMPLE]
    ]
    return BulkPreview(len(orgs), sample)


async def begin(parts: ActionParts, action: Action[Any], chosen: Filter, call: Call[Any], found: int) -> UUID:
    """Has it done in the background, to the organizations that the filter matches now. Raises TooMany, CountDiffers."""
    id_, now = uuid7(), call.now
    content = {name: value for name, value in asdict(chosen).items() if value not in (None, False)}
    fields = call.fields.model_dump(mode="json")
    async with parts.db.transaction() as connection:
        orgs = await listing.every(connection, chosen, ORGANIZATIONS_MAX + 1)
        if len(orgs) > ORGANIZATIONS_MAX:
            raise TooMany
        if len(orgs) != found or not orgs:
            raise CountDiffers(f"The filter matches {len(orgs)} organizations now, not {found}: look at them again.")
        await sql.bulk.insert(
            connection,
            id=id_,
            name=action.name,
            fields=fields,
            filter=content,
            reason=call.reason,
            asked_by=call.author.actor,
            correlation_id=call.author.correlation_id,
            at=moment(now),
        )
        await sql.bulk.insert_items(connection, id=id_, orgs=orgs)
        after = {"id": str(id_), "action": action.name, "fields": fields, "filter": content, "organizations": len(orgs)}
        change = Change("bulk_action.begun", None, None, {**after, "reason": call.reason})
        await journal.record(connection, call.author, now, [change])
    return id_


async def stop(parts: ActionParts, id_: UUID, author: journal.Author, now: float) -> bool:
    """What is not begun is not done. False where there is no such action."""
    async with parts.db.transaction() as connection:
        stopped = await sql.bulk.stop(connection, id=id_, at=moment(now))
        if stopped is not None:
            await journal.record(connection, author, now, [Change("bulk_action.stopped", None, {"id": str(id_)}, None)])
    return stopped is not None


async def _matching(parts: ActionParts, chosen: Filter) -> list[str]:
    async with parts.db.connection() as connection:
        orgs = await listing.every(connection, chosen, ORGANIZATIONS_MAX + 1)
    if len(orgs) > ORGANIZATIONS_MAX:
        raise TooMany
    return orgs


async def _sampled(parts: ActionParts, action: Action[Any], call: Call[Any]) -> Sampled:
    try:
        return Sampled(call.org, await performing.preview(parts, action, call), None)
    except REFUSES as e:
        return Sampled(call.org, None, str(e))
