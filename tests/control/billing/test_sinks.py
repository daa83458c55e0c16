"""The laws of overage, whichever way Stripe is told of it: each unit is invoiced once, and no other."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from common.clock import Clock
from control.billing.overage.overage_price import OveragePrice
from control.billing.overage.revisions import Overage
from control.billing.overage.sinks import IDENTIFIER, UNITS
from control.settings.control_plane import Settings
from devstack.stripe.account import Account
from tests.control.billing.shop import Double, Shop, opened_double

ALLOWANCE, HOUR = 100_000, 3600


@pytest.fixture
async def double() -> AsyncIterator[Double]:
    async with opened_double(Account()) as opened:
        opened.deliveries.signing_clock = opened.account.clock.now
        yield opened


@pytest.fixture
def shop_clock(double: Double) -> Clock:
    """Stripe's clock is ours."""
    return double.account.clock.now


@pytest.fixture(params=["meter_events", "invoice_items"])
def settings(request: pytest.FixtureRequest, settings: Settings, double: Double) -> Settings:
    stripe = {**settings.stripe.model_dump(), "overage_by": request.param}
    return Settings.model_validate({**settings.model_dump(), "stripe": stripe})


def overage_of(shop: Shop) -> Overage:
    assert shop.context.billing is not None
    return shop.context.billing.overage


async def written(shop: Shop) -> None:
    while await shop.context.writer.lag_seconds():
        await shop.settled()


async def report(shop: Shop) -> None:
    """What happens now and then."""
    await written(shop)
    await overage_of(shop).freeze()
    assert await overage_of(shop).send()


def invoiced(shop: Shop) -> list[tuple[int, int]]:
    """Units and money of usage, of each final invoice that has any, the oldest first."""
    invoice_lines = []
    for invoice in reversed(list(shop.double.account.find("invoice"))):
        if invoice["status"] in ("draft", "void"):
            continue
        lines = [
            each for each in invoice["lines"]["data"] if each["description"] == "Usage" or UNITS in each["metadata"]
        ]
        units = sum(int(each["metadata"].get(UNITS, each["quantity"])) for each in lines)
        if units:
            invoice_lines.append((units, sum(each["amount"] for each in lines)))
    return invoice_lines


async def close(shop: Shop, org: str) -> int:
    """The period ends, and its invoice becomes final; the start of the next."""
    ends: int = (await shop.subscription(org))["items"]["data"][0]["current_period_end"]
    shop.double.account.advance_to(ends)
    await shop.settled()
    await report(shop)
    shop.double.account.advance_to(ends + HOUR + 60)
    await shop.settled()
    return ends


async def beyond(shop: Shop, org: str) -> int:
    """Units of events beyond the allowance."""
    async with shop.context.db.connection() as connection:
        return int(await connection.fetchval("SELECT coalesce(sum(overage), 0) FROM usage_event WHERE org = $1", org))


async def start_of(shop: Shop, org: str) -> int:
    return int((await shop.subscription(org))["items"]["data"][0]["current_period_start"])


async def test_the_units_that_are_invoiced_are_those_of_the_events_beyond_the_allowance(shop: Shop) -> None:
    org = await shop.signed_up("growth")
    per_period = [(20, 3), (0, 0), (1_837, 1), (250, -40)]
    for first, then in per_period:
        start = await start_of(shop, org)
        await shop.usage(org, start, ALLOWANCE + first, first)
        await shop.later(days=3)
        await report(shop)
        if then:
            await shop.usage(org, start, then, then)
        await close(shop, org)
    assert [units for units, _ in invoiced(shop)] == [first + then for first, then in per_period if first + then]
    assert sum(units for units, _ in invoiced(shop)) == await beyond(shop, org) == 2_071
    assert await shop.incidents() == []


async def test_late_usage_is_a_further_item_on_the_next_invoice_and_an_admin_is_told(shop: Shop) -> None:
    org = await shop.signed_up("growth")
    start = await start_of(shop, org)
    await shop.usage(org, start, ALLOWANCE + 20, 20)
    await close(shop, org)
    await shop.usage(org, start, 5, 5)
    await report(shop)
    assert [units for units, _ in invoiced(shop)] == [20]
    await close(shop, org)
    assert [units for units, _ in invoiced(shop)] == [20, 5]
    assert "overage_late" in await shop.incidents()


async def test_what_stripe_has_though_its_answer_was_lost_is_billed_once(shop: Shop) -> None:
    org = await shop.signed_up("growth")
    await shop.usage(org, await start_of(shop, org), ALLOWANCE + 20, 20)
    ends = (await shop.subscription(org))["items"]["data"][0]["current_period_end"]
    shop.double.account.advance_to(ends)
    await shop.settled()
    await report(shop)
    for _ in range(2):
        # As if we had died between Stripe's answer and noting it; the second time its idempotency keys are forgotten.
        async with shop.context.db.connection() as connection:
            await connection.execute("UPDATE overage_window SET sent_at = NULL WHERE org = $1", org)
        assert await overage_of(shop).send()
        shop.double.app.state.api._answers.clear()
    shop.double.account.advance_to(ends + HOUR + 60)
    await shop.settled()
    assert [units for units, _ in invoiced(shop)] == [20]


async def test_a_subscription_that_is_ended_at_once_bills_what_was_used_until_then(shop: Shop) -> None:
    org = await shop.signed_up("growth")
    await shop.usage(org, await start_of(shop, org), ALLOWANCE + 20, 20)
    await shop.later(days=3)
    response = await shop.post(f"/v1/organizations/{org}/subscription/cancel", when="now")
    assert response.status_code == 200, response.text
    assert [units for units, _ in invoiced(shop)] == [20]
    assert "overage_unbilled" not in await shop.incidents()


async def test_while_stripe_fails_overage_waits_and_each_unit_is_billed_once(shop: Shop) -> None:
    org = await shop.signed_up("growth")
    await shop.usage(org, await start_of(shop, org), ALLOWANCE + 20, 20)
    await written(shop)
    faults: Any = {"api": {"status": 500, "times": 1000, "path": "meter_events|invoiceitems"}}
    await shop.page.post(f"{shop.double.url}/_double/faults", json=faults)
    await overage_of(shop).freeze(org, running=True)
    assert not await overage_of(shop).send(org)
    await shop.page.post(f"{shop.double.url}/_double/faults", json={"api": {"times": 0}})
    assert await overage_of(shop).send(org)
    await close(shop, org)
    assert [units for units, _ in invoiced(shop)] == [20]


@pytest.mark.parametrize("settings", ["invoice_items"], indirect=True)
async def test_invoice_items_say_what_they_bill_and_wait_until_their_period_is_over(shop: Shop) -> None:
    org = await shop.signed_up("growth")
    await shop.usage(org, await start_of(shop, org), ALLOWANCE + 20, 20)
    await shop.later(days=3)
    await report(shop)
    assert list(shop.double.account.find("invoiceitem")) == []
    await close(shop, org)
    (item,) = shop.double.account.find("invoiceitem")
    assert item["description"] == "20 api_calls beyond the plan"
    assert item["metadata"][IDENTIFIER].startswith(f"api_calls:{org}:")
    assert shop.double.account.get("invoice", item["invoice"])["billing_reason"] == "subscription_cycle"
    assert list(shop.double.account.objects.get("billing.meter_event", {})) == []


@pytest.mark.parametrize("price", [(3, 1), (2, 1000), (1, 3)])
def test_in_how_many_parts_units_are_told_makes_no_difference_to_what_they_cost(price: tuple[int, int]) -> None:
    of_units = OveragePrice(*price)
    for parts in ([1, 1, 1, 1], [999, 1, 2], [333, 333, 334, -1000], [7, 250, -40, 1]):
        reported, cost = 0, 0
        for part in parts:
            cost += of_units.of_more(reported, part)
            reported += part
        assert cost == of_units.of(reported)
