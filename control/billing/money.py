"""Money that an admin moves at Stripe: credit, refunds, discounts. The journal names the admin.

The journal entry is written first, and Stripe is asked afterwards. If Stripe refuses, another entry says so. So nothing
that happened is missing in the journal.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, Literal, Protocol, cast

import stripe

from common.clock import Clock
from control import journal, sql
from control.billing.client import ask, pages
from control.billing.failures import NotSubscribed, SecondPersonNeeded, StripeAway, StripeRefused
from control.billing.objects import Object, id_of
from control.billing.subscription_status import LIVE
from control.billing.subscriptions import mirror
from control.db import Database
from control.journal import Action, Author, Change

Move = Literal[
    "coupon.created", "credit.given", "credit.taken_back", "discount.set", "promotion_code.created", "refund.given"
]


GIVEN: Final[Mapping[str, str]] = {"credit.given": "credit", "refund.given": "refund"}
"""What leaves the vendor, by its name in the journal: its name in the settings."""


class Bound(Protocol):
    """How much one person gives alone."""

    async def check(self, action: str, org: str, author: Author) -> None:
        """After the journal has it. Raises SecondPersonNeeded."""


class Money:
    def __init__(self, db: Database, client: stripe.StripeClient, clock: Clock, bound: Bound | None = None) -> None:
        """`bound`: None where nobody needs a second person."""
        self._db = db
        self._client = client
        self._clock = clock
        self._bound = bound

    async def credit(
        self,
        org: str,
        amount_minor: int,
        currency: str,
        reason: str,
        key: str,
        author: Author,
        *,
        approved: bool = False,
    ) -> dict[str, Any]:
        """Credit that the next invoices are paid with. `approved`: by a second person.

        Raises NotSubscribed, SecondPersonNeeded, StripeAway, StripeRefused."""
        customer = await self._customer(org)
        params: Any = {"amount": -amount_minor, "currency": currency, "description": reason}
        content = {"amount_minor": amount_minor, "currency": currency, "reason": reason, **_approved(approved)}

        def call() -> Awaitable[Any]:
            options: Any = {"idempotency_key": key}
            return self._client.v1.customers.balance_transactions.create_async(customer, params, options)

        return await self._entered(org, customer, await self._journaled("credit.given", org, content, author, call))

    async def take_back(
        self, org: str, amount_minor: int, currency: str, reason: str, key: str, author: Author
    ) -> dict[str, Any]:
        """Credit that no invoice has used yet is taken back. Raises as `credit`."""
        customer = await self._customer(org)
        params: Any = {"amount": amount_minor, "currency": currency, "description": reason}
        content = {"amount_minor": amount_minor, "currency": currency, "reason": reason}

        def call() -> Awaitable[Any]:
            options: Any = {"idempotency_key": key}
            return self._client.v1.customers.balance_transactions.create_async(customer, params, options)

        return await self._entered(
            org, customer, await self._journaled("credit.taken_back", org, content, author, call)
        )

    async def refund(
        self,
        org: str,
        invoice: str,
        amount_minor: int | None,
        *,
        to_balance: bool,
        reason: str,
        key: str,
        author: Author,
        approved: bool = False,
    ) -> dict[str, Any]:
        """A credit note for a paid invoice, whose amount goes back the way it came, or stays as credit; an open one is
        reduced. `amount_minor`: None for all of it. Raises as `credit`."""
        customer = await self._customer(org)
        stripe_invoice = await ask(self._client.v1.invoices.retrieve_async(invoice))
        if id_of(stripe_invoice["customer"]) != customer:
            raise StripeRefused(f"the organization has no invoice {invoice}", "resource_missing")
        amount = amount_minor if amount_minor is not None else stripe_invoice["total"]
        params: Object = {"invoice": invoice, "amount": amount, "memo": reason}
        if stripe_invoice["status"] == "paid":
            params["credit_amount" if to_balance else "refund_amount"] = amount
        content = {"invoice": invoice, "amount_minor": amount, "to_balance": to_balance, "reason": reason}
        content |= _approved(approved)

        def call() -> Awaitable[Any]:
            options: Any = {"idempotency_key": key}
            return self._client.v1.credit_notes.create_async(params, options)  # type: ignore[arg-type]  # a plain dict

        return await self._entered(org, customer, await self._journaled("refund.given", org, content, author, call))

    async def coupon(self, params: Object, key: str, author: Author) -> Object:
        """A coupon. Raises StripeAway, StripeRefused."""

        def call() -> Awaitable[Any]:
            options: Any = {"idempotency_key": key}
            return self._client.v1.coupons.create_async(params, options)  # type: ignore[arg-type]  # a plain dict

        return await self._journaled("coupon.created", None, params, author, call)

    async def promotion_code(self, params: Object, key: str, author: Author) -> Object:
        """A code that customers type. Raises StripeAway, StripeRefused."""

        def call() -> Awaitable[Any]:
            options: Any = {"idempotency_key": key}
            return self._client.v1.promotion_codes.create_async(params, options)  # type: ignore[arg-type]  # a plain dict

        return await self._journaled("promotion_code.created", None, params, author, call)

    async def discount(self, org: str, coupon: str | None, author: Author) -> Object:
        """Gives an organization's subscription a coupon, or takes discounts away. Raises as `credit`."""
        live = await self.discounted(org)
        params: Any = {"discounts": [{"coupon": coupon}] if coupon else ""}

        def call() -> Awaitable[Any]:
            return self._client.v1.subscriptions.update_async(live["id"], params)

        return await self._journaled("discount.set", org, {"coupon": coupon}, author, call)

    async def discounted(self, org: str) -> Object:
        """The subscription that discounts are of, with its coupons. Raises as `credit`."""
        customer = await self._customer(org)
        params = {"customer": customer, "expand": ["data.discounts.source.coupon"]}
        subscriptions = await pages(self._client, "/v1/subscriptions", params)
        live = next((each for each in subscriptions if each["status"] in LIVE), None)
        if live is None:
            raise NotSubscribed(org)
        return live

    async def _journaled(
        self, action: Move, org: str | None, content: Object, author: Author, call: Callable[[], Awaitable[Any]]
    ) -> Object:
        await self._record(Change(action, org, None, content), author)
        try:
            if self._bound is not None and org is not None and action in GIVEN and "approved" not in content:
                await self._bound.check(GIVEN[action], org, author)
            return await ask(call())
        except (SecondPersonNeeded, StripeAway, StripeRefused) as e:
            # An answer that did not come may have been a yes: Stripe's webhook tells.
            word = "unanswered" if isinstance(e, StripeAway) else "refused"
            failed = cast("Action", f"{action}.{word}")
            amount: Object = {name: content[name] for name in ("amount_minor", "approved") if name in content}
            await self._record(Change(failed, org, None, {"reason": str(e)} | amount), author)
            raise

    async def _record(self, change: Change, author: Author) -> None:
        async with self._db.transaction() as connection:
            await journal.record(connection, author, self._clock(), [change])

    async def _entered(self, org: str, customer: str, entry: Object) -> dict[str, Any]:
        row = mirror.entry_row(entry, org, customer)
        async with self._db.transaction() as connection:
            await sql.billing.put_entry(connection, **row)
        return row

    async def _customer(self, org: str) -> str:
        async with self._db.connection() as connection:
            row = await sql.billing.customer_of(connection, org=org)
        if row is None:
            raise NotSubscribed(org)
        return str(row.id)


def _approved(approved: bool) -> Object:
    return {"approved": True} if approved else {}
