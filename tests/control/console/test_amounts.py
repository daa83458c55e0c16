"""Amounts are typed in the main unit of their currency, and are never misread by a factor."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.actions.kinds.money import CreditFields
from control.console.frame.amounts import AmountUnclear, in_minor, minor_of
from control.console.frame.formats import money


@pytest.mark.parametrize(
    ("text", "currency", "minor"),
    [
        ("12.50", "usd", 1250),
        ("12.5", "usd", 1250),
        ("12", "usd", 1200),
        (" 0.01 ", "eur", 1),
        ("1234", "jpy", 1234),
        ("1.234", "kwd", 1234),
        ("007.10", "usd", 710),
    ],
)
def test_an_amount_is_read_by_the_digits_of_its_currency(text: str, currency: str, minor: int) -> None:
    assert minor_of(text, currency) == minor


@pytest.mark.parametrize(
    ("text", "currency"),
    [
        ("12.505", "usd"),
        ("12.0", "jpy"),
        ("1.2345", "kwd"),
        ("1,234.50", "usd"),
        ("1.234,50", "eur"),
        ("12,50", "eur"),
        ("$12", "usd"),
        ("-5", "usd"),
        ("1e3", "usd"),
        (".5", "usd"),
        ("5.", "usd"),
        ("١٢", "usd"),
        ("12 50", "usd"),
        ("NaN", "usd"),
        ("9" * 30, "usd"),
    ],
)
def test_what_could_mean_another_amount_is_refused(text: str, currency: str) -> None:
    with pytest.raises(AmountUnclear):
        minor_of(text, currency)


@given(minor=st.integers(0, 10**12), currency=st.sampled_from(["usd", "jpy", "kwd"]))
def test_what_is_shown_is_what_can_be_typed(minor: int, currency: str) -> None:
    shown = money(minor, currency).replace(",", "").lstrip("$¥KWD ")
    assert minor_of(shown, currency) == minor
    assert Decimal(shown) >= 0


def test_minor_units_in_an_address_and_amounts_without_a_currency_are_refused() -> None:
    typed = [("amount", "12.50"), ("currency", "usd")]
    assert in_minor(CreditFields, typed, "usd") == ([("amount_minor", "1250"), ("currency", "usd")], {})
    assert in_minor(CreditFields, [("amount_minor", "1250")], "usd")[1].keys() == {"amount"}
    assert in_minor(CreditFields, typed, None)[1].keys() == {"amount"}
