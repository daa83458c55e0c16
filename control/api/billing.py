"""Billing: sign-up, changes of a subscription, the portal, invoices."""

from datetime import datetime
from typing import Annotated, Literal
from uuid import uuid4

import structlog
from fastapi import APIRouter, Header, Query
from pydantic import AfterValidator, Field, HttpUrl

from control import sql
from control.access.permissions import Permission
from control.billing import checkout
from control.billing.checkout import Order, Switch
from control.billing.objects import Object, id_of
from control.billing.parts import Billing
from control.billing.subscriptions import customers
from control.cursors import read_page
from control.db import StoreUnavailable
from control.documents import Body, View, Whole
from control.entitlements.plans import PlanCode
from control.http.context import Context, Ctx
from control.http.guards import Allowed, Alone, CallAuthor, Known, OfOrganization, Org
from control.http.refusals import DOCUMENTED, Refusal
from control.moments import moment
from control.organizations import store as organizations
from quota import problems
from quota.keys import ORG_PATTERN

log = structlog.get_logger()
router = APIRouter(tags=["billing"], responses=DOCUMENTED)

Interval = Literal["month", "year"]
Quantity = Annotated[int, Whole, Field(strict=True, ge=1, le=1_000_000)]
Url = Annotated[str, Field(max_length=2048), AfterValidator(lambda url: str(HttpUrl(url)) and url)]
IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=200,
        description="A second request with the same key creates no other session, and makes no other change.",
    ),
]


class CheckoutBody(Body):
    """An order of a plan."""

    org: Annotated[str, Field(pattern=ORG_PATTERN)]
    """The organization that the plan is for: its id in its tokens. It need not exist yet."""
    plan: PlanCode
    interval: Interval = "month"
    quantity: Quantity = 1
    """The number of seats. It multiplies the price and the allowances."""
    success_url: Url
    cancel_url: Url | None = None
    email: Annotated[str, Field(max_length=512, pattern=r"^[^@\s]+@[^@\s]+$")] | None = None
    trial_days: Annotated[int, Whole, Field(strict=True, ge=0, le=730)] | None = None
    """Left out: as many as the settings say."""
    coupon: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    promotion_code: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    """Stripe's id of a promotion code. Left out: the page has a field for codes."""


class CheckoutView(View):
    id: str
    url: str
    """The page on which the plan is paid for."""
    expires_at: datetime


class PortalBody(Body):
    return_url: Url


class PortalView(View):
    url: str


class CustomerBody(Body):
    customer: Annotated[str, Field(pattern=r"^cus_[A-Za-z0-9_]{1,200}$")]
    """The customer's id at Stripe."""


class LinkedCustomerView(View):
    org: str
    customer: str


class SwitchBody(Body):
    """Another plan, interval or number of seats."""

    plan: PlanCode
    interval: Interval | None = None
    quantity: Quantity | None = None
    when: Literal["now", "period_end"] | None = None
    """Left out: a plan that costs more comes into force now, one that costs less at the end of the paid period."""


class CancelBody(Body):
    when: Literal["now", "period_end"] = "period_end"


class SubscriptionView(View):
    """The subscription as it is at Stripe."""

    id: str
    status: str
    when: Literal["now", "period_end"] = "now"
    """When the change comes into force."""
    pending: bool = False
    """The change waits for its payment. Once it is paid it comes into force; after 23 hours it is dropped."""
    cancel_at: datetime | None = None


class ResentOverageView(View):
    org: str
    resent: int
    """The number of reports of overage that are sent again."""


class InvoiceView(View):
    """An invoice; amounts in minor units of its currency."""

    id: str
    number: str | None
    subscription: str | None
    status: str
    billing_reason: str | None
    currency: str
    total_minor: int
    amount_paid_minor: int
    amount_remaining_minor: int
    period_start: datetime
    period_end: datetime
    created_at: datetime
    finalized_at: datetime | None
    paid_at: datetime | None
    hosted_url: str | None
    """The page on which the invoice can be seen and paid."""
    pdf_url: str | None


class InvoicePage(View):
    invoices: list[InvoiceView]
    """The newest first."""
    next: str | None


@router.post("/v1/checkout-sessions", status_code=201, dependencies=[Allowed(Permission.BILLING_WRITE)])
async def start_checkout(body: CheckoutBody, ctx: Ctx, key: IdempotencyKey = None) -> CheckoutView:
    """Begins a sign-up: opens a page at Stripe on which the plan is paid for. The payment creates the organization."""
    await organizations.refuse_deleted(ctx.db, body.org)
    order = Order(
        body.org,
        body.plan,
        body.interval,
        body.success_url,
        body.cancel_url,
        body.quantity,
        body.trial_days,
        body.coupon,
        body.promotion_code,
        body.email,
    )
    billing = billing_of(ctx)
    made = await checkout.start(ctx.db, billing.client, billing.settings, order, key or str(uuid4()), ctx.clock())
    return CheckoutView(id=made["id"], url=made["url"], expires_at=moment(made["expires_at"]))


@router.post(
    "/v1/organizations/{org}/portal-sessions",
    status_code=201,
    dependencies=[OfOrganization(Permission.BILLING_PORTAL), Known],
)
async def start_billing_portal(org: Org, body: PortalBody, ctx: Ctx) -> PortalView:
    """Opens a page at Stripe on which the organization sees its invoices, changes its payment method, or cancels."""
    made = await checkout.portal(ctx.db, billing_of(ctx).client, org, body.return_url)
    return PortalView(url=made["url"])


@router.post(
    "/v1/organizations/{org}/subscription/switch",
    dependencies=[Allowed(Permission.BILLING_WRITE), Known, Alone("switch")],
)
async def switch_plan(org: Org, body: SwitchBody, ctx: Ctx, key: IdempotencyKey = None) -> SubscriptionView:
    """Changes the plan. An upgrade is prorated, and is in force once it is paid. A downgrade waits for the period's
    end."""
    at_period_end = None if body.when is None else body.when == "period_end"
    wanted = Switch(body.plan, body.interval, body.quantity, at_period_end)
    billing = billing_of(ctx)
    when, made = await checkout.switch(ctx.db, billing.client, billing.overage, org, wanted, key or str(uuid4()))
    await _look_again(ctx, made)
    if when == "now":
        return _subscription(made)
    return _subscription(made).model_copy(update={"when": "period_end"})


@router.post(
    "/v1/organizations/{org}/subscription/cancel",
    dependencies=[Allowed(Permission.BILLING_WRITE), Known, Alone("cancel")],
)
async def cancel_subscription(org: Org, body: CancelBody, ctx: Ctx) -> SubscriptionView:
    """Ends the subscription at the end of the paid period, or at once. At once, an invoice bills the overage until
    now."""
    billing, at_period_end = billing_of(ctx), body.when == "period_end"
    made = await checkout.cancel(ctx.db, billing.client, billing.overage, org, at_period_end=at_period_end)
    await _look_again(ctx, made)
    return _subscription(made)


@router.post("/v1/organizations/{org}/subscription/stay", dependencies=[Allowed(Permission.BILLING_WRITE), Known])
async def keep_subscription(org: Org, ctx: Ctx) -> SubscriptionView:
    """Cancels a downgrade, or a cancellation, that waits for the end of the period."""
    made = await checkout.stay(ctx.db, billing_of(ctx).client, org)
    await _look_again(ctx, made)
    return _subscription(made)


@router.put("/v1/organizations/{org}/customer", dependencies=[Allowed(Permission.BILLING_WRITE), Known])
async def link_customer(org: Org, body: CustomerBody, ctx: Ctx, author: CallAuthor) -> LinkedCustomerView:
    """Links the organization to a customer at Stripe, also if that customer was linked to another organization. From
    then on what the customer pays for is served, and portal, credit and sign-ups use this customer."""
    billing = billing_of(ctx)
    others = await customers.link(ctx.db, billing.client, org, body.customer, ctx.clock(), author)
    for each in (body.customer, *others):
        await billing.converger.converge(each)
    ctx.publisher.wake()
    return LinkedCustomerView(org=org, customer=body.customer)


@router.post("/v1/organizations/{org}/overage/resend", dependencies=[Allowed(Permission.BILLING_WRITE), Known])
async def resend_overage(org: Org, ctx: Ctx, author: CallAuthor) -> ResentOverageView:
    """Sends overage again that Stripe refused for good. Use it when the cause is mended. What is too old for Stripe is
    reported for now, and billed with the current period."""
    resent = await billing_of(ctx).overage.resend(org, author)
    return ResentOverageView(org=org, resent=resent)


@router.get("/v1/organizations/{org}/invoices", dependencies=[OfOrganization(Permission.BILLING_READ), Known])
async def list_invoices(
    org: Org,
    ctx: Ctx,
    before: Annotated[str | None, Query(max_length=200)] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
) -> InvoicePage:
    """Lists the organization's invoices."""
    async with ctx.db.connection() as connection:
        page = await read_page(
            "before",
            before,
            limit,
            exists=lambda invoice: sql.billing.is_invoice(connection, org=org, id=invoice),
            read=lambda invoice, rows_max: sql.billing.invoices_of(
                connection, org=org, before=invoice, limit_rows=rows_max
            ),
            cursor_of=lambda invoice: invoice.id,
        )
    return InvoicePage(invoices=[InvoiceView.model_validate(row) for row in page.rows], next=page.next)


def billing_of(ctx: Context) -> Billing:
    """Raises Refusal where nothing is sold."""
    if ctx.billing is None:
        raise Refusal(problems.NOT_FOUND, "Billing is off: no Stripe key is set.")
    return ctx.billing


async def _look_again(ctx: Context, made: Object) -> None:
    """What was just changed is seen at once, without waiting for Stripe's webhook."""
    customer = id_of(made.get("customer"))
    if customer is not None:
        try:
            await billing_of(ctx).inbox.resync(customer)
        except StoreUnavailable as e:
            log.warning("a change at Stripe waits for its webhook", customer=customer, reason=str(e))


def _subscription(subscription: Object) -> SubscriptionView:
    ends = subscription.get("cancel_at")
    return SubscriptionView(
        id=subscription["id"],
        status=subscription["status"],
        when="period_end" if subscription.get("cancel_at_period_end") else "now",
        pending=subscription.get("pending_update") is not None,
        cancel_at=None if ends is None else moment(ends),
    )
