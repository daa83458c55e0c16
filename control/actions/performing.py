"""A preview shows what an action would do. With its state it is done, once, if nothing has changed meanwhile."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Final
from uuid import UUID

from control import journal, sql
from control.access.publishing import NotInForce
from control.actions.action import Action, Call, Done, Look
from control.actions.effect import Effect, Seen, UndoView, entitlement_effect, see, used_by
from control.actions.failures import ActionOver, ChangedSince
from control.actions.lifecycle import ActionState, Event, state_after
from control.actions.parts import ActionParts
from control.actions.previews import Preview, basis_of, new_preview, wanted_of
from control.actions.sums import needs_second_person
from control.aliases import named
from control.billing.failures import SecondPersonNeeded, StripeAway, StripeRefused
from control.db import Connection, Database, Joined
from control.ids import uuid7
from control.journal import Change
from control.moments import moment
from control.organizations.store import OrganizationUnknown
from control.sql.actions import AdminAction
from quota.ledger import LedgerUnavailable

CHANGES_SHOWN: Final = 20
_FAILURES: Final = (SecondPersonNeeded, StripeAway, StripeRefused, LedgerUnavailable)


@dataclass(frozen=True, slots=True)
class Performed:
    row: AdminAction
    shown: Mapping[str, str] = field(default_factory=dict)
    """Secrets; empty where it was done before, by the same preview."""
    in_force: bool = True
    """False: Redis is away. It is done, and gateways go by it as soon as Redis is back."""


async def preview(parts: ActionParts, action: Action[Any], call: Call[Any]) -> Effect:
    """The change is made and rolled back, so what is shown is what it does.

    Raises OrganizationUnknown, StoreUnavailable, and what the action raises."""
    look = await action.look(parts, call)
    used = await used_by(parts, call.org, call.now)
    async with _rolled_back(parts.db) as connection:
        before = await see(connection, call.org, call.now)
        second_person = await _waits(parts, connection, action, call, look)
        state = new_preview(
            await _basis(connection, before, look),
            wanted_of(action, call),
            await sql.actions.last_entry(connection, org=call.org),
        )
        done = await action.change(parts, Joined(connection), call, look)
        await action.foresee(parts, connection, call, look)
        after = await see(connection, call.org, call.now)
    return Effect(
        action=action.name,
        organization=call.org,
        entitlement=entitlement_effect(before, after, used, call.now),
        invoice=look.invoice,
        differences=[*look.differences, *done.differences],
        warnings=[*look.warnings, *done.warnings],
        undo=UndoView(possible=done.undo is not None, says=done.undo_says),
        second_person=second_person,
        state=str(state),
        as_of=moment(call.now),
    )


async def perform(parts: ActionParts, action: Action[Any], call: Call[Any], state: str) -> Performed:
    """Does it, or files it for a second person. The same state again does nothing more.

    Raises PreviewUnknown, ChangedSince, OrganizationUnknown, StoreUnavailable, and what the action raises."""
    seen = Preview.read(state)
    earlier = await _by_state(parts.db, state)
    if earlier is not None:
        return _repeated(earlier, action, call)
    look = await action.look(parts, call)
    async with parts.db.transaction() as connection:
        await _locked(connection, call.org)
        waits = await _waits(parts, connection, action, call, look)
        await check_unchanged(connection, action, call, look, seen)
        id_ = await _insert(connection, action, call, state, ActionState.WAITING if waits else ActionState.UNDER_WAY)
        if id_ is None:
            raise ActionOver("This was confirmed twice at once: look at the organization's actions.")
        done = None if waits else await change(parts, connection, action, call, look, id_)
        if waits:
            await _journal(connection, "action.requested", id_, action, call)
    if done is None:
        return Performed(await found(parts.db, id_))
    return await finish(parts, action, call, look, id_, done)


async def check_unchanged(
    connection: Connection, action: Action[Any], call: Call[Any], look: Look, seen: Preview
) -> None:
    """Raises ChangedSince, OrganizationUnknown."""
    if wanted_of(action, call) != seen.wanted:
        raise ChangedSince("This is not what the effect was shown of: look at the effect again.")
    if await _basis(connection, await see(connection, call.org, call.now), look) != seen.basis:
        raise await changed_since(connection, call.org, seen.last, "The organization has changed since then.")


async def changed_since(connection: Connection, org: str, last: UUID | None, message: str) -> ChangedSince:
    rows = await sql.actions.since(connection, org=org, after=last, limit_rows=CHANGES_SHOWN)
    entries = await named(connection, rows)
    if not entries:
        message += " It was at Stripe, or time itself: the journal has nothing of it."
    return ChangedSince(f"{message} Nothing was done: look at the effect again.", entries)


async def change(
    parts: ActionParts, connection: Connection, action: Action[Any], call: Call[Any], look: Look, id_: UUID
) -> Done:
    """What is done in the database, with its entry in the journal; in the transaction of the caller."""
    done = await action.change(parts, Joined(connection), call, look)
    await _journal(connection, "action.done", id_, action, call, {**done.content, "undoable": done.undo is not None})
    state = ActionState.UNDER_WAY if action.outside else state_after(ActionState.UNDER_WAY, Event.END)
    await sql.actions.set_done(connection, id=id_, state=state.value, done=done.content, undo=done.undo)
    return done


async def finish(
    parts: ActionParts, action: Action[Any], call: Call[Any], look: Look, id_: UUID, done: Done
) -> Performed:
    """What comes after the commit: Stripe, and Redis."""
    if action.outside:
        try:
            content = await action.perform(parts, call, look, f"action-{id_}")
        except _FAILURES as e:
            await _failed(parts, action, call, id_, e)
            raise
        state = state_after(ActionState.UNDER_WAY, Event.END)
        undo = None if done.undo is None else {**done.undo, **content}
        async with parts.db.connection() as connection:
            await sql.actions.set_done(
                connection, id=id_, state=state.value, done={**done.content, **content}, undo=undo
            )
    try:
        await action.publish(parts, call.org)
    except NotInForce:  # it is committed: a secret that was made is shown now or never
        return Performed(await found(parts.db, id_), done.shown, in_force=False)
    return Performed(await found(parts.db, id_), done.shown)


async def found(db: Database, id_: UUID) -> AdminAction:
    """Raises ActionOver where there is none."""
    async with db.connection() as connection:
        row = await sql.actions.find(connection, id=id_)
    if row is None:
        raise ActionOver(f"No action has the id {id_}.")
    return row


async def _failed(parts: ActionParts, action: Action[Any], call: Call[Any], id_: UUID, e: Exception) -> None:
    # An answer that did not come may have been a yes.
    unanswered = not isinstance(e, StripeRefused | SecondPersonNeeded)
    state = state_after(ActionState.UNDER_WAY, Event.MISS if unanswered else Event.REFUSE)
    async with parts.db.transaction() as connection:
        await sql.actions.set_state(connection, id=id_, state=state.value, note=str(e))
        what: journal.Action = "action.unanswered" if unanswered else "action.refused"
        await _journal(connection, what, id_, action, replace(call, reason=str(e)))


async def _waits(parts: ActionParts, connection: Connection, action: Action[Any], call: Call[Any], look: Look) -> bool:
    """Whether it needs a second person."""
    actor = call.author.actor
    return await needs_second_person(
        connection, parts.approvals, action.name, look.amount_minor, call.org, actor, call.now
    )


async def _by_state(db: Database, state: str) -> AdminAction | None:
    async with db.connection() as connection:
        return await sql.actions.by_token(connection, token=state)


def _repeated(earlier: AdminAction, action: Action[Any], call: Call[Any]) -> Performed:
    """Raises ChangedSince where the preview was used for something else."""
    same = (earlier.org, earlier.name, earlier.fields) == (call.org, action.name, call.fields.model_dump(mode="json"))
    if not same:
        raise ChangedSince("This is not what the effect was shown of: look at the effect again.")
    return Performed(earlier)


async def _locked(connection: Connection, org: str) -> None:
    if await sql.organizations.lock(connection, org=org) is None:
        raise OrganizationUnknown(org)


async def _insert(
    connection: Connection, action: Action[Any], call: Call[Any], token: str, state: ActionState
) -> UUID | None:
    return await sql.actions.insert(
        connection,
        id=uuid7(),
        org=call.org,
        name=action.name,
        fields=call.fields.model_dump(mode="json"),
        reason=call.reason,
        token=token,
        state=state.value,
        asked_by=call.author.actor,
        asked_at=moment(call.now),
    )


async def _basis(connection: Connection, seen: Seen, look: Look) -> str:
    return basis_of(seen, await sql.actions.newest_of(connection, org=seen.state.org), look.basis)


async def _journal(
    connection: Connection,
    what: journal.Action,
    id_: UUID,
    action: Action[Any],
    call: Call[Any],
    content: Mapping[str, Any] | None = None,
) -> None:
    after = {"id": str(id_), "action": action.name, "reason": call.reason}
    after |= {"fields": call.fields.model_dump(mode="json", exclude_none=True), **(content or {})}
    await journal.record(connection, call.author, call.now, [Change(what, call.org, None, after)])


class _RolledBack(Exception):
    """Ends a transaction that is not to be committed."""


@asynccontextmanager
async def _rolled_back(db: Database) -> AsyncIterator[Connection]:
    try:
        async with db.transaction() as connection:
            yield connection
            raise _RolledBack
    except _RolledBack:
        pass
