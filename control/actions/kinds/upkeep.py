"""Making an organization what Stripe says, and its counters what the events say."""

from collections.abc import Mapping
from typing import Any

from control import sql
from control.access.permissions import Permission
from control.actions.action import Action, Call, Done, Look
from control.actions.effect import Difference
from control.actions.failures import NotPossible
from control.actions.kinds.money import billing_of
from control.actions.parts import ActionParts
from control.billing.client import pages
from control.billing.failures import NotSubscribed
from control.db import Transactions
from control.documents import Body
from control.reconcile.scan import Mismatch, WriterBehind


class UpkeepFields(Body):
    """Nothing is to be chosen."""


class Resync(Action[UpkeepFields]):
    name = "resync"
    title = "Resync with Stripe"
    about = "Looks at the customer at Stripe again, and makes the organization what Stripe says."
    permission = Permission.WEBHOOKS_WRITE
    fields = UpkeepFields
    outside = True

    async def look(self, parts: ActionParts, call: Call[UpkeepFields]) -> Look:
        billing = billing_of(parts)
        async with parts.db.connection() as connection:
            customers = [row.id for row in await sql.billing.customers_of(connection, org=call.org)]
            held = {row.id: row.status for row in await sql.billing.subscriptions_of(connection, org=call.org)}
        if not customers:
            raise NotSubscribed(call.org)
        there: dict[str, str] = {}
        for customer in customers:
            listed = await pages(billing.client, "/v1/subscriptions", {"customer": customer, "status": "all"})
            there |= {each["id"]: each["status"] for each in listed}
        differences = tuple(
            Difference(what=f"Subscription {id_}", before=held.get(id_), after=there.get(id_))
            for id_ in sorted({*held, *there})
            if held.get(id_) != there.get(id_)
        )
        warnings = () if differences else ("Each subscription has the state here that it has at Stripe.",)
        return Look(basis=there, content=customers, differences=differences, warnings=warnings)

    async def change(self, parts: ActionParts, db: Transactions, call: Call[UpkeepFields], look: Look) -> Done:
        return Done(undo_says="There is nothing to undo: afterwards it is as Stripe says. Change it there.")

    async def perform(self, parts: ActionParts, call: Call[UpkeepFields], look: Look, key: str) -> Mapping[str, Any]:
        for customer in look.content:
            await billing_of(parts).converger.converge(customer)
        return {"customers": look.content}


class Reconcile(Action[UpkeepFields]):
    name = "reconcile"
    title = "Reconcile counters"
    about = "Compares what Redis counts with the usage events, and repairs what differs."
    permission = Permission.INCIDENTS_WRITE
    fields = UpkeepFields
    outside = True

    async def look(self, parts: ActionParts, call: Call[UpkeepFields]) -> Look:
        try:
            mismatches = await parts.scan.check([call.org])
        except WriterBehind as e:
            raise NotPossible(f"It cannot be compared now, since events are still being written: {e}") from e
        drifts = [drift for mismatch in mismatches for drift in mismatch.drifts]
        differences = tuple(
            Difference(what=f"Counter {drift.field}", before=drift.counted, after=drift.events) for drift in drifts
        )
        return Look(
            basis=[[drift.field, drift.units] for drift in drifts],
            content=mismatches,
            differences=differences,
            warnings=() if drifts else ("Each counter is what the events say: nothing is to be repaired.",),
        )

    async def change(self, parts: ActionParts, db: Transactions, call: Call[UpkeepFields], look: Look) -> Done:
        return Done(undo_says="There is nothing to undo: afterwards the counters are what the events say.")

    async def perform(self, parts: ActionParts, call: Call[UpkeepFields], look: Look, key: str) -> Mapping[str, Any]:
        mismatches: list[Mismatch] = look.content
        repaired = [await parts.scan.repair(mismatch, call.author) for mismatch in mismatches]
        return {"repaired": sum(repaired)}

    async def publish(self, parts: ActionParts, org: str) -> None:
        """The counters are in Redis already."""
