"""Extra units with an expiry."""

from collections.abc import Mapping
from typing import Annotated, Any
from uuid import UUID

from pydantic import Field

from control.access.permissions import Permission
from control.actions.action import Action, Call, Choices, Done, Look, Reversal
from control.actions.failures import ChangedSince, NotPossible
from control.actions.parts import ActionParts
from control.db import Transactions
from control.documents import Body, BoundedMoment, Whole
from control.entitlements import grants
from control.entitlements.grants import NewGrant, TooManyGrants
from control.entitlements.plans import Meter
from control.entitlements.stored_state import known_meters
from quota.model import UNITS_MAX


class GrantFields(Body):
    meter: Meter
    units: Annotated[int, Whole, Field(ge=1, le=UNITS_MAX)]
    """They are used after the allowance, those that expire first before the others."""
    expires_at: BoundedMoment
    """As in 2026-11-30T23:59:59Z. The units that are left at this time are void."""


class Grant(Action[GrantFields]):
    name = "grant"
    title = "Grant units"
    about = "Extra units until a time, on top of the allowance."
    permission = Permission.GRANTS_WRITE
    fields = GrantFields

    async def change(self, parts: ActionParts, db: Transactions, call: Call[GrantFields], look: Look) -> Done:
        fields = call.fields
        if fields.expires_at.timestamp() <= call.now:
            raise NotPossible("The grant would have expired already.")
        new = NewGrant(fields.meter, fields.units, fields.expires_at.replace(microsecond=0), call.reason)
        try:
            made, _ = await grants.create(db, call.org, new, None, call.now, call.author)
        except TooManyGrants as e:
            raise NotPossible(str(e)) from e
        says = "Undo voids what is left of it. What was used of it by then stays used, and stays paid."
        return Done(undo_says=says, undo={"grant": str(made.id)}, content={"grant": str(made.id)})

    async def reverse(self, parts: ActionParts, db: Transactions, undo: Mapping[str, Any], call: Reversal) -> None:
        if not await grants.revoke(db, call.org, UUID(undo["grant"]), call.now, call.author):
            raise ChangedSince("The grant is not there any more.")

    async def choices(self, parts: ActionParts, org: str) -> Choices:
        return {"meter": [(meter, meter) for meter in await known_meters(parts.db)]}
