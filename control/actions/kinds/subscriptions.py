"""Another plan for who pays for one, and the end of that."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from control import sql
from control.access.permissions import Permission
from control.actions import invoices
from control.actions.action import Action, Call, Choices, Done, Look, Reversal
from control.actions.effect import InvoiceEffect
from control.actions.failures import ChangedSince, NotPossible
from control.actions.kinds.money import billing_of
from control.actions.parts import ActionParts
from control.billing import checkout
from control.billing.checkout import PreparedSwitch, Switch
from control.billing.failures import StripeAway, StripeRefused
from control.billing.objects import Object, id_of
from control.billing.parts import Billing
from control.db import Connection, StoreUnavailable, Transactions
from control.documents import Body, Whole
from control.entitlements.plans import PlanCode
from control.entitlements.schedule import schedule_of
from control.entitlements.subscribed import EntitlementTimeline, SubscribedTerms, follow
from control.moments import moment
from quota.model import Status

Quantity = Annotated[int, Whole, Field(ge=1, le=1_000_000)]


class SwitchFields(Body):
    plan: PlanCode
    interval: Literal["month", "year"] | None = None
    """Left out: as it is."""
    quantity: Quantity | None = None
    """Seats. Left out: as they are."""
    when: Literal["now", "period_end"] | None = None
    """Left out: a plan that costs more now, one that costs less at the end of the paid period."""


class SwitchPlan(Action[SwitchFields]):
    name = "switch"
    title = "Switch the plan"
    about = "The subscription's plan, interval or seats. An upgrade is prorated and invoiced at once."
    permission = Permission.BILLING_WRITE
    fields = SwitchFields
    outside = True

    async def look(self, parts: ActionParts, call: Call[SwitchFields]) -> Look:
        billing, fields = billing_of(parts), call.fields
        wanted = Switch(fields.plan, fields.interval, fields.quantity, None if not fields.when else _is_later(fields))
        prepared = await checkout.prepare_switch(parts.db, billing.client, call.org, wanted)
        return Look(
            basis=_basis(prepared.subscription),
            content=prepared,
            invoice=await _invoices_of_switch(billing, prepared),
            warnings=("A new billing period begins at once.",) if prepared.restarts and not prepared.later else (),
        )

    async def change(self, parts: ActionParts, db: Transactions, call: Call[SwitchFields], look: Look) -> Done:
        prepared: PreparedSwitch = look.content
        if not prepared.later:
            return Done(undo_says="It cannot be undone: it is invoiced at once. Switching back is another change.")
        if _waits(prepared.subscription):
            return Done(undo_says="It cannot be undone: another change waits already, and is replaced.")
        return Done(undo_says="Undo cancels it until the period ends; then it is in force.", undo={})

    async def foresee(self, parts: ActionParts, connection: Connection, call: Call[SwitchFields], look: Look) -> None:
        prepared: PreparedSwitch = look.content
        current = await _current(connection, call)
        if current is None:
            return
        version = await sql.plans.newest_of(connection, code=call.fields.plan)
        if version is None:
            return
        now = _terms(current)
        given = SubscribedTerms(
            subscription=now.subscription,
            plan_id=version.id,
            plan=version.code,
            plan_version=version.version,
            status=now.status,
            quantity=prepared.quantity,
            schedule=now.schedule,
        )
        ends = int(prepared.own["current_period_end"])
        timeline = EntitlementTimeline(now, later=((ends, given),)) if prepared.later else EntitlementTimeline(given)
        await _follow(parts, connection, call, timeline)

    async def perform(self, parts: ActionParts, call: Call[SwitchFields], look: Look, key: str) -> Mapping[str, Any]:
        billing, prepared = billing_of(parts), look.content
        when, made = await checkout.switch_as_prepared(billing.client, billing.overage, call.org, prepared, key)
        await _look_again(billing, made)
        return {"subscription": made["id"], "when": when, "pending": made.get("pending_update") is not None}

    async def look_back(self, parts: ActionParts, undo: Mapping[str, Any], call: Reversal) -> None:
        subscription = await checkout.subscription_of(parts.db, billing_of(parts).client, call.org)
        if subscription["id"] != undo["subscription"] or id_of(subscription.get("schedule")) is None:
            raise ChangedSince("The change does not wait any more: it is in force, or somebody cancelled it.")

    async def reverse(self, parts: ActionParts, db: Transactions, undo: Mapping[str, Any], call: Reversal) -> None:
        """Stripe holds it."""

    async def reverse_outside(self, parts: ActionParts, undo: Mapping[str, Any], call: Reversal, key: str) -> None:
        await _stay(parts, call)

    async def choices(self, parts: ActionParts, org: str) -> Choices:
        async with parts.db.connection() as connection:
            plans = await sql.plans.newest(connection)
        return {"plan": [(plan.code, plan.name) for plan in plans if plan.archived_at is None and plan.price_minor]}


class CancelFields(Body):
    when: Literal["now", "period_end"] = "period_end"


class CancelSubscription(Action[CancelFields]):
    name = "cancel"
    title = "Cancel the subscription"
    about = "At the end of the paid period, or at once; at once, a last invoice bills the overage until now."
    permission = Permission.BILLING_WRITE
    fields = CancelFields
    outside = True

    async def look(self, parts: ActionParts, call: Call[CancelFields]) -> Look:
        billing, later = billing_of(parts), _is_later(call.fields)
        subscription = await checkout.subscription_of(parts.db, billing.client, call.org)
        if later and (subscription.get("cancel_at_period_end") or subscription.get("cancel_at")):
            raise NotPossible("It is cancelled already, and ends by itself.")
        changed: Object | None = {"subscription_details": {"cancel_at_period_end": True}} if later else None
        says = "No further invoice, but for usage until the end." if later else "A last invoice bills the overage."
        return Look(
            basis=_basis(subscription),
            content=subscription,
            invoice=await invoices.effect_of(billing, subscription["id"], changed, says),
            warnings=() if later else ("What is paid for the rest of the period is not given back.",),
        )

    async def change(self, parts: ActionParts, db: Transactions, call: Call[CancelFields], look: Look) -> Done:
        if not _is_later(call.fields):
            return Done(undo_says="It cannot be undone: a subscription that has ended does not begin again.")
        if _waits(look.content):
            return Done(undo_says="It cannot be undone: another change waits already, and is dropped by this.")
        return Done(undo_says="Undo keeps the subscription, until the period ends.", undo={})

    async def foresee(self, parts: ActionParts, connection: Connection, call: Call[CancelFields], look: Look) -> None:
        current = await _current(connection, call)
        if current is None:
            return
        ends = int(look.content["items"]["data"][0]["current_period_end"])
        later = _is_later(call.fields)
        timeline = EntitlementTimeline(_terms(current), ends_at=ends) if later else EntitlementTimeline(None)
        await _follow(parts, connection, call, timeline)

    async def perform(self, parts: ActionParts, call: Call[CancelFields], look: Look, key: str) -> Mapping[str, Any]:
        billing = billing_of(parts)
        made = await checkout.cancel(
            parts.db, billing.client, billing.overage, call.org, at_period_end=_is_later(call.fields)
        )
        await _look_again(billing, made)
        return {"subscription": made["id"]}

    async def look_back(self, parts: ActionParts, undo: Mapping[str, Any], call: Reversal) -> None:
        subscription = await checkout.subscription_of(parts.db, billing_of(parts).client, call.org)
        if subscription["id"] != undo["subscription"] or not subscription.get("cancel_at_period_end"):
            raise ChangedSince("The subscription is not cancelled any more, or is another one.")

    async def reverse(self, parts: ActionParts, db: Transactions, undo: Mapping[str, Any], call: Reversal) -> None:
        """Stripe holds it."""

    async def reverse_outside(self, parts: ActionParts, undo: Mapping[str, Any], call: Reversal, key: str) -> None:
        await _stay(parts, call)


def _is_later(fields: SwitchFields | CancelFields) -> bool:
    return fields.when == "period_end"


def _waits(subscription: Object) -> bool:
    """Whether something waits for the period's end already."""
    return bool(
        id_of(subscription.get("schedule")) or subscription.get("cancel_at_period_end") or subscription.get("cancel_at")
    )


def _basis(subscription: Object) -> list[Any]:
    items = [(id_of(item["price"]), item.get("quantity")) for item in subscription["items"]["data"]]
    words = [subscription.get(name) for name in ("id", "status", "cancel_at", "cancel_at_period_end", "pending_update")]
    return [*words, id_of(subscription.get("schedule")), sorted(map(str, items))]


async def _invoices_of_switch(billing: Billing, prepared: PreparedSwitch) -> InvoiceEffect:
    subscription = prepared.subscription["id"]
    details = {"items": prepared.changed, "proration_behavior": "none"}
    says = "The next invoice is of the new plan." + ("" if prepared.later else " What is left of this period: now.")
    effect = await invoices.effect_of(billing, subscription, {"subscription_details": details}, says)
    if prepared.later or not effect.known:
        return effect
    at_once = {
        "subscription": subscription,
        "subscription_details": {**details, "proration_behavior": "always_invoice"},
    }
    try:
        return effect.model_copy(update={"now": await invoices.upcoming(billing, at_once)})
    except (StripeAway, StripeRefused) as e:
        return invoices.unknown(e)


async def _current(connection: Connection, call: Call[Any]) -> sql.entitlements.Entitlement | None:
    """The row in force that follows from the subscription."""
    rows = await sql.entitlements.timeline(connection, org=call.org, at=moment(call.now))
    current = rows[0] if rows and rows[0].effective_from <= moment(call.now) else None
    return current if current is not None and current.subscription is not None else None


def _terms(row: sql.entitlements.Entitlement) -> SubscribedTerms:
    return SubscribedTerms(
        subscription=row.subscription or "",
        plan_id=row.plan_id,
        plan=row.plan_code,
        plan_version=row.plan_version,
        status=Status[row.status.upper()],
        quantity=row.quantity,
        schedule=schedule_of(row),
    )


async def _follow(parts: ActionParts, connection: Connection, call: Call[Any], timeline: EntitlementTimeline) -> None:
    prorate = billing_of(parts).settings.upgrade_allowance == "prorated"
    await follow(connection, call.org, timeline, call.now, call.author, prorate=prorate)


async def _stay(parts: ActionParts, call: Reversal) -> None:
    billing = billing_of(parts)
    await _look_again(billing, await checkout.stay(parts.db, billing.client, call.org))


async def _look_again(billing: Billing, made: Object) -> None:
    """What was just changed is seen at once, without waiting for Stripe's webhook."""
    customer = id_of(made.get("customer"))
    if customer is not None:
        try:
            await billing.inbox.resync(customer)
        except StoreUnavailable:
            return  # the webhook tells it
