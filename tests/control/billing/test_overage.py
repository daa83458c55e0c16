"""Overage on its way to Stripe: each unit once, whatever fails in between."""

import time
from typing import Any

import pytest

from common.settings_file import load
from control.billing import products
from control.billing.overage.revisions import TELL_APART_SECONDS, Overage
from control.entitlements.catalogue import apply_plans
from control.entitlements.plans import PlansFile, PlanTerms
from control.journal import Author
from quota.model import Admitted
from tests import charging
from tests.control.billing.shop import MovingClock, Shop

ALLOWANCE = 100_000


class Died(BaseException):
    """As a process does: nothing that follows is done."""


def overage_of(shop: Shop) -> Overage:
    assert shop.context.billing is not None
    return shop.context.billing.overage


async def uses(shop: Shop, org: str, **units: int) -> None:
    """Admitted by Redis, and written."""
    request_id = f"r{time.monotonic_ns()}"
    assert isinstance(await charging.take(shop.context.ledger, org, request_id, units), Admitted)
    await written(shop)


async def written(shop: Shop) -> None:
    while await shop.context.writer.lag_seconds():
        await shop.settled()


async def report(shop: Shop) -> bool:
    await overage_of(shop).freeze()
    return await overage_of(shop).send()


async def revisions(shop: Shop, org: str) -> list[tuple[int, int, bool]]:
    """Revision, units, and whether Stripe has them."""
    query = "SELECT revision, units, sent_at FROM overage_window WHERE org = $1 ORDER BY meter, period_start, revision"
    async with shop.context.db.connection() as connection:
        rows = await connection.fetch(query, org)
    return [(row["revision"], row["units"], row["sent_at"] is not None) for row in rows]


async def at_stripe(shop: Shop, org: str) -> list[int]:
    """The values of its meter events, the newest last."""
    customer = await shop.customer(org)
    events = shop.double.account.objects.get("billing.meter_event", {}).values()
    return [int(e["payload"]["value"]) for e in events if e["payload"]["stripe_customer_id"] == customer]


async def differs(shop: Shop, org: str) -> list[Any]:
    """What the organization's open incidents of that kind tell."""
    query = "SELECT content FROM incident WHERE kind = 'overage_differs' AND org = $1 AND closed_at IS NULL"
    async with shop.context.db.connection() as connection:
        return [row["content"] for row in await connection.fetch(query, org)]


async def test_a_crash_between_freezing_and_sending_loses_nothing_and_sends_nothing_twice(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    org = await shop.signed_up("growth")
    await uses(shop, org, api_calls=ALLOWANCE + 20)
    overage = overage_of(shop)
    with monkeypatch.context() as patch:
        patch.setattr(overage, "send", _die)
        with pytest.raises(Died):
            await report(shop)
    assert await revisions(shop, org) == [(1, 20, False)]
    assert await at_stripe(shop, org) == []
    await uses(shop, org, api_calls=3)
    assert await report(shop)
    assert await revisions(shop, org) == [(1, 20, True), (2, 3, True)]
    assert await at_stripe(shop, org) == [20, 3]
    assert await report(shop)
    assert await at_stripe(shop, org) == [20, 3]


async def test_what_stripe_has_though_its_answer_was_lost_counts_as_sent(shop: Shop) -> None:
    org = await shop.signed_up("growth")
    await uses(shop, org, api_calls=ALLOWANCE + 20)
    assert await report(shop)
    # As if we had died between Stripe's answer and noting it.
    async with shop.context.db.connection() as connection:
        await connection.execute("UPDATE overage_window SET sent_at = NULL WHERE org = $1", org)
    assert await overage_of(shop).send()
    assert await revisions(shop, org) == [(1, 20, True)]
    assert await at_stripe(shop, org) == [20]
    assert await shop.incidents() == []


@pytest.mark.parametrize("status", [429, 500])
async def test_while_stripe_fails_overage_waits_and_is_sent_afterwards_in_its_order(shop: Shop, status: int) -> None:
    org = await shop.signed_up("growth")
    faults = {"api": {"status": status, "times": 100, "path": "meter_events"}}
    await shop.page.post(f"{shop.double.url}/_double/faults", json=faults)
    for units in (ALLOWANCE + 1, 2):
        await uses(shop, org, api_calls=units)
        assert not await report(shop)
    await shop.page.post(f"{shop.double.url}/_double/faults", json={"api": {"times": 0}})
    assert await report(shop)
    assert await at_stripe(shop, org) == [1, 2]
    assert await shop.incidents() == []


async def test_late_usage_is_a_further_revision_of_the_difference_alone_and_an_admin_is_told(
    shop: Shop, shop_clock: MovingClock
) -> None:
    org = await shop.signed_up("growth")
    start = (await shop.subscription(org))["items"]["data"][0]["current_period_start"]
    await uses(shop, org, api_calls=ALLOWANCE + 20)
    await shop.period_over(org)
    invoice = next(shop.double.account.find("invoice", billing_reason="subscription_cycle"))
    shop_clock.move(seconds=shop.double.account.clock.now() - shop_clock())
    await shop.usage(org, start, 5, 5)
    await written(shop)
    assert await report(shop)
    assert await revisions(shop, org) == [(1, 20, True), (2, 5, True)]
    assert await shop.incidents() == ["overage_late"]
    assert [line["quantity"] for line in invoice["lines"]["data"] if line["description"] == "Usage"] == [20]
    entries = await shop.journal(org, "overage.frozen")
    assert [(each["after"]["units"], each["after"]["late"]) for each in entries] == [(20, False), (5, True)]


async def test_each_meter_of_a_plan_is_told_and_billed_by_itself(shop: Shop) -> None:
    terms = {
        "name": "Duo",
        "policy": "METERED",
        "currency": "usd",
        "price_minor": {"month": 1000},
        "meters": {
            "api_calls": {"allowance": 10, "overage": {"amount_minor": 3, "units": 1}},
            "tokens": {"allowance": 100, "overage": {"amount_minor": 200, "units": 50}},
        },
    }
    plans = {**load(None, "plans.yaml", PlansFile).plans, "duo": PlanTerms.model_validate(terms)}
    await apply_plans(shop.context.db, plans, shop.clock(), Author("tests", "tests"))
    assert shop.context.billing is not None
    await products.apply(shop.context.db, shop.context.billing.client, shop.clock(), dry_run=False)
    org = await shop.signed_up("duo")
    await uses(shop, org, api_calls=12, tokens=100)
    await uses(shop, org, api_calls=1, tokens=51)
    assert await report(shop)
    assert await revisions(shop, org) == [(1, 3, True), (1, 51, True)]
    await shop.period_over(org)
    invoice = next(shop.double.account.find("invoice", billing_reason="subscription_cycle"))
    used = sorted(line["quantity"] for line in invoice["lines"]["data"] if line["description"] == "Usage")
    assert used == [3, 51]
    assert invoice["total"] == 1000 + 3 * 3 + 51 * 4


async def test_what_was_given_back_is_taken_off_what_stripe_was_told(shop: Shop) -> None:
    org = await shop.signed_up("growth")
    start = (await shop.subscription(org))["items"]["data"][0]["current_period_start"]
    await uses(shop, org, api_calls=ALLOWANCE + 20)
    assert await report(shop)
    await shop.usage(org, start, -15, -15)
    await written(shop)
    assert await report(shop)
    assert await at_stripe(shop, org) == [20, -15]
    await shop.usage(org, start, -5, -5)
    await written(shop)
    assert await report(shop)
    assert await at_stripe(shop, org) == [20, -15, -5]
    await shop.period_over(org)
    invoice = next(shop.double.account.find("invoice", billing_reason="subscription_cycle"))
    assert invoice["total"] == 39_900


async def test_a_difference_that_came_up_at_stripe_is_found_and_closed_when_it_is_gone(
    shop: Shop, shop_clock: MovingClock
) -> None:
    org = await shop.signed_up("growth")
    await uses(shop, org, api_calls=ALLOWANCE + 20)
    assert await report(shop)
    shop_clock.move(seconds=TELL_APART_SECONDS + 60)
    overage, customer = overage_of(shop), await shop.customer(org)
    await overage.compare()
    assert await differs(shop, org) == []
    (event,) = [
        each
        for each in shop.double.account.objects["billing.meter_event"].values()
        if each["payload"]["stripe_customer_id"] == customer
    ]
    event["payload"]["value"] = "21"
    assert await overage.compare() >= 1
    assert await differs(shop, org) == [{"meter": "api_calls", "told": 20, "stripe": 21}]
    event["payload"]["value"] = "20"
    await overage.compare()
    assert await differs(shop, org) == []


async def calls_of_meter_events(shop: Shop) -> int:
    answered = (await shop.page.get(f"{shop.double.url}/_double/calls")).json()["calls"]
    return sum(each["path"] == "/v1/billing/meter_events" for each in answered)


async def resend(shop: Shop, org: str) -> int:
    response = await shop.admin.post(f"/v1/organizations/{org}/overage/resend")
    assert response.status_code == 200, response.text
    return int(response.json()["resent"])


async def test_overage_that_stripe_refuses_for_good_is_given_up_at_once_with_an_incident_and_sent_when_an_admin_asks(
    shop: Shop,
) -> None:
    org = await shop.signed_up("growth")
    (meter,) = shop.double.account.objects["billing.meter"].values()
    meter["status"] = "inactive"
    await uses(shop, org, api_calls=ALLOWANCE + 20)
    assert await report(shop), "nothing waits for Stripe"
    assert await shop.incidents() == ["overage_refused"]
    asked = await calls_of_meter_events(shop)
    assert await report(shop)
    assert await calls_of_meter_events(shop) == asked, "it is not asked again"
    meter["status"] = "active"
    await uses(shop, org, api_calls=3)
    assert await report(shop)
    assert await at_stripe(shop, org) == [3], "what comes later is no part of it"
    assert await resend(shop, org) == 1
    assert await report(shop)
    assert await at_stripe(shop, org) == [3, 20]
    assert await shop.incidents() == []
    assert await resend(shop, org) == 0
    assert len(await shop.journal(org, "overage.resent")) == 1


async def test_what_is_given_back_of_overage_that_was_given_up_waits_with_it(shop: Shop) -> None:
    org = await shop.signed_up("growth")
    start = (await shop.subscription(org))["items"]["data"][0]["current_period_start"]
    (meter,) = shop.double.account.objects["billing.meter"].values()
    meter["status"] = "inactive"
    await uses(shop, org, api_calls=ALLOWANCE + 20)
    assert await report(shop)
    meter["status"] = "active"
    await shop.usage(org, start, -15, -15)
    await written(shop)
    assert await report(shop)
    assert await at_stripe(shop, org) == []
    await resend(shop, org)
    assert await report(shop)
    assert await at_stripe(shop, org) == [20, -15]


async def test_overage_that_is_too_old_for_stripe_is_given_up_and_told_for_now_when_an_admin_asks(
    shop: Shop, shop_clock: MovingClock
) -> None:
    org = await shop.signed_up("growth")
    await uses(shop, org, api_calls=ALLOWANCE + 20)
    await overage_of(shop).freeze()
    shop.double.account.clock.offset_seconds += 36 * 86_400
    assert await overage_of(shop).send(org)
    assert (await revisions(shop, org)) == [(1, 20, False)]
    assert "overage_refused" in await shop.incidents()
    shop_clock.move(days=36)
    assert await resend(shop, org) == 1
    assert await overage_of(shop).send(org)
    assert await at_stripe(shop, org) == [20]
    assert "overage_refused" not in await shop.incidents()


async def test_overage_of_a_key_that_lacks_the_permission_waits_and_is_sent_when_it_has_it(shop: Shop) -> None:
    org = await shop.signed_up("growth")
    faults = {"api": {"status": 403, "times": 100, "path": "meter_events"}}
    await shop.page.post(f"{shop.double.url}/_double/faults", json=faults)
    await uses(shop, org, api_calls=ALLOWANCE + 20)
    assert not await report(shop), "somebody may mend it"
    assert await shop.incidents() == ["overage_refused"]
    await shop.page.post(f"{shop.double.url}/_double/faults", json={"api": {"times": 0}})
    assert await report(shop)
    assert await at_stripe(shop, org) == [20]
    assert await shop.incidents() == []


async def test_overage_of_the_second_in_which_its_item_came_is_told_for_the_first_that_the_item_counts(
    shop: Shop,
) -> None:
    org = await shop.signed_up("starter")
    await shop.post(f"/v1/organizations/{org}/subscription/switch", plan="growth")
    account, customer = shop.double.account, await shop.customer(org)
    item = next(
        each
        for each in next(account.find("subscription", customer=customer))["items"]["data"]
        if each["price"]["recurring"]["usage_type"] == "metered"
    )
    item["created"] = int(shop.clock()) + 60  # as if it had come this second, however long this test takes
    assert shop.context.billing is not None
    await shop.context.billing.inbox.resync(customer)
    await shop.settled()
    await uses(shop, org, api_calls=ALLOWANCE + 20)
    assert await report(shop)
    (event,) = [
        each
        for each in account.objects["billing.meter_event"].values()
        if each["payload"]["stripe_customer_id"] == customer
    ]
    assert event["timestamp"] == item["created"] + 1


async def _die(*_: Any) -> bool:
    raise Died
