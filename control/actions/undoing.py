"""An action is undone, as long as what it left is still there."""

from typing import Any
from uuid import UUID

from control import journal, sql
from control.actions.action import Action, Reversal
from control.actions.failures import ActionUnknown, NotUndoable
from control.actions.lifecycle import ActionState, Event, state_after
from control.actions.parts import ActionParts
from control.actions.performing import found
from control.billing.failures import StripeAway, StripeRefused
from control.db import Connection, Joined
from control.journal import Author, Change
from control.moments import moment
from control.organizations.store import OrganizationUnknown
from control.sql.actions import AdminAction


async def undo(
    parts: ActionParts, action: Action[Any], row: AdminAction, reason: str, author: Author, now: float
) -> AdminAction:
    """Raises NotUndoable, ActionOver, ChangedSince, OrganizationUnknown, StoreUnavailable, and what Stripe refuses."""
    call = Reversal(row.org, reason, author, now)
    if row.undo is not None and row.state == ActionState.DONE.value:
        await action.look_back(parts, row.undo, call)
    async with parts.db.transaction() as connection:
        # The organization first, as everywhere.
        if await sql.organizations.lock(connection, org=row.org) is None:
            raise OrganizationUnknown(row.org)
        locked = await sql.actions.lock(connection, id=row.id)
        if locked is None:
            raise ActionUnknown(str(row.id))
        undoing = state_after(ActionState(locked.state), Event.UNDO)
        if locked.undo is None:
            raise NotUndoable(f"{action.title}: this cannot be undone.")
        await action.reverse(parts, Joined(connection), locked.undo, call)
        state = undoing if action.outside else state_after(undoing, Event.END_UNDO)
        await _set(connection, row.id, state, call)
        content = {"id": str(row.id), "action": action.name, "reason": reason}
        await journal.record(connection, author, now, [Change("action.undone", row.org, content, None)])
    if action.outside:
        await _undo_outside(parts, action, locked, call)
    await action.publish(parts, row.org)
    return await found(parts.db, row.id)


async def _undo_outside(parts: ActionParts, action: Action[Any], row: AdminAction, call: Reversal) -> None:
    try:
        await action.reverse_outside(parts, row.undo or {}, call, f"undo-{row.id}")
    except (StripeAway, StripeRefused) as e:
        async with parts.db.transaction() as connection:
            await _set(connection, row.id, state_after(ActionState.UNDOING, Event.FAIL_UNDO), None)
            await sql.actions.set_state(connection, id=row.id, state=ActionState.DONE.value, note=str(e))
            what: journal.Action = "action.unanswered" if isinstance(e, StripeAway) else "action.refused"
            content = {"id": str(row.id), "action": action.name, "undo": True, "reason": str(e)}
            await journal.record(connection, call.author, call.now, [Change(what, row.org, None, content)])
        raise
    async with parts.db.connection() as connection:
        await _set(connection, row.id, state_after(ActionState.UNDOING, Event.END_UNDO), call)


async def _set(connection: Connection, id_: UUID, state: ActionState, call: Reversal | None) -> None:
    await sql.actions.set_undone(
        connection,
        id=id_,
        state=state.value,
        undone_by=call.author.actor if call else None,
        undone_at=moment(call.now) if call else None,
        undo_reason=call.reason if call else None,
    )
