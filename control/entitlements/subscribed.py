"""An organization's entitlement follows its subscription. An admin's overrides are elsewhere (`entitlement_override`):
they hold whatever the subscription does, and while there is none.

If the organization has the timeline already, nothing changes: no row, no version, no journal entry. So a webhook that
comes again is harmless.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

from control import journal, sql
from control.db import Connection
from control.entitlements.schedule import columns, schedule_of
from control.entitlements.set_terms import TimelineEntry
from control.ids import uuid7
from control.journal import Author, Change
from control.moments import moment
from quota.model import Status
from quota.periods import Schedule


@dataclass(frozen=True, slots=True)
class SubscribedTerms:
    """Terms that follow from a subscription."""

    subscription: str
    plan_id: UUID
    plan: str
    plan_version: int
    status: Status
    quantity: int
    schedule: Schedule


@dataclass(frozen=True, slots=True)
class EntitlementTimeline:
    """What an organization has, and will have."""

    now: SubscribedTerms | None
    later: tuple[tuple[int, SubscribedTerms], ...] = ()
    """From when on; in their order, all after now."""
    ends_at: int | None = None


async def follow(
    connection: Connection,
    org: str,
    timeline: EntitlementTimeline,
    now: float,
    author: Author,
    *,
    prorate: bool = False,
) -> bool:
    """Makes the organization's entitlement what its subscription says, from now on; False where it is so already.

    The caller holds the organization's lock. What an admin gave to an organization that never had a subscription stays
    when there is none. `prorate`: an upgrade adds to the allowances only the share of the period that is left."""
    at = moment(now)
    rows = await sql.entitlements.timeline(connection, org=org, at=at)
    current = rows[0] if rows and rows[0].effective_from <= at else None
    if timeline.now is None and (current is None or current.subscription is None):
        return False
    before = _merged([_entry_of(row) for row in rows])
    after = _entries_of(timeline, current, now)
    if before == after:
        return False
    await sql.entitlements.drop_scheduled(connection, org=org, at=at)
    given, ends = timeline.now, _ends(0, timeline)
    if given is not None and current is not None and before[0].has_terms_of(after[0]):
        await _end(connection, org, given, current, now, ends)
    else:
        await sql.entitlements.close_entitlement(connection, org=org, at=at)
        if given is not None:
            prorated = await _prorated(connection, given, current, now) if prorate and current is not None else {}
            await _insert(connection, org, given, now, ends, prorated)
    for number, (starts, later) in enumerate(timeline.later, 1):
        await _insert(connection, org, later, starts, _ends(number, timeline))
    await sql.entitlements.open_publication(connection, org=org)
    journaled = [{"terms": [each.journaled() for each in terms]} if terms else None for terms in (before, after)]
    change = Change("entitlement.subscribed", org, journaled[0], journaled[1])
    await journal.record(connection, author, now, [change])
    return True


async def _prorated(
    connection: Connection, given: SubscribedTerms, current: sql.entitlements.Entitlement, now: float
) -> dict[str, int]:
    """Allowances until the period's end, of meters of which there are more than before."""
    period = given.schedule.period_at(now)
    if current.subscription != given.subscription or schedule_of(current) != given.schedule or period is None:
        return {}
    plans = {current.plan_id: dict[str, int](), given.plan_id: dict[str, int]()}
    for row in await sql.entitlements.allowances(connection, plan_ids=list(plans)):
        plans[row.plan_id][row.meter] = row.allowance
    had = {meter: units * current.quantity for meter, units in plans[current.plan_id].items()}
    had |= current.prorated
    added = {meter: units * given.quantity - had.get(meter, 0) for meter, units in plans[given.plan_id].items()}
    left = period.end - math.floor(now)
    # Rounded up: the part of a unit is the customer's.
    return {m: had.get(m, 0) - (-n * left // period.seconds) for m, n in added.items() if n > 0}


async def _end(
    connection: Connection,
    org: str,
    given: SubscribedTerms,
    current: sql.entitlements.Entitlement,
    now: float,
    ends: datetime | None,
) -> None:
    """Ends the row in force. A prorated one ends with its period, and a row with the full allowances follows."""
    period = given.schedule.period_at(now) if current.prorated else None
    boundary = None if period is None else moment(period.end)
    first_ends = ends if boundary is None or (ends is not None and ends <= boundary) else boundary
    await sql.entitlements.end_at(connection, id=current.id, at=first_ends)
    if period is not None and first_ends != ends:
        await _insert(connection, org, given, period.end, ends)


async def _insert(
    connection: Connection,
    org: str,
    given: SubscribedTerms,
    starts: float,
    ends: datetime | None,
    prorated: Mapping[str, int] | None = None,
) -> None:
    """Inserts a row. A prorated one is followed by a row with the full allowances from the end of its period."""
    period = given.schedule.period_at(starts) if prorated else None
    boundary = None if period is None else moment(period.end)
    first_ends = ends if boundary is None or (ends is not None and ends <= boundary) else boundary
    await sql.entitlements.insert_entitlement(
        connection,
        id=uuid7(),
        org=org,
        plan_id=given.plan_id,
        status=given.status.word,
        **columns(given.schedule),
        effective_from=moment(starts),
        effective_to=first_ends,
        subscription=given.subscription,
        quantity=given.quantity,
        prorated=dict(prorated or {}),
    )
    if period is not None and first_ends != ends:
        await _insert(connection, org, given, period.end, ends)


def _merged(entries: list[TimelineEntry]) -> list[TimelineEntry]:
    """Merges rows that follow each other with the same terms: only their proration differs."""
    merged: list[TimelineEntry] = []
    for each in entries:
        if merged and merged[-1].ends == each.starts and merged[-1].has_terms_of(each):
            merged[-1] = replace(merged[-1], ends=each.ends)
        else:
            merged.append(each)
    return merged


def _ends(number: int, timeline: EntitlementTimeline) -> datetime | None:
    if number < len(timeline.later):
        return moment(timeline.later[number][0])
    return None if timeline.ends_at is None else moment(timeline.ends_at)


def _entry_of(row: sql.entitlements.Entitlement) -> TimelineEntry:
    return TimelineEntry(
        starts=int(row.effective_from.timestamp()),
        ends=None if row.effective_to is None else int(row.effective_to.timestamp()),
        plan=row.plan_code,
        plan_version=row.plan_version,
        status=row.status,
        quantity=row.quantity,
        schedule=schedule_of(row),
        subscription=row.subscription,
    )


def _entries_of(
    timeline: EntitlementTimeline, current: sql.entitlements.Entitlement | None, now: float
) -> list[TimelineEntry]:
    if timeline.now is None:
        return []
    starts = [now, *(at for at, _ in timeline.later)]
    ends = [*starts[1:], timeline.ends_at]
    entries = [
        TimelineEntry(
            starts=int(start),
            ends=None if end is None else int(end),
            plan=given.plan,
            plan_version=given.plan_version,
            status=given.status.word,
            quantity=given.quantity,
            schedule=given.schedule,
            subscription=given.subscription,
        )
        for given, start, end in zip([timeline.now, *(what for _, what in timeline.later)], starts, ends, strict=True)
    ]
    if current is not None and _entry_of(current).has_terms_of(entries[0]):
        entries[0] = replace(entries[0], starts=int(current.effective_from.timestamp()))
    return entries
