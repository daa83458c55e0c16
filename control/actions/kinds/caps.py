"""An organization's own cap of overage, set for its people by an admin."""

from collections.abc import Mapping
from typing import Annotated, Any

from control.access.permissions import Permission
from control.access.publishing import enforce
from control.actions.action import Action, Call, Choices, Done, Look, Reversal
from control.actions.effect import Difference
from control.actions.failures import ChangedSince, NotPossible
from control.actions.parts import ActionParts
from control.db import Transactions
from control.documents import Body, Whole
from control.entitlements import caps
from control.entitlements.caps import CapChanged
from control.entitlements.plans import Meter, Units
from control.entitlements.stored_state import known_meters


class CapFields(Body):
    meter: Meter
    units: Annotated[Units, Whole] | None = None
    """Units of a period beyond the allowance; 0: nothing is bought. Left out: no cap of the organization's own."""


class SetCap(Action[CapFields]):
    name = "cap"
    title = "Cap overage"
    about = (
        "The most units that the organization buys beyond an allowance, whatever its plan. Its owners may change it."
    )
    permission = Permission.CAPS_WRITE
    fields = CapFields

    async def change(self, parts: ActionParts, db: Transactions, call: Call[CapFields], look: Look) -> Done:
        meter, units = call.fields.meter, call.fields.units
        before = await caps.set_cap(db, call.org, meter, units, call.now, call.author)
        if before == units:
            raise NotPossible("It is so already.")
        content = {"meter": meter, "before": before, "after": units}
        return Done(
            undo_says="Undo sets again what is set now, as long as nobody has set anything else.",
            undo=content,
            content=content,
            differences=(Difference(what=f"Cap of {meter}", before=before, after=units),),
        )

    async def publish(self, parts: ActionParts, org: str) -> None:
        await enforce(parts.publisher, org)

    async def reverse(self, parts: ActionParts, db: Transactions, undo: Mapping[str, Any], call: Reversal) -> None:
        try:
            await caps.set_cap(db, call.org, undo["meter"], undo["before"], call.now, call.author, [undo["after"]])
        except CapChanged as e:
            raise ChangedSince(f"Somebody has set another cap since then. {e}") from e

    async def choices(self, parts: ActionParts, org: str) -> Choices:
        return {"meter": [(meter, meter) for meter in await known_meters(parts.db)]}
