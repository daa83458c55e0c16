"""What a subscription is worth under each definition: the worked examples of those who define it."""

from decimal import Decimal
from typing import Any

import pytest

from control.billing.history.annual_value import COUNTED, Definition, Discount, Item, annual_value
from control.billing.history.record import record_of

DOLLAR = 100
HALF_FOREVER = Discount("half", "forever", percent_off=Decimal(50))
HALF_ONCE = Discount("half", "once", percent_off=Decimal(50))
HALF_REPEATING = Discount("half", "repeating", percent_off=Decimal(50))


def item(dollars: int, interval: str = "month", **other: Any) -> Item:
    return Item(**{"price": "p", "quantity": 1, "unit_amount": Decimal(dollars * DOLLAR), "interval": interval,
                   "interval_count": 1, **other})  # fmt: skip


def dollars_a_month(definition: Definition, status: str, *items: Item, discounts: tuple[Discount, ...] = ()) -> Decimal:
    return annual_value(definition, status, items, discounts) / 12 / DOLLAR


@pytest.mark.parametrize("definition", Definition)
def test_stripes_example_of_100_monthly_and_50_yearly_subscriptions_is_12500_dollars(definition: Definition) -> None:
    monthly = dollars_a_month(definition, "active", item(100))
    yearly = dollars_a_month(definition, "active", item(600, "year"))
    assert 100 * monthly + 50 * yearly == 12_500


@pytest.mark.parametrize("definition", Definition)
def test_1200_dollars_a_year_count_100(definition: Definition) -> None:
    assert dollars_a_month(definition, "active", item(1200, "year")) == 100


def test_a_forever_coupon_of_50_percent_halves_stripes_mrr_and_once_and_repeating_do_not_change_it() -> None:
    worth = {
        each.duration: dollars_a_month(Definition.STRIPE, "active", item(100), discounts=(each,))
        for each in (HALF_FOREVER, HALF_ONCE, HALF_REPEATING)
    }
    assert worth == {"forever": 50, "once": 100, "repeating": 100}


def test_a_repeating_coupon_lowers_chartmoguls_mrr_and_baremetrics_and_not_stripes() -> None:
    worth = {each.value: dollars_a_month(each, "active", item(100), discounts=(HALF_REPEATING,)) for each in Definition}
    assert worth == {"stripe": 100, "chartmogul": 50, "baremetrics": 50}


def test_past_due_counts_and_unpaid_counts_for_chartmogul_only() -> None:
    for definition in Definition:
        assert dollars_a_month(definition, "past_due", item(100)) == 100
    unpaid = {each.value: dollars_a_month(each, "unpaid", item(100)) for each in Definition}
    assert unpaid == {"stripe": 0, "chartmogul": 100, "baremetrics": 0}


@pytest.mark.parametrize("definition", Definition)
def test_trials_metered_revenue_and_what_has_not_begun_or_is_over_are_out(definition: Definition) -> None:
    for status in ("trialing", "incomplete", "incomplete_expired", "paused", "canceled", "a word of tomorrow"):
        assert dollars_a_month(definition, status, item(100)) == 0
        assert status not in COUNTED[definition]
    assert dollars_a_month(definition, "active", item(100, metered=True), item(30)) == 30


@pytest.mark.parametrize("definition", Definition)
def test_chartmoguls_customer_of_four_gold_yearly_is_worth_166_67(definition: Definition) -> None:
    assert round(dollars_a_month(definition, "active", item(500, "year", quantity=4)), 2) == Decimal("166.67")
    assert dollars_a_month(definition, "active", item(30, quantity=2)) == 60


def test_every_interval_is_so_many_of_a_year() -> None:
    worth = {
        (interval, count): annual_value(Definition.STRIPE, "active", [item(1, interval, interval_count=count)], ())
        for interval, count in (("day", 1), ("week", 2), ("month", 3), ("month", 6), ("year", 2))
    }
    assert worth == {("day", 1): 36500, ("week", 2): 2600, ("month", 3): 400, ("month", 6): 200, ("year", 2): 50}


def test_an_amount_is_taken_off_each_invoice_once_and_never_below_nothing() -> None:
    tenner = Discount("tenner", "forever", amount_off=Decimal(10 * DOLLAR))
    assert dollars_a_month(Definition.STRIPE, "active", item(30), item(20), discounts=(tenner,)) == 40
    assert dollars_a_month(Definition.STRIPE, "active", item(120, "year"), discounts=(tenner,)) * 12 == 110
    assert dollars_a_month(Definition.STRIPE, "active", item(4), discounts=(tenner,)) == 0
    assert dollars_a_month(Definition.STRIPE, "active", item(100), discounts=(HALF_FOREVER, tenner)) == 40
    assert dollars_a_month(Definition.STRIPE, "active", item(100, discounts=(HALF_FOREVER,)), item(10)) == 60


def test_the_largest_amounts_and_quantities_there_are_stay_exact() -> None:
    most = item(1, "day", unit_amount=Decimal("99999999.999999999999"), quantity=999_999_999_999)
    worth = annual_value(Definition.STRIPE, "active", [most], ())
    assert worth == Decimal("36499999999963499999635.000000000365")


def test_packages_are_counted_as_they_are_sold() -> None:
    assert item(7, quantity=250, packaged_by=100).amount == 21 * DOLLAR
    assert item(7, quantity=250, packaged_by=100, packages_round_up=False).amount == 14 * DOLLAR


def test_what_nobody_knows_the_amount_of_is_said_to_be_unknown() -> None:
    def priced(price: Any, discounts: Any = (), **subscription: Any) -> bool:
        items = {"data": [{"price": price, "quantity": 2}]}
        known = {"id": "s", "customer": "c", "status": "active", "currency": "USD", "created": 1, "items": items}
        return record_of({**known, "discounts": list(discounts), **subscription}, "o", {}).priced

    flat = {"id": "p", "unit_amount": 5, "recurring": {"interval": "month", "interval_count": 1}}
    assert priced(flat)
    assert not priced({**flat, "unit_amount": None}), "tiers"
    assert not priced("p"), "a price that Stripe did not tell"
    assert not priced({**flat, "recurring": {"interval": "fortnight"}}), "an interval of tomorrow"
    assert not priced(flat, ["di_1"])
    assert not priced(flat, customer={"id": "c", "discount": {"id": "di_1", "source": {"coupon": "x"}}})
    assert priced(flat, [{"id": "di", "source": {"coupon": {"id": "x", "percent_off": 12.5, "duration": "once"}}}])
