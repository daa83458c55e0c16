"""The next invoice, as Stripe's own preview has it."""

from typing import Any

from control.actions.effect import ComingInvoiceView, InvoiceEffect
from control.billing.client import ask
from control.billing.failures import StripeAway, StripeRefused
from control.billing.objects import Object
from control.billing.parts import Billing
from control.moments import moment


async def effect_of(billing: Billing, subscription: str | None, changed: Object | None, says: str) -> InvoiceEffect:
    """`changed`: what Stripe is told of the subscription for the invoice after; None: there is none then. It says so
    where Stripe does not answer."""
    if subscription is None:
        return InvoiceEffect.none("There is no subscription, so no invoice is to come.")
    try:
        before = await upcoming(billing, {"subscription": subscription})
        after = None if changed is None else await upcoming(billing, {"subscription": subscription, **changed})
    except (StripeAway, StripeRefused) as e:
        return unknown(e)
    return InvoiceEffect(before=before, after=after, now=None, known=True, says=says)


async def upcoming(billing: Billing, params: Object) -> ComingInvoiceView | None:
    """None: no invoice is to come. Raises StripeAway, StripeRefused."""
    wanted: Any = params
    try:
        made = await ask(billing.client.v1.invoices.create_preview_async(wanted))
    except StripeRefused as e:
        if e.code == "invoice_upcoming_none":
            return None
        raise
    return ComingInvoiceView(
        currency=made["currency"],
        total_minor=made["total"],
        due_minor=made["amount_due"],
        at=moment(made["period_end"]),
    )


def unknown(e: Exception) -> InvoiceEffect:
    says = f"What the next invoice will be is not known, since Stripe does not say it: {e}"
    return InvoiceEffect(before=None, after=None, now=None, known=False, says=says)


def less(effect: InvoiceEffect, amount_minor: int, currency: str, says: str) -> InvoiceEffect:
    """The same with so much more credit."""
    if effect.before is None or effect.before.currency != currency:
        return effect.model_copy(update={"after": effect.before, "says": says})
    due = max(0, effect.before.due_minor - amount_minor)
    return effect.model_copy(update={"after": effect.before.model_copy(update={"due_minor": due}), "says": says})
