"""Shadow mode, on and off."""

from collections.abc import Mapping
from typing import Any, Literal

from control.access.permissions import Permission
from control.access.publishing import enforce
from control.actions.action import Action, Call, Done, Look, Reversal
from control.actions.failures import ChangedSince, NotPossible
from control.actions.parts import ActionParts
from control.db import Transactions
from control.documents import Body
from control.entitlements.shadow import set_shadow
from control.entitlements.stored_state import load_state


class ShadowFields(Body):
    mode: Literal["on", "off"]
    """on: nothing of the organization is refused for its plan or quota. off: it is, as of all others."""


class Shadow(Action[ShadowFields]):
    name = "shadow"
    title = "Shadow mode"
    about = "What would be refused is recorded and shown among the decisions, and goes on without a charge."
    permission = Permission.ENTITLEMENTS_WRITE
    fields = ShadowFields

    async def change(self, parts: ActionParts, db: Transactions, call: Call[ShadowFields], look: Look) -> Done:
        on = call.fields.mode == "on"
        if not await set_shadow(db, call.org, on, call.reason, call.now, call.author):
            raise NotPossible("It is in shadow mode already." if on else "It is not in shadow mode.")
        return Done(
            undo_says="Undo ends shadow mode." if on else "Undo begins shadow mode again.",
            undo={"shadow": on},
            warnings=await self._warnings(db, call) if on else (),
        )

    async def _warnings(self, db: Transactions, call: Call[ShadowFields]) -> tuple[str, ...]:
        async with db.connection() as connection:
            state = await load_state(connection, call.org, call.now)
        if state is not None and state.terms is not None and state.terms.admin_suspended:
            return ("It is suspended: its requests pass all the same, and are not charged.",)
        return ()

    async def publish(self, parts: ActionParts, org: str) -> None:
        await enforce(parts.publisher, org)

    async def reverse(self, parts: ActionParts, db: Transactions, undo: Mapping[str, Any], call: Reversal) -> None:
        if not await set_shadow(db, call.org, not undo["shadow"], call.reason, call.now, call.author):
            raise ChangedSince("It is so already: somebody else was faster.")
