"""How overage is billed: by one of two sinks, which a setting chooses. Both take each revision once.

Meter events report usage as it comes, and Stripe prices it. Invoice items are created when a period is over, and are
priced here, by the same terms: Stripe points new integrations elsewhere than to meters.

https://docs.stripe.com/billing/subscriptions/usage-based/recording-usage-api
https://docs.stripe.com/billing/invoices/subscription
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Protocol

import stripe

from control import sql
from control.billing.client import ask, pages
from control.billing.failures import StripeAway, StripeMissing, StripeRefused
from control.billing.objects import Object
from control.billing.overage.overage_price import OveragePrice
from control.billing.subscription_status import OVER
from control.db import Database
from control.entitlements.schedule import schedule_of
from control.moments import rfc3339
from control.settings.control_plane import Stripe as Settings

METER, UNITS, PERIOD, IDENTIFIER = (
    "quotagate_meter",
    "quotagate_units",
    "quotagate_period_start",
    "quotagate_identifier",
)
"""Of an invoice item's metadata, which its line on the invoice has, too."""


class Sink(Protocol):
    """What `Overage` needs of the way by which it is billed."""

    at_close: bool
    """Whether a period's overage goes when the period is over, not while it runs."""

    async def send(self, row: sql.overage.Unsent) -> None:
        """Sends one revision. One that Stripe has already is no error. Raises StripeAway, StripeRefused."""

    async def sent_and_summed(self, row: sql.overage.Total, rows: Sequence[sql.overage.Total]) -> tuple[int, int]:
        """The units of a total that were sent, and those that Stripe has added up. Raises StripeAway, StripeRefused."""


def sink_of(settings: Settings, db: Database, client: stripe.StripeClient) -> Sink:
    return InvoiceItems(db, client) if settings.overage_by == "invoice_items" else MeterEvents(client)


class MeterEvents:
    at_close = False

    def __init__(self, client: stripe.StripeClient) -> None:
        self._client = client

    async def send(self, row: sql.overage.Unsent) -> None:
        params: Any = {
            "event_name": row.event_name,
            "identifier": row.identifier,
            "timestamp": int(row.event_at.timestamp()),
            "payload": {"stripe_customer_id": row.customer, "value": str(row.units)},
        }
        try:
            await ask(self._client.v1.billing.meter_events.create_async(params))
        except StripeRefused as e:
            if "already exists with identifier" not in str(e):
                raise

    async def sent_and_summed(self, row: sql.overage.Total, rows: Sequence[sql.overage.Total]) -> tuple[int, int]:
        # To whole minutes, as Stripe wants it. The next period's events may lie in the same minute, those of others
        # cannot: the summary is of one customer.
        starts, ends = _minutes(row.first_at, row.last_at)
        params: Any = {"customer": row.customer, "start_time": starts, "end_time": ends}
        try:
            path = f"/v1/billing/meters/{row.meter_id}/event_summaries"
            summaries = await pages(self._client, path, params)
        except StripeMissing:
            summaries = []  # of a meter or customer that Stripe has no more
        sent = sum(
            other.units
            for other in rows
            if (other.customer, other.meter) == (row.customer, row.meter)
            and starts <= other.first_at.timestamp() < ends
        )
        return sent, sum(int(float(each["aggregated_value"])) for each in summaries)


class InvoiceItems:
    at_close = True

    def __init__(self, db: Database, client: stripe.StripeClient) -> None:
        self._db = db
        self._client = client

    async def send(self, row: sql.overage.Unsent) -> None:
        start = int(row.period_start.timestamp())
        async with self._db.connection() as connection:
            rows = await sql.overage.terms_of(
                connection,
                org=row.org,
                period_start=row.period_start,
                meter=row.meter,
                revision=row.revision,
                event_at=row.event_at,
            )
            terms = in_force(rows, start, int(row.event_at.timestamp()))
        if terms is None:
            raise StripeRefused(f"no terms of {row.org} say what {row.meter} costs beyond the plan")
        # Looked for each time: Stripe may have forgotten an idempotency key after a day.
        if row.identifier in {each["metadata"].get(IDENTIFIER) for each in await self._items(row.customer, start)}:
            return
        before, units = int(terms.before), int(row.units)
        price = OveragePrice(int(terms.amount_minor), int(terms.amount_units))
        subscription, invoice = terms.subscription, None
        if subscription is not None:
            invoice, subscription = await self._draft(row.customer, subscription, start)
        params: Object = {
            "customer": row.customer,
            "currency": terms.currency,
            "amount": price.of_more(before, units),
            "description": f"{units} {row.meter} beyond the plan",
            "discountable": units > 0,
            "period": {"start": start, "end": max(start, int(row.event_at.timestamp()))},
            "metadata": {
                IDENTIFIER: row.identifier,
                METER: row.meter,
                PERIOD: rfc3339(start),
                UNITS: str(units),
            },
            **({"invoice": invoice} if invoice is not None else {}),
            **({"subscription": subscription} if subscription is not None and invoice is None else {}),
        }
        options: Any = {"idempotency_key": f"{row.identifier}:{invoice or 'next'}"}
        try:
            await ask(self._client.v1.invoice_items.create_async(params, options))  # type: ignore[arg-type]  # a plain dict
        except StripeRefused as e:
            if e.code == "invoice_not_editable":  # it became final meanwhile: the next one has it
                raise StripeAway("the draft became final meanwhile") from e
            raise

    async def sent_and_summed(self, row: sql.overage.Total, rows: Sequence[sql.overage.Total]) -> tuple[int, int]:
        start = int(row.period_start.timestamp())
        try:
            items = await self._items(row.customer, start)
        except StripeMissing:
            items = []
        summed = sum(
            int(each["metadata"][UNITS])
            for each in items
            if (each["metadata"].get(METER), each["metadata"].get(PERIOD)) == (row.meter, rfc3339(start))
        )
        return int(row.units), summed

    async def _items(self, customer: str, since: int) -> list[Object]:
        params: Any = {"customer": customer, "created": {"gte": since}}
        return await pages(self._client, "/v1/invoiceitems", params)

    async def _draft(self, customer: str, subscription: str, start: int) -> tuple[str | None, str | None]:
        """The draft that bills the period which starts then, and the subscription. Without a draft it waits for the
        subscription's next invoice, or, where that has none any more, for the customer's."""
        params: Any = {"customer": customer, "subscription": subscription, "status": "draft"}
        for each in await pages(self._client, "/v1/invoices", params):
            if each["billing_reason"] == "subscription_cycle" and each["period_start"] <= start < each["period_end"]:
                return each["id"], subscription
        current = await ask(self._client.v1.subscriptions.retrieve_async(subscription))
        return None, subscription if current["status"] not in OVER else None


def in_force(terms: Sequence[sql.overage.Terms], period_start: int, at: int) -> sql.overage.Terms | None:
    """Of the terms of a period, the oldest first, those that were in force then; of what came after its end, those of
    its last moment. Pure."""
    if not terms:
        return None
    first = terms[0]
    period = schedule_of(first).period_at(period_start)
    last = at if period is None else min(at, period.end - 1)
    return next((each for each in reversed(terms) if each.effective_from.timestamp() <= last), first)


def _minutes(first: datetime, last: datetime) -> tuple[int, int]:
    start = int(first.timestamp()) // 60 * 60
    return start, int(last.timestamp()) // 60 * 60 + 60
