"""However the events of a customer's life arrive, its organization ends up the same, and the journal tells it once."""

import asyncio
import json
import random
import re
from collections.abc import AsyncIterator, Callable, Sequence
from itertools import permutations
from typing import Any

import pytest
from httpx import ASGITransport, AsyncClient

from control.billing.subscriptions.inbox import CLAIM_SECONDS, EventHandler, Inbox
from control.sql.webhooks import Event
from quota.model import Status
from tests.control.billing.shop import MovingClock, Shop

Object = dict[str, Any]

STORY = ["organization.created", "organization.customer_linked", "entitlement.subscribed", "invoice.paid"]
TIMES = 100
AT_ONCE = 50


class Dying:
    """A handler whose process dies, where `dies` says so, after what it did is committed and before that is noted."""

    def __init__(self, handler: EventHandler) -> None:
        self._handler = handler
        self.dies: Callable[[Sequence[Event]], bool] = lambda events: False
        self.at_work = 0
        self.deaths = 0

    async def __call__(self, customer: str | None, events: Sequence[Event]) -> tuple[list[str], list[str]]:
        self.at_work += 1
        try:
            result = await self._handler(customer, events)
            if self.dies(events):
                self.deaths += 1
                raise asyncio.CancelledError
        finally:
            self.at_work -= 1
        return result


class Life:
    """A life of five events, as Stripe remembers it; copies of it are other customers with the same life."""

    def __init__(self, shop: Shop, org: str, before: set[str], events: Sequence[Object]) -> None:
        self._account = shop.double.account
        objects = {
            each["id"]: each
            for kind, of_kind in self._account.objects.items()
            for each in of_kind.values()
            if kind not in ("event", "webhook_endpoint") and each["id"] not in before
        }
        self._text = json.dumps({"objects": list(objects.values()), "events": list(events)})
        ids = [org, *objects, *(each["id"] for each in events)]
        self._ids = re.compile("|".join(sorted(ids, key=len, reverse=True)))
        self._org = org

    def copy(self, name: str) -> tuple[str, list[Object]]:
        """Its organization, of which nobody knows here, and its events."""
        made = json.loads(self._ids.sub(lambda match: f"{match[0]}{name}", self._text))
        for each in made["objects"]:
            self._account.add(each)
        return f"{self._org}{name}", made["events"]


@pytest.fixture
async def life(shop: Shop) -> Life:
    """Sign-up, upgrade, a payment that fails, one that does not, cancellation at the period's end."""
    account = shop.double.account
    before = {object_id for objects in account.objects.values() for object_id in objects}
    org = await shop.signed_up("starter")
    moments = [next(account.find("event", type="checkout.session.completed"))]
    path = f"/v1/organizations/{org}/subscription"
    assert (await shop.post(f"{path}/switch", plan="growth")).status_code == 200
    moments.append(next(account.find("event", type="customer.subscription.updated")))
    await shop.card(org, "declines")
    await shop.period_over(org)
    assert await shop.enforced(org) is Status.GRACE
    moments.append(next(account.find("event", type="invoice.payment_failed")))
    await shop.card(org, "good")
    invoice = next(account.find("invoice", status="open"))
    await shop.page.post(f"{shop.double.url}/invoice/{invoice['id']}")
    await shop.settled()
    moments.append(next(account.find("event", type="invoice.paid")))
    assert (await shop.post(f"{path}/cancel")).status_code == 200
    moments.append(next(account.find("event", type="customer.subscription.updated")))
    assert len({each["id"] for each in moments}) == 5
    return Life(shop, org, before, moments)


@pytest.fixture
async def dying(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Dying]:
    assert shop.context.billing is not None
    inbox = shop.context.billing.inbox
    dying = Dying(inbox._handle)
    monkeypatch.setattr(inbox, "_handle", dying)
    # Hundreds of looks at Stripe, without sockets: half the time.
    http: Any = shop.context.billing.client._requestor._client
    async with AsyncClient(transport=ASGITransport(shop.double.app)) as near:
        monkeypatch.setattr(http, "_client_async", near)
        yield dying


async def outcome(shop: Shop, org: str) -> Object:
    """All that a life came to, but for names and the moment when it was learnt."""
    (row,) = await rows(shop, "SELECT * FROM entitlement WHERE org = $1", org)
    invoices = await rows(shop, "SELECT * FROM invoice_ref WHERE org = $1", org)
    return {
        "plan": row["plan_id"],
        "status": row["status"],
        "until": row["effective_to"],
        "anchor": row["period_anchor"],
        "enforced": await shop.enforced(org),
        "invoices": [(each["status"], each["total_minor"]) for each in invoices],
        "story": [each["action"] for each in await shop.journal(org)],
    }


async def rows(shop: Shop, query: str, *values: Any) -> list[Any]:
    async with shop.context.db.connection() as connection:
        return list(await connection.fetch(query, *values))


async def tell_all(shop: Shop, lives: Sequence[Sequence[Object]]) -> None:
    """Each life's events after one another, as many lives at the same time as a server has connections."""
    free = asyncio.Semaphore(AT_ONCE)

    async def tell(events: Sequence[Object]) -> None:
        for event in events:
            async with free:
                await shop.tell(event)

    await asyncio.gather(*map(tell, lives))


async def idle(shop: Shop, dying: Dying) -> None:
    """Nobody works on an event, and none is left that nobody has tried."""
    async with asyncio.timeout(120):
        while True:
            untried = "SELECT 1 FROM webhook_event WHERE outcome IS NULL AND attempts = 0"
            if not dying.at_work and not await rows(shop, untried):
                return
            await asyncio.sleep(0.02)


async def test_in_all_120_orders_with_crashes_the_events_of_a_life_come_to_one_state_and_one_story(
    shop: Shop, life: Life, dying: Dying, shop_clock: MovingClock
) -> None:
    lives = [life.copy(f"n{number}") for number in range(120)]
    orders = [[events[i] for i in order] for (_, events), order in zip(lives, permutations(range(5)), strict=True)]
    # Of every second life each event's first attempt dies.
    mortal = {event["id"] for order in orders[::2] for event in order}
    dying.dies = lambda events: all(each.id in mortal and each.attempts == 1 for each in events)
    # The first is dealt with before the second comes; the others come one after the other.
    for steps in (slice(0, 1), slice(1, 5)):
        await tell_all(shop, [order[steps] for order in orders])
        await idle(shop, dying)
    assert dying.deaths > 30  # 120 where each event is an attempt of its own; a slow machine deals with several in one
    shop_clock.move(seconds=CLAIM_SECONDS + 1)
    await shop.settled()
    outcomes = [await outcome(shop, org) for org, _ in lives]
    assert outcomes[0]["enforced"] is Status.ACTIVE
    assert outcomes[0]["until"] is not None
    assert [each for each in outcomes if each != outcomes[0]] == []
    assert outcomes[0]["story"] == STORY
    assert await shop.incidents() == []


async def test_each_event_100_times_at_once_with_crashes_comes_to_one_state_and_one_story(
    shop: Shop, life: Life, dying: Dying, shop_clock: MovingClock
) -> None:
    org, events = life.copy("x")
    chance = random.Random(4)
    dying.dies = lambda events: all(each.attempts < 4 for each in events) and chance.random() < 0.8
    await rows(shop, "DELETE FROM webhook_event")
    deliveries = events * TIMES
    chance.shuffle(deliveries)
    # Other control planes, on the same tables.
    others = [Inbox(shop.context.db, dying, shop_clock) for _ in range(2)]
    working = [asyncio.create_task(other.run()) for other in others]
    try:
        for start in range(0, len(deliveries), 100):
            await tell_all(shop, [[event] for event in deliveries[start : start + 100]])
            await rows(shop, "UPDATE webhook_event SET outcome = NULL, ended_at = NULL")
            shop_clock.move(seconds=CLAIM_SECONDS + 1)
        async with asyncio.timeout(120):
            while await rows(shop, "SELECT 1 FROM webhook_event WHERE outcome IS NULL"):
                shop_clock.move(seconds=CLAIM_SECONDS + 1)
                await asyncio.sleep(0.1)
    finally:
        for task in working:
            task.cancel()
        await asyncio.gather(*working, return_exceptions=True)
    await shop.settled()
    assert dying.deaths > 0
    state = await outcome(shop, org)
    assert (state["enforced"], state["story"]) == (Status.ACTIVE, STORY)
    assert len(await rows(shop, "SELECT 1 FROM webhook_event")) == 5
    assert await shop.incidents() == []


async def test_of_two_looks_at_one_new_customer_at_once_the_second_finds_it_linked(shop: Shop, life: Life) -> None:
    """The first is held between its insert and its commit, until the second waits for it."""
    assert shop.context.billing is not None
    org, events = life.copy("y")
    customer = next(each["data"]["object"]["customer"] for each in events if "subscription" in each["type"])
    async with shop.context.db.transaction() as first:
        await first.execute("INSERT INTO organization (id, name, created_at) VALUES ($1, $1, now())", org)
        await first.execute("INSERT INTO stripe_customer (id, org, linked_at) VALUES ($1, $2, now())", customer, org)
        second = asyncio.create_task(shop.context.billing.converger.converge(customer))
        async with asyncio.timeout(60):
            while not await rows(shop, "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'"):
                assert not second.done()
                await asyncio.sleep(0.02)
    assert await second == org
    await shop.settled()
    assert await shop.enforced(org) is Status.ACTIVE
    assert await shop.incidents() == []


async def test_many_looks_at_new_customers_at_once_open_no_incident(shop: Shop, life: Life) -> None:
    assert shop.context.billing is not None
    for number in range(5):
        org, events = life.copy(f"z{number}")
        customer = next(each["data"]["object"]["customer"] for each in events if "subscription" in each["type"])
        converge = shop.context.billing.converger.converge
        assert await asyncio.gather(*(converge(customer) for _ in range(8))) == [org] * 8
    assert await shop.incidents() == []
