"""What is done in the demo history, and by whom: customers buy at Stripe, the vendor's people use the control plane."""

import hashlib
import random
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Final

from common.clock import Clock
from control.access.keys import store as key_store
from control.access.keys.store import NewKey
from control.access.keys.terms import Terms as KeyTerms
from control.access.keys.terms import identity_of
from control.access.people import members, users
from control.access.permissions import OrganizationRole
from control.access.publishing import Publisher
from control.billing import checkout
from control.billing.client import ask
from control.billing.failures import NotSubscribed, PlanNotSold, StripeRefused
from control.billing.money import Money
from control.billing.overage.revisions import Overage
from control.billing.subscriptions.customer_links import ORG
from control.db import Database
from control.entitlements import changes, grants
from control.entitlements.changes import Wanted
from control.entitlements.grants import NewGrant
from control.entitlements.shadow import set_shadow
from control.journal import Author
from control.moments import moment
from control.organizations import store as organization_store
from devstack.history import lives
from devstack.history.companies import Company
from devstack.history.lives import Deed, Step
from devstack.history.sites import Sites
from devstack.stripe.account import Account, Object
from devstack.stripe.resources import customers as customers_of_double
from devstack.stripe.resources import refunds
from quota.model import Status

SUPPORT, BILLING = "person:sam@vendor.example", "person:bea@vendor.example"
OVER: Final = ("canceled", "incomplete_expired")
DAY_SECONDS: Final = 86_400
_ALPHABET: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


@dataclass(slots=True)
class Client:
    """An organization that is known here."""

    company: Company
    customer: str | None = None
    keys: list[str] = field(default_factory=list)


class Deeds:
    def __init__(
        self,
        db: Database,
        stripe: Any,
        account: Account,
        overage: Overage,
        publisher: Publisher,
        clock: Clock,
        seed: str,
    ) -> None:
        self._db = db
        self._stripe = stripe.v1
        self._client = stripe
        self._account = account
        self._overage = overage
        self._clock = clock
        self._money = Money(db, stripe, clock)
        self.sites = Sites(db, publisher, clock, seed)
        self._draw = random.Random(f"{seed}/deeds")  # noqa: S311  # repeatable, not secret
        self._count = 0
        self._prices: Mapping[str, Object] = {}

    async def open_shop(self) -> None:
        """Coupons that customers have."""
        for coupon_id, name, percent, duration in (
            (lives.LAUNCH, "Half off for three months", 50, {"duration": "repeating", "duration_in_months": 3}),
            (lives.WELCOME, "20 % off for good", 20, {"duration": "forever"}),
            (lives.ONCE, "20 % off the first invoice", 20, {"duration": "once"}),
        ):
            params = {"id": coupon_id, "name": name, "percent_off": percent, **duration}
            await self._money.coupon(params, f"coupon:{coupon_id}", self._by(BILLING))
        self._prices = {each["lookup_key"]: each for each in self._account.find("price") if each["lookup_key"]}

    async def do(self, step: Step, client: Client) -> None:
        """Does nothing where the state of affairs does not allow it: who left cannot change a plan."""
        with suppress(NotSubscribed, StripeRefused, PlanNotSold):
            await self._deeds[step.deed](self, step, client)

    async def move_in(self, client: Client) -> None:
        """People, keys and sites of a new organization."""
        now, org = self._clock(), client.company.org
        owner = client.company.people[0].id
        by = self._by(f"org:{org}/u:{owner}")
        for number, person in enumerate(client.company.people):
            await users.put(self._db, person.id, person.email, person.name, now, by)
            role = OrganizationRole.MEMBER if number else OrganizationRole.OWNER
            if number == 1:
                role = OrganizationRole.ADMIN
            await members.set_role(self._db, org, person.id, role, now, by, may_own=True)
        for name in ("production", "batch jobs", "staging")[: self._draw.choice((1, 1, 2, 3))]:
            environment = "test" if name == "staging" else "live"
            text = f"qg_{environment}_{''.join(self._draw.choices(_ALPHABET, k=32))}_{'0' * 6}"
            # Nobody has the key that this is the digest of.
            digest = hashlib.sha256(text.encode()).digest()
            new = NewKey(identity_of(text, digest, environment, owner), KeyTerms(name))
            client.keys.append((await key_store.create(self._db, org, new, now, by)).id)
        await self.sites.move_in(org, self._by(SUPPORT))

    # What customers do

    async def _sign_up(self, step: Step, client: Client) -> None:
        company = client.company
        if client.customer is None:
            params: dict[str, Any] = {"name": company.name, "email": company.email, "metadata": {ORG: company.org}}
            if step.card == "good":
                params |= {"payment_method": "pm_card_visa"}
            client.customer = (await ask(self._stripe.customers.create_async(params)))["id"]
        elif self._subscriptions(client):
            return
        items: list[dict[str, Any]] = [
            {"price": self._prices[f"{step.plan}.{step.interval}"]["id"], "quantity": step.quantity}
        ]
        overage = f"{step.plan}.{step.interval}.overage."
        items += [{"price": price["id"]} for key, price in self._prices.items() if key.startswith(overage)]
        order: dict[str, Any] = {"customer": client.customer, "items": items, "metadata": {ORG: company.org}}
        if step.trial:
            order["trial_period_days"] = lives.TRIAL_DAYS
            order["trial_settings"] = {"end_behavior": {"missing_payment_method": "cancel"}}
        if step.coupon:
            order["discounts"] = [{"coupon": step.coupon}]
        await ask(self._stripe.subscriptions.create_async(order))

    async def _set_card(self, step: Step, client: Client) -> None:
        if client.customer is not None:
            customers_of_double.set_card(self._account, client.customer, step.card)

    async def _pay(self, step: Step, client: Client) -> None:
        for invoice in list(self._account.find("invoice", customer=client.customer, status="open")):
            await ask(self._stripe.invoices.pay_async(invoice["id"]))

    async def _switch(self, step: Step, client: Client) -> None:
        live = self._subscriptions(client)
        if not live or live[0]["status"] != "active":
            return
        switch = checkout.Switch(step.plan, step.interval, step.quantity if step.quantity > 1 else None, None)
        key = f"history:{self._number()}"
        await checkout.switch(self._db, self._client, self._overage, client.company.org, switch, key)

    async def _cancel(self, step: Step, client: Client) -> None:
        await checkout.cancel(self._db, self._client, self._overage, client.company.org, at_period_end=True)

    async def _stay(self, step: Step, client: Client) -> None:
        await checkout.stay(self._db, self._client, client.company.org)

    async def _dispute(self, step: Step, client: Client) -> None:
        if (paid := self._paid(client)) is not None:
            refunds.dispute(self._account, paid["id"])

    # What the vendor's people do

    async def _sell(self, step: Step, client: Client) -> None:
        now, org = self._clock(), client.company.org
        await organization_store.put(self._db, org, client.company.name, now, self._by(SUPPORT))
        await self._set(client, lambda _, __: Wanted(step.plan))

    async def _credit(self, step: Step, client: Client) -> None:
        live = self._subscriptions(client)
        if live:
            key, org = f"history:{self._number()}", client.company.org
            reason = "An apology for the outage"
            await self._money.credit(org, step.amount, live[0]["currency"], reason, key, self._by(BILLING))

    async def _refund(self, step: Step, client: Client) -> None:
        paid = self._paid(client)
        if paid is not None:
            key, org, by = f"history:{self._number()}", client.company.org, self._by(BILLING)
            reason = "Charged twice by mistake"
            await self._money.refund(
                org, paid["id"], paid["total"] // 2, to_balance=False, reason=reason, key=key, author=by
            )

    async def _grant(self, step: Step, client: Client) -> None:
        now = self._clock()
        new = NewGrant("api_calls", step.amount, moment(now + 60 * DAY_SECONDS), "A larger import")
        await grants.create(self._db, client.company.org, new, None, now, self._by(SUPPORT))

    async def _override(self, step: Step, client: Client) -> None:
        await self._set(client, lambda was, _: replace(_known(was), allowances={"api_calls": step.amount}))

    async def _suspend(self, step: Step, client: Client) -> None:
        await self._set(client, lambda was, _: replace(_known(was), status=Status.SUSPENDED))

    async def _resume(self, step: Step, client: Client) -> None:
        await self._set(client, lambda was, _: replace(_known(was), status=Status.ACTIVE))

    async def _shadow(self, step: Step, client: Client) -> None:
        reason = "Their new import runs into the limit: look at it before it is refused"
        await set_shadow(self._db, client.company.org, True, reason, self._clock(), self._by(SUPPORT))

    async def _set(self, client: Client, edit: Callable[[Wanted | None, bool], Wanted]) -> None:
        with suppress(_NothingInForce):
            await changes.set_entitlement(self._db, client.company.org, edit, None, self._clock(), self._by(SUPPORT))

    # What they look at

    def _subscriptions(self, client: Client) -> list[Object]:
        found = self._account.find("subscription", customer=client.customer)
        return [each for each in found if each["status"] not in OVER]

    def _paid(self, client: Client) -> Object | None:
        """The newest invoice of which something was paid."""
        found = self._account.find("invoice", customer=client.customer, status="paid")
        return next((each for each in found if each["amount_paid"] > 0), None)

    def _by(self, actor: str) -> Author:
        return Author(actor, f"history-{self._number()}")

    def _number(self) -> int:
        self._count += 1
        return self._count

    _deeds: Final = {
        Deed.SIGN_UP: _sign_up,
        Deed.SELL: _sell,
        Deed.CARD: _set_card,
        Deed.PAY: _pay,
        Deed.SWITCH: _switch,
        Deed.CANCEL: _cancel,
        Deed.STAY: _stay,
        Deed.CREDIT: _credit,
        Deed.REFUND: _refund,
        Deed.DISPUTE: _dispute,
        Deed.GRANT: _grant,
        Deed.OVERRIDE: _override,
        Deed.SUSPEND: _suspend,
        Deed.RESUME: _resume,
        Deed.SHADOW: _shadow,
    }


class _NothingInForce(Exception):
    """There are no terms that could be changed."""


def _known(was: Wanted | None) -> Wanted:
    if was is None:
        raise _NothingInForce
    return was
