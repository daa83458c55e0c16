"""Actions at Stripe: the invoices that are shown are those that come, and undo restores what was before."""

import asyncio
import random
from typing import Any
from uuid import uuid4

import pytest
from httpx import AsyncClient

from control.actions.effect import see
from control.entitlements.derive import derive
from control.settings.control_plane import Settings
from tests.control.actions.doing import Admin
from tests.control.billing.shop import MovingClock, Shop

PRICE, HIGHER = 4900, 39900  # of starter and growth, a month


@pytest.fixture
def ada(shop: Shop) -> Admin:
    return Admin(shop.admin, shop.settled)


async def standing(shop: Shop, org: str) -> dict[str, Any]:
    """What the organization has here and at Stripe, without versions and times."""
    now = shop.clock()
    async with shop.context.db.connection() as connection:
        seen = await see(connection, org, now)
    account, subscription = shop.double.account, await shop.subscription(org)
    entitlement = derive(seen.state, now)
    discounts = [account.get("discount", each)["source"]["coupon"] for each in subscription["discounts"]]
    return {
        "status": entitlement.status,
        "plan": entitlement.plan,
        "meters": entitlement.meters,
        "ahead": [(at, terms and terms.plan.code) for at, terms in seen.ahead],
        "balance": account.get("customer", subscription["customer"])["balance"],
        "discounts": discounts,
        "cancels": (subscription["cancel_at_period_end"], subscription["cancel_at"]),
        "schedule": subscription["schedule"],
        "items": [(item["price"]["id"], item.get("quantity")) for item in subscription["items"]["data"]],
        "at_stripe": subscription["status"],
    }


async def coupons(shop: Shop) -> None:
    for name, share, duration in (("tenth", 10, "forever"), ("half", 50, "forever"), ("first", 20, "once")):
        made = await shop.admin.post("/v1/coupons", json={"id": name, "percent_off": share, "duration": duration})
        assert made.status_code == 201, made.text


def invoices_of(shop: Shop, reason: str) -> list[dict[str, Any]]:
    return list(shop.double.account.find("invoice", billing_reason=reason))


@pytest.mark.parametrize("seed", range(4))
async def test_undo_of_apply_is_what_was_before_at_stripe_too(shop: Shop, ada: Admin, seed: int) -> None:
    chance = random.Random(seed)
    await coupons(shop)
    org = await shop.signed_up("growth")
    some: list[tuple[str, dict[str, Any]]] = [
        ("credit", {"amount_minor": 1500, "currency": "usd"}),
        ("credit", {"amount_minor": 10**6, "currency": "usd"}),
        ("discount", {"coupon": "tenth"}),
        ("discount", {"coupon": "half"}),
        ("discount", {}),
        ("cancel", {"when": "period_end"}),
        ("switch", {"plan": "starter"}),
        ("switch", {"plan": "growth", "quantity": 3, "when": "period_end"}),
        ("suspend", {}),
        ("override", {"meter": "api_calls", "allowance": 5}),
    ]
    done: list[tuple[dict[str, Any], dict[str, Any]]] = []
    for _ in range(7):
        name, fields = chance.choice(some)
        before = await standing(shop, org)
        answer = await ada.client.post(f"/v1/organizations/{org}/actions/{name}/preview", json={"fields": fields})
        if answer.status_code == 409 or not answer.json()["undo"]["possible"]:
            assert await standing(shop, org) == before, "a preview changes nothing"
            continue
        done.append((await ada.do(org, name, **fields), before))
        assert before != await standing(shop, org) or name == "discount"
    assert done
    for action, before in reversed(done):
        answer = await ada.undo(action)
        assert answer.status_code == 200, (answer.text, action)
        assert await standing(shop, org) == before, action


async def test_the_next_invoice_that_is_shown_is_the_one_that_comes(shop: Shop, ada: Admin) -> None:
    await coupons(shop)
    org = await shop.signed_up("starter")
    effects = [
        await ada.preview(org, "credit", amount_minor=1500, currency="usd"),
        await ada.preview(org, "discount", coupon="half"),
    ]
    shown = [(e["invoice"]["before"]["due_minor"], e["invoice"]["after"]["due_minor"]) for e in effects]
    assert shown == [(PRICE, PRICE - 1500), (PRICE, PRICE // 2)]
    await ada.do(org, "discount", coupon="half")
    await ada.do(org, "credit", amount_minor=1500, currency="usd")
    last = await ada.preview(org, "credit", amount_minor=1, currency="usd")
    await shop.period_over(org)
    [renewal] = invoices_of(shop, "subscription_cycle")
    assert renewal["amount_paid"] == PRICE // 2 - 1500 == last["invoice"]["before"]["due_minor"]


async def test_an_upgrade_shows_what_is_charged_at_once_and_what_comes_into_force(shop: Shop, ada: Admin) -> None:
    org = await shop.signed_up("starter")
    await shop.later(days=10)
    fields = {"plan": "growth", "when": "now"}
    effect = await ada.preview(org, "switch", **fields)
    done = await ada.do(org, "switch", **fields)
    assert not done["undoable"]
    [at_once] = invoices_of(shop, "subscription_update")
    assert effect["invoice"]["now"]["total_minor"] == pytest.approx(at_once["total"], abs=2), "a moment later"
    assert (effect["invoice"]["before"]["total_minor"], effect["invoice"]["after"]["total_minor"]) == (PRICE, HIGHER)
    after = (await ada.preview(org, "suspend"))["entitlement"]["before"]
    assert effect["entitlement"]["after"]["plan"] == after["plan"] == "growth"
    for shown, real in zip(effect["entitlement"]["after"]["meters"], after["meters"], strict=True):
        # What is left of the period is a moment less when it is done.
        assert (shown["meter"], shown["overage_max"]) == (real["meter"], real["overage_max"])
        assert shown["allowance"] == pytest.approx(real["allowance"], rel=0.001)
    await shop.period_over(org)
    assert invoices_of(shop, "subscription_cycle")[0]["total"] == HIGHER


async def test_a_downgrade_and_a_cancellation_show_when_they_come_into_force(shop: Shop, ada: Admin) -> None:
    org = await shop.signed_up("growth")
    down = await ada.preview(org, "switch", plan="starter")
    assert not down["entitlement"]["changed"] or down["entitlement"]["after"]["scheduled"]
    assert [each["plan"] for each in down["entitlement"]["after"]["scheduled"]] == ["starter"]
    assert (down["invoice"]["after"]["total_minor"], down["invoice"]["now"]) == (PRICE, None)
    end = await ada.preview(org, "cancel")
    assert [each["plan"] for each in end["entitlement"]["after"]["scheduled"]] == [None]
    assert end["invoice"]["after"]["total_minor"] == 0, "only usage until the end"
    at_once = await ada.preview(org, "cancel", when="now")
    assert (at_once["entitlement"]["after"]["status"], at_once["undo"]["possible"]) == ("ended", False)
    await ada.do(org, "cancel", when="now")
    assert (await shop.entitlement(org))["status"] == "ended"


async def test_a_refund_says_that_it_cannot_be_undone_and_is_given_once(shop: Shop, ada: Admin) -> None:
    org = await shop.signed_up("starter")
    [invoice] = invoices_of(shop, "subscription_create")
    form = (await shop.admin.get(f"/v1/organizations/{org}/actions/refund")).json()
    assert invoice["id"] in [each["value"] for each in form["fields"][0]["options"]]
    effect = await ada.preview(org, "refund", invoice=invoice["id"], amount_minor=900)
    assert not effect["undo"]["possible"]
    for _ in range(2):
        answer = await ada.confirm(org, "refund", effect["state"], invoice=invoice["id"], amount_minor=900)
        assert answer.status_code == 201, answer.text
    charge = next(shop.double.account.find("charge", customer=await shop.customer(org)))
    assert charge["amount_refunded"] == 900
    assert (await ada.undo(answer.json())).status_code == 409
    too_much = {"fields": {"invoice": invoice["id"], "amount_minor": PRICE}}
    answer = await shop.admin.post(f"/v1/organizations/{org}/actions/refund/preview", json=too_much)
    assert answer.status_code == 409, "900 of it went back already"


async def test_credit_that_an_invoice_has_used_is_not_taken_back(shop: Shop, ada: Admin) -> None:
    org = await shop.signed_up("starter")
    done = await ada.do(org, "credit", amount_minor=1500, currency="usd")
    await shop.period_over(org)
    assert (await ada.undo(done)).status_code == 409
    assert (await standing(shop, org))["balance"] == 0


async def test_of_two_admins_who_give_credit_the_second_is_told(shop: Shop, ada: Admin) -> None:
    org = await shop.signed_up("starter")
    fields = {"amount_minor": 1500, "currency": "usd"}
    first, second = await ada.preview(org, "credit", **fields), await ada.preview(org, "credit", **fields)
    assert (await ada.confirm(org, "credit", first["state"], **fields)).status_code == 201
    answer = await ada.confirm(org, "credit", second["state"], **fields)
    assert answer.status_code == 409, answer.text
    assert "credit.given" in [each["action"] for each in answer.json()["changed"]]
    assert (await standing(shop, org))["balance"] == -1500


@pytest.mark.parametrize(("status", "state"), [(400, "refused"), (500, "unanswered")])
async def test_what_stripe_says_no_or_nothing_to_is_known_afterwards(
    shop: Shop, ada: Admin, status: int, state: str
) -> None:
    org = await shop.signed_up("starter")
    fields = {"amount_minor": 1500, "currency": "usd"}
    effect = await ada.preview(org, "credit", **fields)
    fault = {"api": {"status": status, "times": 9, "path": "balance_transactions"}}
    await shop.page.post(f"{shop.double.url}/_double/faults", json=fault)
    answer = await ada.confirm(org, "credit", effect["state"], **fields)
    assert answer.status_code == (409 if status == 400 else 503), answer.text
    await shop.page.post(f"{shop.double.url}/_double/faults", json={"api": {"times": 0}})
    [action] = (await shop.admin.get(f"/v1/organizations/{org}/actions")).json()["actions"]
    assert (action["state"], action["undoable"]) == (state, False)
    assert action["note"]
    assert (await ada.undo(action)).status_code == 409
    assert len(await shop.journal(org, f"action.{state}")) == 1


async def test_where_stripe_does_not_say_the_next_invoice_the_preview_says_so(shop: Shop, ada: Admin) -> None:
    org = await shop.signed_up("starter")
    fault = {"api": {"status": 403, "times": 9, "path": "create_preview"}}
    await shop.page.post(f"{shop.double.url}/_double/faults", json=fault)
    invoice = (await ada.preview(org, "credit", amount_minor=1500, currency="usd"))["invoice"]
    assert (invoice["known"], invoice["before"], invoice["after"]) == (False, None, None)
    assert "not known" in invoice["says"]
    await shop.page.post(f"{shop.double.url}/_double/faults", json={"api": {"times": 0}})


async def test_resync_shows_what_stripe_has_otherwise_and_makes_it_so(shop: Shop, ada: Admin) -> None:
    org = await shop.signed_up("starter")
    subscription = await shop.subscription(org)
    async with shop.context.db.connection() as connection:
        await connection.execute("UPDATE subscription SET status = 'past_due' WHERE id = $1", subscription["id"])
    effect = await ada.preview(org, "resync")
    assert effect["differences"] == [
        {"what": f"Subscription {subscription['id']}", "before": "past_due", "after": "active", "currency": None}
    ]
    await ada.do(org, "resync")
    assert (await ada.preview(org, "resync"))["differences"] == []


async def test_an_organization_without_a_subscription_has_none_of_these(shop: Shop, ada: Admin) -> None:
    assert (await shop.admin.put("/v1/organizations/plain-one", json={"name": "Plain"})).is_success
    wanted: list[tuple[str, dict[str, Any]]] = [
        ("credit", {"amount_minor": 5, "currency": "usd"}),
        ("refund", {"invoice": "in_1"}),
        ("discount", {}),
        ("switch", {"plan": "growth"}),
        ("cancel", {}),
        ("resync", {}),
    ]
    for name, fields in wanted:
        answer = await shop.admin.post(f"/v1/organizations/plain-one/actions/{name}/preview", json={"fields": fields})
        assert answer.status_code == 409, (name, answer.text)


async def somebody(shop: Shop) -> Admin:
    """Another person, by a service token that nobody else has made."""
    name = f"person-{uuid4().hex[:8]}"
    made = await shop.admin.post("/v1/service-tokens", json={"name": name, "role": "admin"})
    assert made.status_code == 201
    async with shop.context.db.connection() as connection:
        query = "UPDATE service_token SET created_by = $1 WHERE name = $2"
        await connection.execute(query, f"person:{name}", name)
    headers = {"authorization": f"Bearer {made.json()['token']}"}
    return Admin(AsyncClient(base_url=shop.admin.base_url, headers=headers, timeout=30), shop.settled)


class TestApprovals:
    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        approvals = {"actions": ["credit", "refund", "discount", "switch", "cancel"], "above_minor": 1000}
        return Settings.model_validate({**settings.model_dump(), "approvals": approvals})

    @pytest.fixture
    async def ada(self, shop: Shop) -> Admin:
        """Somebody who has given nothing yet."""
        return await somebody(shop)

    async def test_more_money_than_the_settings_say_needs_a_second_person_by_every_way(
        self, shop: Shop, ada: Admin
    ) -> None:
        org = await shop.signed_up("growth")
        [invoice] = invoices_of(shop, "subscription_create")
        wanted: list[tuple[str, dict[str, Any], bool]] = [
            ("credit", {"amount_minor": 1000, "currency": "usd"}, False),
            ("credit", {"amount_minor": 1001, "currency": "usd"}, True),
            ("refund", {"invoice": invoice["id"], "amount_minor": 1000}, False),
            ("refund", {"invoice": invoice["id"]}, True),
            ("discount", {}, True),
            ("switch", {"plan": "starter"}, True),
            ("cancel", {}, True),
        ]
        for name, fields, second in wanted:
            assert (await ada.preview(org, name, **fields))["second_person"] is second, name
        direct: list[tuple[str, str, dict[str, Any]]] = [
            ("POST", "credits", {"amount_minor": 1001, "currency": "usd", "reason": "x"}),
            ("POST", "refunds", {"invoice": invoice["id"], "amount_minor": 1001, "reason": "x"}),
            ("POST", "refunds", {"invoice": invoice["id"], "reason": "x"}),
            ("PUT", "discount", {"coupon": None}),
            ("POST", "subscription/switch", {"plan": "starter"}),
            ("POST", "subscription/cancel", {}),
        ]
        before = await standing(shop, org)
        for method, path, body in direct:
            answer = await ada.client.request(method, f"/v1/organizations/{org}/{path}", json=body)
            assert (answer.status_code, answer.json().get("reason")) == (403, "second_person"), (path, answer.text)
        assert await standing(shop, org) == before
        small = {"amount_minor": 1000, "currency": "usd", "reason": "x"}
        assert (await ada.client.post(f"/v1/organizations/{org}/credits", json=small)).status_code == 201

    async def test_parts_below_the_bound_need_a_second_person_when_their_sum_is_above_it(
        self, shop: Shop, ada: Admin, shop_clock: MovingClock
    ) -> None:
        org, other = await shop.signed_up("growth"), await shop.signed_up("growth")
        part = {"amount_minor": 400, "currency": "usd"}
        await ada.do(org, "credit", **part)
        given = await ada.client.post(f"/v1/organizations/{other}/credits", json={**part, "reason": "x"})
        assert given.status_code == 201
        for name in (org, other):
            assert (await ada.preview(name, "credit", **part))["second_person"] is True
            assert (await ada.preview(name, "credit", amount_minor=200, currency="usd"))["second_person"] is False
            direct = await ada.client.post(f"/v1/organizations/{name}/credits", json={**part, "reason": "x"})
            assert (direct.status_code, direct.json()["reason"]) == (403, "second_person")
        shop_clock.move(hours=25)
        assert (await ada.preview(org, "credit", **part))["second_person"] is False

    async def test_parts_that_are_given_at_once_do_not_pass_the_bound_together(self, shop: Shop, ada: Admin) -> None:
        orgs = [await shop.signed_up("growth") for _ in range(3)]
        body = {"amount_minor": 900, "currency": "usd", "reason": "x"}
        answers = await asyncio.gather(
            *(ada.client.post(f"/v1/organizations/{org}/credits", json=body) for org in orgs)
        )
        assert sorted(each.status_code for each in answers)[1:] == [403, 403]
        balances = [shop.double.account.get("customer", await shop.customer(org))["balance"] for org in orgs]
        assert sum(balances) in (0, -900)

    async def test_what_a_second_person_approved_leaves_the_bound_as_it_was(self, shop: Shop, ada: Admin) -> None:
        org, body = await shop.signed_up("growth"), {"amount_minor": 900, "currency": "usd", "reason": "x"}
        effect = await ada.preview(org, "credit", amount_minor=5000, currency="usd")
        asked = await ada.confirm(org, "credit", effect["state"], amount_minor=5000, currency="usd")
        assert asked.status_code == 202
        bob = await somebody(shop)
        approval = f"/v1/approvals/{asked.json()['id']}"
        seen = (await bob.client.get(approval)).json()["effect"]["state"]
        done = await bob.client.post(f"{approval}/approve", json={"state": seen})
        assert done.status_code == 200, done.text
        assert (await ada.client.post(f"/v1/organizations/{org}/credits", json=body)).status_code == 201


async def test_a_coupon_is_chosen_from_those_that_stripe_has(shop: Shop, ada: Admin) -> None:
    await coupons(shop)
    cents = {"id": "cents", "amount_off_minor": 1250, "currency": "usd", "duration": "once", "name": "Sorry"}
    assert (await shop.admin.post("/v1/coupons", json=cents)).status_code == 201
    form = f"/v1/organizations/{await shop.signed_up('starter')}/actions/discount"
    [field] = (await shop.admin.get(form)).json()["fields"]
    assert [(each["value"], each["label"]) for each in field["options"]] == [
        ("cents", "Sorry (cents): 12.50 USD off, once"),
        ("first", "first: 20 % off, once"),
        ("half", "half: 50 % off, for ever"),
        ("tenth", "tenth: 10 % off, for ever"),
    ]
    shop.double.app.state.api.faults.status, shop.double.app.state.api.faults.times = 500, 100
    answer = (await shop.admin.get(form)).json()
    shop.double.app.state.api.faults.times = 0
    assert answer["unknown"] == "Stripe does not tell what there is to choose from."
    assert answer["fields"][0]["options"] is None
