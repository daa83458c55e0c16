"""Credit, refunds, coupons."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from control import sql
from control.access.permissions import Permission
from control.actions import invoices
from control.actions.action import Action, Call, Choices, Done, Look, Reversal
from control.actions.effect import Difference, InvoiceEffect
from control.actions.failures import ChangedSince, NotPossible
from control.actions.parts import ActionParts
from control.billing.client import listed, one
from control.billing.failures import NotSubscribed
from control.billing.objects import Object, id_of
from control.billing.parts import Billing
from control.currencies import in_main_unit
from control.db import Transactions
from control.documents import Body, Whole

CURRENCY_PATTERN = r"^[a-z]{3}$"
AmountMinor = Annotated[int, Whole, Field(ge=1, le=10**12)]
Currency = Annotated[str, Field(pattern=CURRENCY_PATTERN)]
StripeId = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,200}$")]
INVOICES_CHOSEN_FROM = 24
COUPONS_CHOSEN_FROM = 100


def billing_of(parts: ActionParts) -> Billing:
    """Raises NotPossible."""
    if parts.billing is None:
        raise NotPossible("Billing is off: no Stripe key is set.")
    return parts.billing


async def customer_of(parts: ActionParts, org: str) -> Object:
    """As Stripe has it. Raises NotSubscribed, NotPossible, StripeAway, StripeRefused."""
    billing = billing_of(parts)
    async with parts.db.connection() as connection:
        row = await sql.billing.customer_of(connection, org=org)
    if row is None:
        raise NotSubscribed(org)
    return await one(billing.client, "customers", row.id)


async def subscription_in_force(parts: ActionParts, org: str) -> str | None:
    async with parts.db.connection() as connection:
        return await sql.billing.subscription_in_force(connection, org=org)


class CreditFields(Body):
    amount_minor: AmountMinor
    """In the currency's minor unit: 1500 is 15.00 USD."""
    currency: Currency


class Credit(Action[CreditFields]):
    name = "credit"
    title = "Give credit"
    about = "Credit pays the next invoices."
    permission = Permission.MONEY_WRITE
    fields = CreditFields
    outside = True

    async def look(self, parts: ActionParts, call: Call[CreditFields]) -> Look:
        billing, customer, fields = billing_of(parts), await customer_of(parts, call.org), call.fields
        subscription = await subscription_in_force(parts, call.org)
        effect = await invoices.effect_of(billing, subscription, {}, "")
        says = "The credit pays this invoice, as far as it goes, and then the ones after it."
        own = customer.get("currency") in (None, fields.currency)
        balance = -int(customer.get("balance") or 0)
        return Look(
            basis=balance,
            amount_minor=fields.amount_minor,
            invoice=invoices.less(effect, fields.amount_minor, fields.currency, says) if effect.known else effect,
            differences=(
                Difference(
                    what="Credit", before=balance, after=balance + fields.amount_minor, currency=fields.currency
                ),
            )
            if own
            else (),
            warnings=() if own else (f"The customer pays in {customer['currency']}: this credit would not be used.",),
        )

    async def change(self, parts: ActionParts, db: Transactions, call: Call[CreditFields], look: Look) -> Done:
        says = "Undo takes the credit back, as long as no invoice has used it."
        return Done(undo_says=says, undo=call.fields.model_dump())

    async def perform(self, parts: ActionParts, call: Call[CreditFields], look: Look, key: str) -> Mapping[str, Any]:
        fields = call.fields
        row = await billing_of(parts).money.credit(
            call.org,
            fields.amount_minor,
            fields.currency,
            call.reason,
            key,
            call.author,
            approved=call.approved,
        )
        return {"entry": row["id"]}

    async def publish(self, parts: ActionParts, org: str) -> None:
        """Nothing that gateways go by has changed."""

    async def currency(self, parts: ActionParts, org: str, given: Mapping[str, str]) -> str | None:
        currency = given.get("currency", "")
        return currency if re.fullmatch(CURRENCY_PATTERN, currency) else None

    async def look_back(self, parts: ActionParts, undo: Mapping[str, Any], call: Reversal) -> None:
        customer = await customer_of(parts, call.org)
        if customer.get("currency") == undo["currency"] and -int(customer["balance"]) < undo["amount_minor"]:
            raise ChangedSince("An invoice has used the credit, so it cannot be taken back.")

    async def reverse(self, parts: ActionParts, db: Transactions, undo: Mapping[str, Any], call: Reversal) -> None:
        """Stripe holds it."""

    async def reverse_outside(self, parts: ActionParts, undo: Mapping[str, Any], call: Reversal, key: str) -> None:
        await billing_of(parts).money.take_back(
            call.org, undo["amount_minor"], undo["currency"], call.reason, key, call.author
        )


class RefundFields(Body):
    invoice: StripeId
    """A paid invoice, whose money goes back, or an open one, which is reduced."""
    amount_minor: AmountMinor | None = None
    """In the currency's minor unit. Left out: all of it."""
    to: Literal["card", "balance"] = "card"
    """card: back the way it came. balance: it becomes credit for the next invoices."""


class Refund(Action[RefundFields]):
    name = "refund"
    title = "Refund an invoice"
    about = "Money goes back, or an open invoice is reduced, by a credit note."
    permission = Permission.MONEY_WRITE
    fields = RefundFields
    outside = True

    async def look(self, parts: ActionParts, call: Call[RefundFields]) -> Look:
        billing, customer, fields = billing_of(parts), await customer_of(parts, call.org), call.fields
        invoice = await one(billing.client, "invoices", fields.invoice)
        if id_of(invoice["customer"]) != customer["id"]:
            raise NotPossible(f"The organization has no invoice {fields.invoice}.")
        given = invoice["post_payment_credit_notes_amount"] + invoice["pre_payment_credit_notes_amount"]
        paid, amount = invoice["status"] == "paid", fields.amount_minor or invoice["total"]
        if amount > invoice["total"] - given:
            raise NotPossible("It is more than what is left of the invoice.")
        effect = InvoiceEffect.none("The next invoice stays as it is.")
        if paid and fields.to == "balance":
            subscription = await subscription_in_force(parts, call.org)
            effect = await invoices.effect_of(billing, subscription, {}, "")
            if effect.known:
                effect = invoices.less(effect, amount, invoice["currency"], "It becomes credit, which pays this one.")
        what = "given back" if paid else "reduced by"
        called = invoice.get("number") or invoice["id"]
        return Look(
            basis=[invoice["status"], given, invoice["amount_remaining"]],
            amount_minor=amount,
            invoice=effect,
            differences=(
                Difference(
                    what=f"Invoice {called}: {what}",
                    before=given,
                    after=given + amount,
                    currency=invoice["currency"],
                ),
            ),
        )

    async def change(self, parts: ActionParts, db: Transactions, call: Call[RefundFields], look: Look) -> Done:
        return Done(undo_says="It cannot be undone: a credit note is final, and money that left does not come back.")

    async def perform(self, parts: ActionParts, call: Call[RefundFields], look: Look, key: str) -> Mapping[str, Any]:
        row = await billing_of(parts).money.refund(
            call.org,
            call.fields.invoice,
            call.fields.amount_minor,
            to_balance=call.fields.to == "balance",
            reason=call.reason,
            key=key,
            author=call.author,
            approved=call.approved,
        )
        return {"entry": row["id"]}

    async def publish(self, parts: ActionParts, org: str) -> None:
        """Nothing that gateways go by has changed."""

    async def currency(self, parts: ActionParts, org: str, given: Mapping[str, str]) -> str | None:
        async with parts.db.connection() as connection:
            return await sql.billing.currency_of_invoice(connection, org=org, id=given.get("invoice", ""))

    async def choices(self, parts: ActionParts, org: str) -> Choices:
        async with parts.db.connection() as connection:
            rows = await sql.billing.invoices_of(connection, org=org, before=None, limit_rows=INVOICES_CHOSEN_FROM)
        return {
            "invoice": [
                (row.id, f"{row.number or row.id}, {row.created_at:%Y-%m-%d}, {row.status}")
                for row in rows
                if row.status in ("paid", "open")
            ]
        }


class DiscountFields(Body):
    coupon: StripeId | None = None
    """Its id at Stripe. Left out: the discounts are taken away."""


class Discount(Action[DiscountFields]):
    name = "discount"
    title = "Give a coupon"
    about = "The subscription's discounts become this coupon, from the next invoice on."
    permission = Permission.MONEY_WRITE
    fields = DiscountFields
    outside = True

    async def look(self, parts: ActionParts, call: Call[DiscountFields]) -> Look:
        billing, coupon = billing_of(parts), call.fields.coupon
        subscription = await billing.money.discounted(call.org)
        coupons = _coupons_of(subscription)
        if coupon is not None:
            await one(billing.client, "coupons", coupon)
        changed: Object = {"discounts": [{"coupon": coupon}] if coupon else ""}
        says = "The discount is taken off the invoices as its coupon says: once, for months, or for ever."
        return Look(
            basis=coupons,
            content=subscription,
            invoice=await invoices.effect_of(billing, subscription["id"], changed, says),
            differences=(
                Difference(what="Coupons", before=[each["id"] for each in coupons], after=[coupon] if coupon else []),
            ),
        )

    async def change(self, parts: ActionParts, db: Transactions, call: Call[DiscountFields], look: Look) -> Done:
        before = _coupons_of(look.content)
        if len(before) > 1 or any(each["duration"] != "forever" for each in before):
            return Done(undo_says="It cannot be undone exactly: what is left of the discount before would begin anew.")
        undo = {"before": before[0]["id"] if before else None, "left": call.fields.coupon}
        return Done(undo_says="Undo restores the discount that there is now.", undo=undo)

    async def perform(self, parts: ActionParts, call: Call[DiscountFields], look: Look, key: str) -> Mapping[str, Any]:
        await billing_of(parts).money.discount(call.org, call.fields.coupon, call.author)
        return {}

    async def publish(self, parts: ActionParts, org: str) -> None:
        """Nothing that gateways go by has changed."""

    async def choices(self, parts: ActionParts, org: str) -> Choices:
        """None where Stripe has more than fit into a list. Raises StripeAway, StripeRefused."""
        if parts.billing is None:
            return {}
        coupons = []
        async for coupon in listed(parts.billing.client, "/v1/coupons", {}):
            coupons.append(coupon)
            if len(coupons) > COUPONS_CHOSEN_FROM:
                return {}
        return {"coupon": [(each["id"], _off(each)) for each in coupons if each["valid"]]}

    async def look_back(self, parts: ActionParts, undo: Mapping[str, Any], call: Reversal) -> None:
        there = [each["id"] for each in _coupons_of(await billing_of(parts).money.discounted(call.org))]
        if there != ([undo["left"]] if undo["left"] else []):
            raise ChangedSince("The discount is not the one that was given: it is used up, or somebody set another.")

    async def reverse(self, parts: ActionParts, db: Transactions, undo: Mapping[str, Any], call: Reversal) -> None:
        """Stripe holds it."""

    async def reverse_outside(self, parts: ActionParts, undo: Mapping[str, Any], call: Reversal, key: str) -> None:
        await billing_of(parts).money.discount(call.org, undo["before"], call.author)


def _off(coupon: Object) -> str:
    """What a coupon takes off, and how often."""
    percent, currency = coupon["percent_off"], coupon["currency"]
    off = f"{percent:g} %" if percent else f"{in_main_unit(coupon['amount_off'], currency)} {currency.upper()}"
    months = coupon["duration_in_months"]
    lasts = {"once": "once", "forever": "for ever"}.get(coupon["duration"], f"for {months} months")
    called = f"{coupon['name']} ({coupon['id']})" if coupon["name"] else coupon["id"]
    return f"{called}: {off} off, {lasts}"


def _coupons_of(subscription: Object) -> list[Object]:
    """Id and duration of each coupon; `discounts` and their coupons are expanded."""
    coupons = [each["source"]["coupon"] for each in subscription.get("discounts") or []]
    return [{"id": coupon["id"], "duration": coupon["duration"]} for coupon in coupons]
