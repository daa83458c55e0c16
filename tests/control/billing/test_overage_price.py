"""The promise: a unit beyond the plan costs the same wherever it is priced, in however many parts it is told."""

from hypothesis import given
from hypothesis import strategies as st

from control.billing.overage.overage_price import OveragePrice, unbilled
from control.billing.products import exact_price

PRICES = st.builds(OveragePrice, st.integers(0, 10_000), st.integers(1, 5_000))
PARTS = st.lists(st.integers(1, 20_000), max_size=8)


@given(price=PRICES, parts=PARTS, corrections=st.lists(st.integers(-500, 500), max_size=4))
def test_in_how_many_parts_units_are_told_makes_no_difference_to_what_they_cost(
    price: OveragePrice, parts: list[int], corrections: list[int]
) -> None:
    reported = cost = 0
    for part in [*parts, *corrections]:
        cost += price.of_more(reported, part)
        reported += part
    assert cost == price.of(reported)


@given(price=PRICES, billed=PARTS, missing=PARTS)
def test_what_is_told_to_be_unbilled_and_what_was_billed_are_together_what_all_of_it_costs(
    price: OveragePrice, billed: list[int], missing: list[int]
) -> None:
    reported = sent_minor = 0
    for part in billed:  # as invoice items
        sent_minor += price.of_more(reported, part)
        reported += part
    owed = reported + sum(missing)
    units, amount_minor = unbilled(owed, reported, sent_minor, price)
    assert sent_minor + amount_minor == price.of(owed)
    assert units == (sum(missing) if sent_minor < price.of(owed) else 0)


def test_units_are_rounded_half_up_and_packages_count_when_they_are_begun() -> None:
    by_unit = OveragePrice(300, 1000)
    assert [by_unit.of(units) for units in (0, 1, 2, 5, 50_000)] == [0, 0, 1, 2, 15_000]
    assert exact_price(1, 3) is None
    packages = OveragePrice(1, 3)
    assert [packages.of(units) for units in (0, 1, 3, 4, 7)] == [0, 1, 1, 2, 3]
    assert unbilled(7, 3, 1, packages) == (4, 2)
    assert unbilled(7, 0, 3, packages) == (0, 0), "an invoice counts packages, not units"
