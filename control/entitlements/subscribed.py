"""What follows from a subscription takes the place of what an organization had; what an admin laid over it stays.

A course that the organization has already changes nothing: no row, no version, no journal entry. That makes a webhook
harmless however often it comes.
"""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from control import journal
from control.db import Connection, Row, statements
from control.entitlements.schedule import columns, schedule_of, shown
from control.ids import uuid7
from control.journal import Author, Change
from control.moments import moment, rfc3339
from quota.model import Status
from quota.periods import Schedule


@dataclass(frozen=True, slots=True)
class Given:
    """Terms that follow from a subscription."""

    subscription: str
    plan_id: UUID
    plan: str
    plan_version: int
    status: Status
    quantity: int
    schedule: Schedule


@dataclass(frozen=True, slots=True)
class Course:
    """What an organization has, and will have."""

    now: Given | None
    later: tuple[tuple[int, Given], ...] = ()
    """From when on; in their order, all after now."""
    ends_at: int | None = None


OVERRIDES = ("policy", "allowances", "overage_max", "rate_requests", "rate_seconds", "rate_burst", "concurrent_max")


async def follow(connection: Connection, org: str, course: Course, now: float, author: Author) -> bool:
    """Has the organization's entitlement be what its subscription says, from now on; False where it is already.

    Its caller has locked the organization. What an admin gave to an organization that never had a subscription stays
    when there is none."""
    sql, at = statements("entitlements"), moment(now)
    rows = [row async for row in sql.timeline(connection, org=org, at=at)]
    current = rows[0] if rows and rows[0]["effective_from"] <= at else None
    if course.now is None and (current is None or current["subscription"] is None):
        return False
    before = [_told(row) for row in rows]
    after = _course(course, current, now)
    if before == after:
        return False
    await sql.drop_scheduled(connection, org=org, at=at)
    if current is not None and after and _same_terms(before[0], after[0]):
        await sql.end_at(connection, id=current["id"], at=_ends(after, 0, course))
    else:
        await sql.close_entitlement(connection, org=org, at=at)
        if course.now is not None:
            await _insert(connection, org, course.now, current, now, _ends(after, 0, course))
    for number, (starts, given) in enumerate(course.later, 1):
        await _insert(connection, org, given, current, starts, _ends(after, number, course))
    await sql.open_publication(connection, org=org)
    change = Change(
        "entitlement.subscribed", org, {"terms": before} if before else None, {"terms": after} if after else None
    )
    await journal.record(connection, author, now, [change])
    return True


async def _insert(
    connection: Connection, org: str, given: Given, current: Row | None, starts: float, ends_at: Any
) -> None:
    kept = {name: current[name] for name in OVERRIDES} if current is not None else dict.fromkeys(OVERRIDES)
    await statements("entitlements").insert_entitlement(
        connection,
        id=uuid7(),
        org=org,
        plan_id=given.plan_id,
        status=given.status.word,
        **{**kept, "allowances": kept["allowances"] or {}, "overage_max": kept["overage_max"] or {}},
        **columns(given.schedule),
        effective_from=moment(starts),
        effective_to=ends_at,
        subscription=given.subscription,
        quantity=given.quantity,
        held=current is not None and current["held"],
    )


def _ends(after: list[dict[str, Any]], number: int, course: Course) -> Any:
    if number < len(course.later):
        return moment(course.later[number][0])
    return None if course.ends_at is None else moment(course.ends_at)


def _told(row: Row) -> dict[str, Any]:
    return {
        "from": rfc3339(row["effective_from"].timestamp()),
        "to": None if row["effective_to"] is None else rfc3339(row["effective_to"].timestamp()),
        "plan": row["plan_code"],
        "plan_version": row["plan_version"],
        "status": row["status"],
        "quantity": row["quantity"],
        **shown(schedule_of(row)),
        "subscription": row["subscription"],
    }


def _course(course: Course, current: Row | None, now: float) -> list[dict[str, Any]]:
    if course.now is None:
        return []
    starts = [now, *(at for at, _ in course.later)]
    ends = [*starts[1:], course.ends_at]
    told = [
        {
            "from": rfc3339(start),
            "to": None if end is None else rfc3339(end),
            "plan": given.plan,
            "plan_version": given.plan_version,
            "status": given.status.word,
            "quantity": given.quantity,
            **shown(given.schedule),
            "subscription": given.subscription,
        }
        for given, start, end in zip([course.now, *(what for _, what in course.later)], starts, ends, strict=True)
    ]
    if current is not None and _same_terms(_told(current), told[0]):
        told[0]["from"] = rfc3339(current["effective_from"].timestamp())
    return told


def _same_terms(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return {**one, "from": None, "to": None} == {**other, "from": None, "to": None}
