"""What Stripe says and nobody foresaw decides nothing in silence: an admin is told, or it is read on."""

from typing import Any

import pytest

from control.billing.client import ask, whole
from control.billing.subscriptions.translate import PLANS_SEVERAL, WORD_UNKNOWN
from quota.model import Status
from tests.control.billing.reading import ANCHOR, NOW, given, reading, subscription
from tests.control.billing.shop import Shop

Object = dict[str, Any]


def stripe(shop: Shop) -> Any:
    """Stripe's dashboard."""
    assert shop.context.billing is not None
    return shop.context.billing.client.v1


async def looked_at(shop: Shop, org: str) -> None:
    assert shop.context.billing is not None
    await shop.context.billing.inbox.resync(await shop.customer(org))
    await shop.settled()


async def price_of(shop: Shop, plan: str, meter: str | None = None) -> str:
    async with shop.context.db.connection() as connection:
        query = (
            "SELECT s.id FROM stripe_price s JOIN plan ON plan.id = s.plan_id WHERE plan.code = $1 AND"
            " plan.superseded_at IS NULL AND s.billing_interval = 'month' AND s.meter IS NOT DISTINCT FROM $2"
        )
        return str(await connection.fetchval(query, plan, meter))


async def test_two_plans_in_one_subscription_are_an_incident_and_no_switch_guesses_which_is_meant(shop: Shop) -> None:
    org = await shop.signed_up("starter")
    sub_id = (await shop.subscription(org))["id"]
    await ask(stripe(shop).subscriptions.update_async(sub_id, {"items": [{"price": await price_of(shop, "growth")}]}))
    await shop.settled()
    assert await shop.incidents() == [PLANS_SEVERAL]
    assert (await shop.entitlement(org))["plan"] == "starter", "the first"
    response = await shop.post(f"/v1/organizations/{org}/subscription/switch", plan="growth", when="now")
    assert 400 <= response.status_code < 500, response.text
    (_, second) = (await shop.subscription(org))["items"]["data"]
    await ask(stripe(shop).subscriptions.update_async(sub_id, {"items": [{"id": second["id"], "deleted": True}]}))
    await shop.settled()
    assert await shop.incidents() == []


@pytest.mark.parametrize(
    ("word", "change"),
    [
        ("status", {"status": "hibernating"}),
        ("pause_collection.behavior", {"pause_collection": {"behavior": "shrug", "resumes_at": None}}),
    ],
)
async def test_a_word_that_is_not_known_here_takes_nothing_away_and_is_an_incident(
    shop: Shop, word: str, change: Object
) -> None:
    org = await shop.signed_up("starter")
    subscribed = await shop.subscription(org)
    before = {name: subscribed[name] for name in change}
    subscribed.update(change)
    await looked_at(shop, org)
    assert await shop.enforced(org) is Status.ACTIVE
    assert await shop.incidents() == [WORD_UNKNOWN]
    subscribed.update(before)
    await looked_at(shop, org)
    assert await shop.incidents() == []


async def test_a_plan_behind_the_first_page_of_items_is_found(shop: Shop) -> None:
    shop.double.account.settings["items_shown"] = 1
    org = await shop.signed_up("growth")
    v1, subscribed = stripe(shop), await shop.subscription(org)
    subscribed["items"]["data"].reverse()  # the overage's item first
    answer = await ask(v1.subscriptions.retrieve_async(subscribed["id"]))
    assert (len(answer["items"]["data"]), answer["items"]["has_more"]) == (1, True)
    await looked_at(shop, org)
    assert (await shop.entitlement(org))["plan"] == "growth"
    assert await shop.incidents() == []
    response = await shop.post(f"/v1/organizations/{org}/subscription/switch", plan="starter", when="now")
    assert response.status_code == 200, response.text
    assert (await shop.entitlement(org))["plan"] == "starter"
    assert len(subscribed["items"]["data"]) == 1, "the overage's item went, too"


async def test_a_list_that_says_there_is_more_is_read_on(shop: Shop) -> None:
    shop.double.account.settings["items_shown"] = 1
    org = await shop.signed_up("growth")
    assert shop.context.billing is not None
    answer = await ask(stripe(shop).subscriptions.retrieve_async((await shop.subscription(org))["id"]))
    items = await whole(
        shop.context.billing.client, answer["items"], "/v1/subscription_items", {"subscription": answer["id"]}
    )
    assert len(items) == 2


@pytest.mark.parametrize("data", [{}, {"object": None}, None, [], "text"], ids=repr)
@pytest.mark.parametrize("kind", ["customer.subscription.updated", "charge.refunded", "price.updated"])
async def test_a_signed_event_that_tells_of_nothing_is_an_incident_and_no_attempt_is_repeated(
    shop: Shop, kind: str, data: Any
) -> None:
    await shop.tell({"id": f"evt_{kind}_{id(data)}", "object": "event", "type": kind, "created": NOW, "data": data})
    await shop.settled()
    assert await shop.incidents() == ["stripe_event_unreadable"]
    async with shop.context.db.connection() as connection:
        assert await connection.fetchval("SELECT max(attempts) FROM webhook_event") == 1


def test_of_two_subscriptions_the_one_whose_words_are_known_counts() -> None:
    odd = subscription("price_growth", id="sub_odd", status="hibernating")
    translation = reading(odd, subscription())
    assert translation.timeline.now == given()
    assert not translation.keep
    assert [each.kind for each in translation.troubles] == [WORD_UNKNOWN]
    assert reading(odd).keep


@pytest.mark.parametrize("field", ["status", "end_behavior"])
def test_a_schedule_whose_words_are_not_known_changes_nothing(field: str) -> None:
    starts = ANCHOR + 30 * 86_400
    phase = {"start_date": starts, "end_date": starts + 86_400, "items": [{"price": "price_starter", "quantity": 1}]}
    schedule = {"id": "sub_sched_1", "status": "active", "end_behavior": "release", "phases": [phase], field: "odd"}
    translation = reading(subscription("price_growth", schedule=schedule))
    assert translation.keep
    assert translation.troubles[0].content["words"] == {f"schedule.{field}": "odd"}


def test_two_plans_in_a_phase_to_come_are_told() -> None:
    items = [{"price": "price_starter", "quantity": 1}, {"price": "price_growth", "quantity": 1}]
    phase = {"start_date": NOW + 5, "end_date": NOW + 9, "items": items}
    schedule = {"id": "sub_sched_1", "status": "active", "end_behavior": "release", "phases": [phase]}
    translation = reading(subscription(schedule=schedule))
    assert [each.kind for each in translation.troubles] == [PLANS_SEVERAL]
