"""Plays the demo history: the clock of the Stripe double goes from one thing that is due to the next, and what its
events tell is converged, charged and recorded as if it happened now."""

import heapq
import math
import random
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from pydantic import SecretStr

from control.billing import products
from control.billing.overage.revisions import Overage
from control.billing.subscriptions.converge import MONEY, PREFIXES, Converger
from control.billing.subscriptions.recorded_objects import record_object
from control.db import Database
from control.entitlements import catalogue
from control.ids import uuid7
from control.journal import Author
from control.moments import moment
from control.settings.control_plane import Settings, Stripe
from control.sql.webhooks import Event
from control.usage.thresholds import Thresholds
from devstack.history.companies import companies
from devstack.history.deeds import Client, Deeds
from devstack.history.lives import DAY, Deed, Life, Step, life
from devstack.history.refusals import Refusals
from devstack.history.stripe_account import client_of, new_account
from devstack.history.traffic import Habits
from devstack.history.usage import Usage
from devstack.stripe.account import Account, Clock, Object
from quota.keys import SHARDS_DEFAULT

SEED: Final = "quotagate"
EVENTS_KEPT_SECONDS: Final = 30 * DAY
REFUSALS_KEPT_SECONDS: Final = 30 * DAY
SITES_EVERY_DAYS: Final = 60
"""A site that has not been heard of for 90 days must be activated again."""
_RECORDED: Final = ("invoice.finalized", "invoice.paid", "invoice.payment_failed", "invoice.voided")
_OWN: Final = (*_RECORDED, "invoice.created", "invoice.updated", "invoice.payment_succeeded")


@dataclass(frozen=True, slots=True)
class Extent:
    """Which history."""

    ends_at: int
    """Seconds since 1970. It begins on the midnight so many days before."""
    organizations: int = 200
    days: int = 365
    seed: str = SEED

    @property
    def starts_at(self) -> int:
        return self.ends_at - self.ends_at % DAY - self.days * DAY


@dataclass(frozen=True, slots=True)
class Told:
    """What the history holds."""

    organizations: int
    invoices: int
    events: int


async def build(dsn: str, account_file: Path, extent: Extent, *plans: Path | None) -> Told:
    """Fills an empty database, and saves the Stripe account that belongs to it.

    `plans`: the catalogue's files, as `catalogue.apply` has them. Raises StoreUnavailable."""
    async with _opened(dsn, extent) as history:
        await history.play(*plans)
        history.save(account_file)
        return history.told


@asynccontextmanager
async def _opened(dsn: str, extent: Extent) -> "AsyncIterator[_History]":
    account = new_account(extent.starts_at, extent.seed)
    async with AsyncExitStack() as stack:
        # Until all of it is there, nobody relies on it: no commit waits for the disk.
        db = await stack.enter_async_context(Database.open(f"{dsn}?synchronous_commit=off", 4))
        stripe = await stack.enter_async_context(client_of(account))
        yield _History(db, stripe, account, extent)


class _NobodyWaits:
    """A publisher, while Redis has nothing yet: the control plane publishes everything at its start."""

    def wake(self, arrived_at: float | None = None) -> None:
        pass

    async def install(self, org: str) -> None:
        pass


@dataclass(slots=True)
class _Known:
    client: Client
    life: Life
    seen: dict[str, Any] = field(default_factory=dict)
    """By subscription, what of it matters to whom it belongs."""


class _History:
    def __init__(self, db: Database, stripe: Any, account: Account, extent: Extent) -> None:
        self._db = db
        self._stripe = stripe
        self._account = account
        self._extent = extent
        settings = Stripe(secret_key=SecretStr("sk_test_history"))
        self._overage = Overage(db, stripe, settings, _no_lag, self._now)
        publisher = _NobodyWaits()
        self._converger = Converger(db, stripe, publisher, self._overage, settings, notify=False, clock=self._now)
        percents = Settings.model_fields["thresholds_percent"].get_default()
        thresholds = Thresholds(db, percents, SHARDS_DEFAULT, False, self._now)
        refusals = Refusals(extent.ends_at - REFUSALS_KEPT_SECONDS)
        self._usage = Usage(db, thresholds, refusals, self._now, SHARDS_DEFAULT)
        self._deeds = Deeds(db, stripe, account, self._overage, publisher, self._now, extent.seed)
        self._known: dict[str, _Known] = {}
        """By organization."""
        self._org_of: dict[str, str] = {}
        """By customer."""
        self._closes: dict[str, int] = {}
        """When the period ends of which overage is to be told, by organization."""
        self._events: list[Object] = []
        account.listeners.append(self._events.append)

    def _now(self) -> float:
        return float(self._account.clock.now())

    @property
    def told(self) -> Told:
        return Told(len(self._known), len(self._account.objects.get("invoice", {})), self._usage.events)

    async def play(self, *plans: Path | None) -> None:
        author = Author("plans apply", str(uuid7()))
        await catalogue.apply_plans(self._db, catalogue.read(*plans), self._now(), author)
        await products.apply(self._db, self._stripe, self._now(), dry_run=False)
        await self._deeds.open_shop()
        self._events.clear()
        steps = self._steps()
        midnight = self._extent.starts_at + DAY
        while True:
            due = self._account.next_due
            nexts = [*([] if due is None else [due]), *([steps[0][0]] if steps else []), *self._closes.values()]
            at = min(self._extent.ends_at, midnight, *nexts)
            self._account.advance_to(at)
            await self._follow()
            for org in [org for org, end in self._closes.items() if end <= at]:
                await self._close(org)
            while steps and steps[0][0] <= at:
                _, _, step, org = heapq.heappop(steps)
                await self._take(step, org)
            if at >= midnight or at >= self._extent.ends_at:
                await self._usage.advance_all(at)
                await self._usage.write()
                if (midnight - self._extent.starts_at) // DAY % SITES_EVERY_DAYS == 0 or at >= self._extent.ends_at:
                    await self._deeds.sites.refresh()
                midnight += DAY
            if at >= self._extent.ends_at:
                break
        for customer in self._org_of:
            await self._converger.converge(customer)
        await self._deeds.sites.copy()
        await self._file_events()

    def save(self, file: Path) -> None:
        """The account goes on with the clock of everybody."""
        self._account.clock = Clock()
        self._account.save(file)

    def _steps(self) -> list[tuple[int, int, Step, str]]:
        steps: list[tuple[int, int, Step, str]] = []
        for number, company in enumerate(companies(self._extent.organizations, self._extent.seed)):
            draw = random.Random(f"{self._extent.seed}/{company.org}/life")  # noqa: S311  # repeatable, not secret
            its = life(number, self._extent.days, draw)
            self._known[company.org] = _Known(Client(company), its)
            for step in its.steps:
                if self._extent.starts_at + step.at < self._extent.ends_at:
                    steps.append((self._extent.starts_at + step.at, len(steps), step, company.org))
        heapq.heapify(steps)
        return steps

    async def _take(self, step: Step, org: str) -> None:
        known, now = self._known[org], self._now()
        is_new = not known.client.keys
        if not is_new:
            await self._usage.advance(org, now)
            await self._usage.write()
        await self._deeds.do(step, known.client)
        if known.client.customer is not None:
            self._org_of[known.client.customer] = org
        await self._follow()
        if is_new and step.deed in (Deed.SIGN_UP, Deed.SELL):
            await self._deeds.move_in(known.client)
            people = [person.id for person in known.client.company.people]
            its, seed = known.life, f"{self._extent.seed}/{org}/calls"
            habits = Habits(seed, its.appetite, its.growth, int(now), people, known.client.keys)
            self._usage.begin(org, habits)
        self._usage.forget_entitlement(org)
        if known.client.customer is not None and self._closes.get(org, math.inf) > now:
            await self._await_close(org, known.client.customer)

    async def _follow(self) -> None:
        """Does what the control plane does when it is told."""
        while self._events:
            events, told = list(self._events), defaultdict[str, list[Object]](list)
            self._events.clear()
            for event in events:
                customer = self._customer_of(event["data"]["object"])
                if customer in self._org_of:
                    told[customer].append(event)
            for customer, theirs in told.items():
                await self._hear(customer, self._org_of[customer], theirs)

    def _customer_of(self, about: Object) -> str | None:
        if about["object"] == "customer":
            return str(about["id"])
        if about["object"] == "dispute":
            return str(self._account.get("charge", about["charge"])["customer"])
        return about.get("customer")

    async def _hear(self, customer: str, org: str, events: list[Object]) -> None:
        now, known = self._now(), self._known[org]
        await self._usage.advance(org, now)
        types = {event["type"] for event in events}
        relevant = [_filed(event, customer) for event in events if event["type"].startswith((*PREFIXES, *MONEY))]
        seen = {each["id"]: _standing(each) for each in self._account.find("subscription", customer=customer)}
        # A renewal changes nothing that an organization has: its invoices are recorded, and no look is needed.
        if seen != known.seen or any(event.type.startswith(MONEY) for event in relevant):
            await self._usage.write()
            known.seen = seen
            await self._converger.converge(customer, [each for each in relevant if each.type != "invoice.created"])
            self._usage.forget_entitlement(org)
        elif types & set(_RECORDED):
            await self._record(customer, org, events)
        if self._closes.get(org, math.inf) > now:  # else that period is told first
            await self._await_close(org, customer)

    async def _await_close(self, org: str, customer: str) -> None:
        """The end of its period is awaited where overage is sold: a yearly subscription has no invoice then."""
        sells = any(map(_sells_usage, self._account.find("subscription", customer=customer)))
        end = await self._usage.period_end(org, self._now()) if sells else None
        if end is None:
            self._closes.pop(org, None)
        else:
            self._closes[org] = end

    async def _close(self, org: str) -> None:
        """Tells the overage of a period that is over, as the control plane does in time for its invoice."""
        await self._usage.advance(org, self._now())
        await self._usage.write()
        await self._overage.flush(org)
        customer = self._known[org].client.customer
        assert customer is not None  # noqa: S101  who is sold overage has one
        await self._await_close(org, customer)

    async def _record(self, customer: str, org: str, events: list[Object]) -> None:
        changed = {event["data"]["object"]["id"]: event["id"] for event in events if event["type"] in _RECORDED}
        async with self._db.transaction() as connection:
            for invoice, event_id in changed.items():
                current = self._account.get("invoice", invoice)
                await record_object(connection, org, customer, current, self._now(), Author("stripe", event_id))

    async def _file_events(self) -> None:
        """Those of the last 30 days are in the inbox; Stripe lists no older ones, either."""
        since = self._extent.ends_at - EVENTS_KEPT_SECONDS
        events = self._account.objects["event"]
        kept = {each["id"]: each for each in events.values() if each["created"] >= since}
        self._account.objects["event"] = kept
        columns = ("id", "type", "customer", "created_at", "received_at", "payload", "attempts", "next_attempt_at")
        rows = []
        for each in kept.values():
            customer = self._customer_of(each["data"]["object"])
            at = moment(each["created"])
            outcome = "done" if each["type"].startswith((*PREFIXES, *MONEY, "price.")) else "ignored"
            rows.append((each["id"], each["type"], customer, at, at, each, 1, at, outcome, at))
        async with self._db.transaction() as connection:
            await connection.copy_records_to_table(
                "webhook_event", records=rows, columns=(*columns, "outcome", "ended_at")
            )


async def _no_lag() -> float:
    return 0.0


def _filed(event: Object, customer: str) -> Event:
    return Event(event["id"], event["type"], customer, event, 1, moment(float(event["created"])))


def _standing(subscription: Object) -> tuple[Any, ...]:
    """What of a subscription changes what its organization has, or pays."""
    items = tuple((item["price"]["id"], item.get("quantity")) for item in subscription["items"]["data"])
    names = ("status", "cancel_at", "schedule", "trial_end", "pause_collection", "billing_cycle_anchor")
    return (items, tuple(subscription["discounts"]), *(subscription[name] for name in names))


def _sells_usage(subscription: Object) -> bool:
    return any(item["price"]["recurring"]["usage_type"] == "metered" for item in subscription["items"]["data"])
