"""Actions that wait for a second person, who approves or declines them."""

from datetime import timedelta
from typing import Any, Final

from control import journal, sql
from control.actions import performing
from control.actions.action import Action, Call
from control.actions.failures import ActionOver, ActionUnknown, SamePerson
from control.actions.lifecycle import ActionState, Event, state_after
from control.actions.parts import ActionParts
from control.actions.performing import Performed, check_unchanged, found
from control.actions.persons import person_behind
from control.actions.previews import Preview
from control.db import Connection
from control.journal import Author, Change
from control.moments import moment
from control.organizations.store import OrganizationUnknown
from control.sql.actions import AdminAction

WAITS_DAYS: Final = 7


async def approve(
    parts: ActionParts, action: Action[Any], row: AdminAction, state: str, author: Author, now: float
) -> Performed:
    """`state`: of the effect that the second person has seen.

    Raises SamePerson, ActionOver, ChangedSince, PreviewUnknown, and what the action raises."""
    seen = Preview.read(state)
    call = Call(row.org, action.fields.model_validate(row.fields), row.reason, author, now, approved=True)
    look = await action.look(parts, call)
    async with parts.db.transaction() as connection:
        await _lock(connection, row)
        await _check_other_person(connection, row, author)
        _check_in_time(row, now)
        under_way = await _decide(connection, row, Event.APPROVE, author, now, None)
        await check_unchanged(connection, action, call, look, seen)
        await sql.actions.set_state(connection, id=row.id, state=under_way.value, note=None)
        done = await performing.change(parts, connection, action, call, look, row.id)
    return await performing.finish(parts, action, call, look, row.id, done)


async def decline(parts: ActionParts, row: AdminAction, reason: str, author: Author, now: float) -> AdminAction:
    """By whoever asked for it, it is withdrawn. Raises ActionOver."""
    async with parts.db.transaction() as connection:
        await _lock(connection, row)
        own = await _is_same_person(connection, row, author)
        await _decide(connection, row, Event.WITHDRAW if own else Event.DECLINE, author, now, reason)
        what: journal.Action = "action.withdrawn" if own else "action.declined"
        content = {"id": str(row.id), "action": row.name, "reason": reason}
        await journal.record(connection, author, now, [Change(what, row.org, content, None)])
    return await found(parts.db, row.id)


async def _lock(connection: Connection, row: AdminAction) -> None:
    # The organization first, as everywhere.
    if await sql.organizations.lock(connection, org=row.org) is None:
        raise OrganizationUnknown(row.org)


async def _decide(
    connection: Connection, row: AdminAction, event: Event, author: Author, now: float, note: str | None
) -> ActionState:
    locked = await sql.actions.lock(connection, id=row.id)
    if locked is None:
        raise ActionUnknown(str(row.id))
    after = state_after(ActionState(locked.state), event)
    # While it is looked at whether anything has changed, it still waits: this action is not one of the changes.
    shown = ActionState.WAITING if event is Event.APPROVE else after
    await sql.actions.decide(
        connection, id=row.id, state=shown.value, decided_by=author.actor, decided_at=moment(now), note=note
    )
    return after


async def _check_other_person(connection: Connection, row: AdminAction, author: Author) -> None:
    if await _is_same_person(connection, row, author):
        raise SamePerson(
            "Another person has to approve this: whoever asked for it cannot, nor a link or token of theirs."
        )


async def _is_same_person(connection: Connection, row: AdminAction, author: Author) -> bool:
    return await person_behind(connection, row.asked_by) == await person_behind(connection, author.actor)


def _check_in_time(row: AdminAction, now: float) -> None:
    if row.asked_at < moment(now) - timedelta(days=WAITS_DAYS):
        raise ActionOver(f"The request is older than {WAITS_DAYS} days: ask for it again.")
