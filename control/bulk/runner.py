"""The background service that does actions to many organizations, one after the other.

What it goes by is written before: the preview's state. Whoever begins again with an organization, after a crash, goes
by the same, and an action is done once by a state.
"""

import asyncio
from typing import Any, Final

import structlog
from pydantic import ValidationError

from control import sql
from control.access.signin.authors import Authors
from control.actions import performing
from control.actions.action import Action, Call
from control.actions.catalogue import action_of
from control.actions.failures import ActionOver, ActionUnknown, ChangedSince
from control.actions.lifecycle import ActionState
from control.actions.parts import ActionParts
from control.billing.failures import SecondPersonNeeded, StripeAway
from control.bulk.runs import REFUSES
from control.journal import Author
from control.moments import moment
from control.organizations.store import OrganizationDeleted, OrganizationUnknown
from control.sql.bulk import Item

log = structlog.get_logger()

ROUND_SECONDS: Final = 1.0
NOTE_CHARACTERS_MAX: Final = 500
CLAIM_SECONDS: Final = 120.0  # an action at Stripe takes seconds
ENDS: Final = (
    *REFUSES,
    OrganizationUnknown,
    OrganizationDeleted,
    ActionUnknown,
    ActionOver,
    ChangedSince,
    SecondPersonNeeded,
    ValidationError,
)


class BulkRunner:
    name = "bulk actions"

    def __init__(self, parts: ActionParts, authors: Authors) -> None:
        self._parts = parts
        self._authors = authors

    async def run(self) -> None:
        """Until it is cancelled. Raises StoreUnavailable, LedgerUnavailable; whoever runs it starts it again."""
        while True:
            if not await self.round():
                await asyncio.sleep(ROUND_SECONDS)

    async def round(self) -> bool:
        """Does it to one organization; False where there is nothing to do."""
        now = self._parts.clock()
        async with self._parts.db.connection() as connection:
            item = await sql.bulk.claim(connection, at=moment(now), until=moment(now + CLAIM_SECONDS))
        if item is None:
            return False
        try:
            state, note = await self._do(item, now)
        except ENDS as e:
            state, note = "refused", str(e)[:NOTE_CHARACTERS_MAX] or type(e).__name__
        except StripeAway as e:
            log.warning("an action for many organizations waits for Stripe", org=item.org, reason=str(e))
            return False  # somebody goes on with it when the claim is over
        async with self._parts.db.connection() as connection:
            await sql.bulk.end_item(connection, bulk=item.bulk, org=item.org, state=state, note=note)
        return True

    async def _do(self, item: Item, now: float) -> tuple[str, str | None]:
        action = action_of(item.name)
        if action.permission not in await self._authors.permissions_of(item.asked_by):
            # It is begun once, and done for minutes: meanwhile somebody may have lost what it needs.
            return "refused", f"{item.asked_by} may not do this any more."
        fields = action.fields.model_validate(item.fields)
        call = Call(item.org, fields, item.reason, Author(item.asked_by, item.correlation_id), now)
        token = item.token or await self._preview(item, action, call)
        try:
            performed = await performing.perform(self._parts, action, call, token)
        except ChangedSince:
            # Somebody else was at work on the organization just now. What is wanted of it is the same still.
            performed = await performing.perform(self._parts, action, call, await self._preview(item, action, call))
        state = ActionState(performed.row.state)
        if state is ActionState.WAITING:
            return "asked", None
        if state is ActionState.DONE:
            return "done", None
        return "refused", f"It was begun, and is {state.value}: look at the organization's actions."

    async def _preview(self, item: Item, action: Action[Any], call: Call[Any]) -> str:
        token = (await performing.preview(self._parts, action, call)).state
        async with self._parts.db.connection() as connection:
            await sql.bulk.set_token(connection, bulk=item.bulk, org=item.org, token=token)
        return token
