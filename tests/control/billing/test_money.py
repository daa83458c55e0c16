"""Money that an admin moves: credit, refunds, discounts; each journaled, each once."""

from typing import Any

import pytest
from httpx import Response

from tests.control.billing.shop import Shop

PRICE = 4900  # of starter, a month


async def post(shop: Shop, path: str, key: str | None = None, **body: Any) -> Response:
    headers = {"idempotency-key": key} if key else {}
    response = await shop.admin.post(path, json=body, headers=headers)
    await shop.settled()
    return response


def first_invoice(shop: Shop) -> dict[str, Any]:
    return next(shop.double.account.find("invoice", billing_reason="subscription_create"))


async def entries(shop: Shop, org: str) -> list[tuple[str, int]]:
    """Kind and amount, sorted."""
    listed = (await shop.admin.get(f"/v1/organizations/{org}/billing-entries")).json()["entries"]
    return sorted((each["kind"], each["amount_minor"]) for each in listed)


async def journaled(shop: Shop, org: str | None, action: str) -> list[Any]:
    query = "SELECT after FROM audit_journal WHERE org IS NOT DISTINCT FROM $1 AND action = $2 ORDER BY id"
    async with shop.context.db.connection() as connection:
        return [row["after"] for row in await connection.fetch(query, org, action)]


async def test_credit_pays_the_next_invoice(shop: Shop) -> None:
    org = await shop.signed_up("starter")
    response = await post(
        shop, f"/v1/organizations/{org}/credits", amount_minor=1500, currency="usd", reason="an outage"
    )
    assert (response.status_code, response.json()["amount_minor"]) == (201, 1500)
    assert await journaled(shop, org, "credit.given") == [
        {"amount_minor": 1500, "currency": "usd", "reason": "an outage"}
    ]
    await shop.period_over(org)
    renewal = (await shop.admin.get(f"/v1/organizations/{org}/invoices")).json()["invoices"][0]
    assert (renewal["billing_reason"], renewal["status"]) == ("subscription_cycle", "paid")
    assert (renewal["total_minor"], renewal["amount_paid_minor"]) == (PRICE, PRICE - 1500)


async def test_the_same_credit_with_the_same_key_is_given_once(shop: Shop) -> None:
    org = await shop.signed_up("starter")
    credit = {"amount_minor": 1500, "currency": "usd", "reason": "an outage"}
    answers = [await post(shop, f"/v1/organizations/{org}/credits", "key-1", **credit) for _ in range(2)]
    assert answers[0].json() == answers[1].json()
    assert shop.double.account.get("customer", await shop.customer(org))["balance"] == -1500
    assert await entries(shop, org) == [("balance", 1500)], "credit is what the organization was given"
    other = await post(shop, f"/v1/organizations/{org}/credits", "key-1", **{**credit, "amount_minor": 1})
    assert other.status_code == 409, other.text
    assert shop.double.account.get("customer", await shop.customer(org))["balance"] == -1500


@pytest.mark.parametrize(("amount", "to"), [(None, "card"), (1000, "card"), (None, "balance"), (1000, "balance")])
async def test_a_paid_invoice_is_refunded_wholly_or_in_part_to_the_card_or_as_credit(
    shop: Shop, amount: int | None, to: str
) -> None:
    org = await shop.signed_up("starter")
    invoice, refunded = first_invoice(shop), amount or PRICE
    body = {"invoice": invoice["id"], "reason": "an outage", "to": to, **({"amount_minor": amount} if amount else {})}
    for _ in range(2):
        response = await post(shop, f"/v1/organizations/{org}/refunds", "key-2", **body)
        assert response.status_code == 201, response.text
        assert (response.json()["kind"], response.json()["amount_minor"]) == ("credit_note", refunded)
    charge = next(shop.double.account.find("charge", customer=await shop.customer(org)))
    balance = shop.double.account.get("customer", await shop.customer(org))["balance"]
    assert (charge["amount_refunded"], balance) == ((refunded, 0) if to == "card" else (0, -refunded))
    back = [("credit_note", refunded), *([("refund", refunded)] if to == "card" else [])]
    assert await entries(shop, org) == back
    given = await journaled(shop, org, "refund.given")
    content = {"invoice": invoice["id"], "amount_minor": refunded, "to_balance": to == "balance", "reason": "an outage"}
    assert given[0] == content
    assert len(await shop.journal(org, "credit_note.recorded")) <= 1
    assert (await shop.entitlement(org))["status"] == "active"


async def test_more_than_was_paid_is_not_refunded_and_the_refusal_is_journaled(shop: Shop) -> None:
    org = await shop.signed_up("starter")
    response = await post(
        shop,
        f"/v1/organizations/{org}/refunds",
        invoice=first_invoice(shop)["id"],
        amount_minor=PRICE + 1,
        reason="too much",
    )
    assert response.status_code == 409, response.text
    assert "exceed" in response.json()["detail"]
    assert await entries(shop, org) == []
    assert len(await journaled(shop, org, "refund.given.refused")) == 1


async def test_an_invoice_of_somebody_else_is_not_refunded(shop: Shop) -> None:
    await shop.signed_up("starter")
    invoice = first_invoice(shop)
    org = await shop.signed_up("starter")
    path = f"/v1/organizations/{org}/refunds"
    for wrong in (invoice["id"], "in_of_nobody"):
        response = await post(shop, path, invoice=wrong, reason="a mistake")
        assert response.status_code == 409, response.text
    assert await entries(shop, org) == []


async def test_an_open_invoice_is_reduced_and_one_that_need_not_be_paid_any_more_is_paid(shop: Shop) -> None:
    org = await shop.signed_up("starter")
    await shop.card(org, "declines")
    await shop.period_over(org)
    invoice = next(shop.double.account.find("invoice", status="open"))
    path = f"/v1/organizations/{org}/refunds"
    assert (await post(shop, path, invoice=invoice["id"], amount_minor=900, reason="an outage")).status_code == 201
    listed = (await shop.admin.get(f"/v1/organizations/{org}/invoices")).json()["invoices"][0]
    assert (listed["status"], listed["amount_remaining_minor"]) == ("open", PRICE - 900)
    assert (await post(shop, path, invoice=invoice["id"], amount_minor=4000, reason="all")).status_code == 201
    assert (await shop.subscription(org))["status"] == "active"
    assert (await shop.entitlement(org))["status"] == "active"


async def test_a_coupon_at_checkout_takes_its_share_off(shop: Shop) -> None:
    made = await post(shop, "/v1/coupons", "key-3", id="quarter", percent_off=25, duration="once")
    assert (made.status_code, made.json()) == (201, {"id": "quarter"})
    org = await shop.signed_up("starter", coupon="quarter")
    assert first_invoice(shop)["amount_paid"] == PRICE * 3 // 4
    await shop.period_over(org)
    renewal = next(shop.double.account.find("invoice", billing_reason="subscription_cycle"))
    assert renewal["amount_paid"] == PRICE, "once is once"
    assert (await journaled(shop, None, "coupon.created"))[-1]["id"] == "quarter"


async def test_a_promotion_code_is_given_with_the_order_or_typed_on_the_page(shop: Shop) -> None:
    await post(shop, "/v1/coupons", id="tenner", amount_off_minor=1000, currency="usd", duration="forever")
    made = await post(shop, "/v1/promotion-codes", coupon="tenner", code="TENNER")
    assert made.status_code == 201, made.text
    org = await shop.signed_up("starter", promotion_code=made.json()["id"])
    assert first_invoice(shop)["amount_paid"] == PRICE - 1000
    await shop.period_over(org)
    assert next(shop.double.account.find("invoice", status="paid"))["amount_paid"] == PRICE - 1000
    typed, url = await shop.order("starter")
    assert (await shop.page.post(url, data={"action": "pay", "code": "tenner"})).status_code == 303
    await shop.settled()
    assert first_invoice(shop)["amount_paid"] == PRICE - 1000
    assert (await shop.entitlement(typed))["plan"] == "starter"
    assert len(await journaled(shop, None, "promotion_code.created")) == 1


async def test_a_discount_is_set_replaced_and_taken_away(shop: Shop) -> None:
    org = await shop.signed_up("starter")
    for name, share in (("small", 10), ("large", 50)):
        await post(shop, "/v1/coupons", id=name, percent_off=share, duration="forever")
    paid = []
    for coupon in ("small", "large", None):
        response = await shop.admin.put(f"/v1/organizations/{org}/discount", json={"coupon": coupon})
        assert response.status_code == 204, response.text
        await shop.settled()
        await shop.period_over(org)
        paid.append(next(shop.double.account.find("invoice", status="paid"))["amount_paid"])
    assert paid == [PRICE * 9 // 10, PRICE // 2, PRICE]
    assert [each["coupon"] for each in await journaled(shop, org, "discount.set")] == ["small", "large", None]
    response = await shop.admin.put(f"/v1/organizations/{org}/discount", json={"coupon": "of-nobody"})
    assert response.status_code == 409, response.text
    assert len(await journaled(shop, org, "discount.set.refused")) == 1


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("credits", {"amount_minor": 0, "currency": "usd", "reason": "x"}),
        ("credits", {"amount_minor": -5, "currency": "usd", "reason": "x"}),
        ("credits", {"amount_minor": 1.5, "currency": "usd", "reason": "x"}),
        ("credits", {"amount_minor": 10**13, "currency": "usd", "reason": "x"}),
        ("credits", {"amount_minor": 5, "currency": "USD", "reason": "x"}),
        ("credits", {"amount_minor": 5, "currency": "usd", "reason": ""}),
        ("credits", {"amount_minor": 5, "currency": "usd"}),
        ("refunds", {"invoice": "../customers", "reason": "x"}),
        ("refunds", {"invoice": "in_1", "reason": "x", "to": "me"}),
        ("refunds", {"invoice": "in_1", "reason": "x", "amount_minor": 0}),
        ("/v1/coupons", {}),
        ("/v1/coupons", {"percent_off": 10, "amount_off_minor": 10, "currency": "usd"}),
        ("/v1/coupons", {"percent_off": 101}),
        ("/v1/coupons", {"amount_off_minor": 10}),
        ("/v1/coupons", {"percent_off": 10, "duration": "repeating"}),
        ("/v1/coupons", {"percent_off": 10, "months": 3}),
        ("/v1/promotion-codes", {"coupon": "half", "code": "no spaces"}),
    ],
    ids=str,
)
async def test_bad_input_is_answered_422_and_nothing_moves(shop: Shop, path: str, body: dict[str, Any]) -> None:
    org = "org-of-bad-input"
    assert (await shop.admin.put(f"/v1/organizations/{org}", json={"name": org})).status_code in (200, 201)
    where = path if path.startswith("/") else f"/v1/organizations/{org}/{path}"
    response = await shop.admin.post(where, json=body)
    assert response.status_code == 422, response.text
    assert response.json()["errors"]
    calls = (await shop.page.get(f"{shop.double.url}/_double/calls")).json()["calls"]
    moving = ("balance_transactions", "credit_notes", "coupons", "promotion_codes")
    assert [each for each in calls if each["path"].endswith(moving)] == []


async def test_an_organization_without_a_subscription_has_nothing_to_credit_refund_or_discount(shop: Shop) -> None:
    assert (await shop.admin.put("/v1/organizations/plain", json={"name": "Plain"})).is_success
    credit = {"amount_minor": 5, "currency": "usd", "reason": "x"}
    assert (await shop.admin.post("/v1/organizations/plain/credits", json=credit)).status_code == 409
    refund = {"invoice": "in_1", "reason": "x"}
    assert (await shop.admin.post("/v1/organizations/plain/refunds", json=refund)).status_code == 409
    assert (await shop.admin.put("/v1/organizations/plain/discount", json={"coupon": None})).status_code == 409
