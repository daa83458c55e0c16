"""Credit, refunds, coupons and discounts, for admins; an organization's ledger of them."""

from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any, Literal, Self
from uuid import uuid4

from fastapi import APIRouter, Query
from pydantic import Field, model_validator

from control import sql
from control.access.permissions import Permission
from control.api.billing import IdempotencyKey, billing_of
from control.cursors import read_page
from control.documents import Body, Moment, View, Whole
from control.http.context import Ctx
from control.http.guards import Allowed, Alone, CallAuthor, Known, OfOrganization, Org, refuse_money_alone
from control.http.refusals import DOCUMENTED

router = APIRouter(prefix="/v1", tags=["billing"], responses=DOCUMENTED)

AmountMinor = Annotated[int, Whole, Field(strict=True, ge=1, le=10**12)]
Currency = Annotated[str, Field(pattern=r"^[a-z]{3}$")]
Reason = Annotated[str, Field(min_length=1, max_length=300)]
StripeId = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,200}$")]


class CreditBody(Body):
    """Credit that pays the next invoices."""

    amount_minor: AmountMinor
    currency: Currency
    reason: Reason


class RefundBody(Body):
    """A refund of a paid invoice, or a reduction of an open one."""

    invoice: StripeId
    amount_minor: AmountMinor | None = None
    """Left out: all of it."""
    to: Literal["card", "balance"] = "card"
    """card: the money goes back to the payment method. balance: it becomes credit for the next invoices."""
    reason: Reason


class CouponBody(Body):
    """A discount: a share of the price, or an amount."""

    id: StripeId | None = None
    """Left out: Stripe chooses one."""
    name: Annotated[str, Field(min_length=1, max_length=40)] | None = None
    percent_off: Annotated[float, Field(gt=0, le=100)] | None = None
    amount_off_minor: AmountMinor | None = None
    currency: Currency | None = None
    duration: Literal["once", "repeating", "forever"] = "once"
    months: Annotated[int, Whole, Field(strict=True, ge=1, le=36)] | None = None
    max_redemptions: Annotated[int, Whole, Field(strict=True, ge=1)] | None = None
    redeem_by: Moment | None = None

    @model_validator(mode="after")
    def _is_one_thing(self) -> Self:
        if (self.percent_off is None) == (self.amount_off_minor is None):
            raise ValueError("either percent_off or amount_off_minor must be given")
        if (self.amount_off_minor is None) != (self.currency is None):
            raise ValueError("amount_off_minor and currency go together")
        if (self.duration == "repeating") != (self.months is not None):
            raise ValueError("duration repeating and months go together")
        return self


class CouponView(View):
    id: str


class PromotionCodeBody(Body):
    """A code that customers type when they pay."""

    coupon: StripeId
    code: Annotated[str, Field(pattern=r"^[A-Za-z0-9-]{1,100}$")]
    max_redemptions: Annotated[int, Whole, Field(strict=True, ge=1)] | None = None
    expires_at: Moment | None = None


class PromotionCodeView(View):
    id: str
    code: str


class DiscountBody(Body):
    coupon: StripeId | None
    """null: removes the discounts."""


class EntryView(View):
    """A credit note, refund, dispute or change of the balance; amounts in minor units."""

    id: str
    kind: Literal["credit_note", "refund", "dispute", "balance"]
    invoice: str | None
    amount_minor: int
    """The amount that the organization was given or got back; negative if credit was taken from it."""
    currency: str
    status: str | None
    reason: str | None
    created_at: datetime

    @model_validator(mode="before")
    @classmethod
    def _from_the_organizations_side(cls, row: Any) -> Any:
        # Stripe keeps what a customer owes: credit is below zero there.
        return {**row, "amount_minor": -row["amount_minor"]} if row["kind"] == "balance" else row


class EntryPage(View):
    entries: list[EntryView]
    """The newest first."""
    next: str | None


@router.post("/organizations/{org}/credits", status_code=201, dependencies=[Allowed(Permission.MONEY_WRITE), Known])
async def give_credit(
    org: Org, body: CreditBody, ctx: Ctx, author: CallAuthor, key: IdempotencyKey = None
) -> EntryView:
    """Gives an organization credit, which pays its next invoices."""
    await refuse_money_alone(ctx, "credit", body.amount_minor, org, author)
    money = billing_of(ctx).money
    row = await money.credit(org, body.amount_minor, body.currency, body.reason, key or str(uuid4()), author)
    return EntryView.model_validate(row)


@router.post("/organizations/{org}/refunds", status_code=201, dependencies=[Allowed(Permission.MONEY_WRITE), Known])
async def give_refund(
    org: Org, body: RefundBody, ctx: Ctx, author: CallAuthor, key: IdempotencyKey = None
) -> EntryView:
    """Refunds an invoice, as a whole or in part, by a credit note."""
    await refuse_money_alone(ctx, "refund", body.amount_minor, org, author)
    row = await billing_of(ctx).money.refund(
        org,
        body.invoice,
        body.amount_minor,
        to_balance=body.to == "balance",
        reason=body.reason,
        key=key or str(uuid4()),
        author=author,
    )
    return EntryView.model_validate(row)


@router.post("/coupons", status_code=201, dependencies=[Allowed(Permission.MONEY_WRITE)])
async def create_coupon(body: CouponBody, ctx: Ctx, author: CallAuthor, key: IdempotencyKey = None) -> CouponView:
    """Creates a coupon."""
    params = {
        "id": body.id,
        "name": body.name,
        "percent_off": body.percent_off,
        "amount_off": body.amount_off_minor,
        "currency": body.currency,
        "duration": body.duration,
        "duration_in_months": body.months,
        "max_redemptions": body.max_redemptions,
        "redeem_by": body.redeem_by and int(body.redeem_by.timestamp()),
    }
    given = {name: value for name, value in params.items() if value is not None}
    made = await billing_of(ctx).money.coupon(given, key or str(uuid4()), author)
    return CouponView(id=made["id"])


@router.post("/promotion-codes", status_code=201, dependencies=[Allowed(Permission.MONEY_WRITE)])
async def create_promotion_code(
    body: PromotionCodeBody, ctx: Ctx, author: CallAuthor, key: IdempotencyKey = None
) -> PromotionCodeView:
    """Creates a promotion code for a coupon."""
    params = {
        "promotion": {"type": "coupon", "coupon": body.coupon},
        "code": body.code,
        "max_redemptions": body.max_redemptions,
        "expires_at": body.expires_at and int(body.expires_at.timestamp()),
    }
    given = {name: value for name, value in params.items() if value is not None}
    made = await billing_of(ctx).money.promotion_code(given, key or str(uuid4()), author)
    return PromotionCodeView(id=made["id"], code=made["code"])


@router.put(
    "/organizations/{org}/discount",
    status_code=204,
    dependencies=[Allowed(Permission.MONEY_WRITE), Known, Alone("discount")],
)
async def set_discount(org: Org, body: DiscountBody, ctx: Ctx, author: CallAuthor) -> None:
    """Gives an organization's subscription a coupon. It replaces the discounts that the subscription has."""
    await billing_of(ctx).money.discount(org, body.coupon, author)


@router.get("/organizations/{org}/billing-entries", dependencies=[OfOrganization(Permission.BILLING_READ), Known])
async def list_billing_entries(
    org: Org,
    ctx: Ctx,
    before: Annotated[str | None, Query(max_length=200)] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
) -> EntryPage:
    """Lists credit, refunds and disputes of an organization."""
    async with ctx.db.connection() as connection:
        page = await read_page(
            "before",
            before,
            limit,
            exists=lambda entry: sql.billing.is_entry(connection, org=org, id=entry),
            read=lambda entry, rows_max: sql.billing.entries_of(connection, org=org, before=entry, limit_rows=rows_max),
            cursor_of=lambda entry: entry.id,
        )
    return EntryPage(entries=[EntryView.model_validate(asdict(row)) for row in page.rows], next=page.next)
