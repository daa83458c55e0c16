"""Minor units of currencies, as Stripe counts them. Pure."""

from decimal import Decimal
from typing import Final

# https://docs.stripe.com/currencies#zero-decimal, #three-decimal
_WITHOUT_MINOR: Final = frozenset(
    ("bif", "clp", "djf", "gnf", "jpy", "kmf", "krw", "mga", "pyg", "rwf", "ugx", "vnd", "vuv", "xaf", "xof", "xpf")
)
_WITH_THREE: Final = frozenset(("bhd", "jod", "kwd", "omr", "tnd"))


def exponent_of(currency: str) -> int:
    """How many digits its minor unit has."""
    word = currency.lower()
    return 0 if word in _WITHOUT_MINOR else 3 if word in _WITH_THREE else 2


def in_main_unit(minor: float | Decimal, currency: str) -> Decimal:
    """1250 of USD -> 12.50"""
    return Decimal(str(minor)).scaleb(-exponent_of(currency))
