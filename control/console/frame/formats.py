"""Numbers, money and times as people read them. Pure."""

import json
import re
from collections.abc import Callable, Mapping
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Final

from markupsafe import Markup, escape

from control.currencies import exponent_of, in_main_unit
from quota.model import OveragePolicy

NOTHING: Final = "\u2013"
MINUS: Final = "\u2212"  # as wide as a digit, and a plus

_SYMBOLS: Final = {"usd": "$", "eur": "€", "gbp": "£", "jpy": "¥", "cad": "CA$", "aud": "A$", "inr": "₹", "brl": "R$"}

_SHORT: Final = ((10**12, "T"), (10**9, "B"), (10**6, "M"), (10**3, "k"))
_BEYOND: Final = {OveragePolicy.HARD_STOP.value: "is refused", OveragePolicy.METERED.value: "is sold"}
_POLICIES: Final[Mapping[Any, str]] = {p.value: p.value.replace("_", " ").lower() for p in OveragePolicy}
_DURATIONS: Final = ((86_400, "day"), (3_600, "hour"), (60, "minute"), (1, "second"))


def money(minor: float | Decimal | None, currency: str) -> str:
    """Of minor units, as the ledger and Stripe count."""
    if minor is None:
        return NOTHING
    digits = exponent_of(currency)
    amount = in_main_unit(minor, currency)
    sign = MINUS if amount < 0 else ""
    symbol = _SYMBOLS.get(currency.lower())
    text = f"{abs(amount):,.{digits}f}"
    return f"{sign}{symbol}{text}" if symbol else f"{sign}{currency.upper()} {text}"


def money_in(currency: str) -> Callable[[float], str]:
    return lambda minor: money(minor, currency)


def count(number: float | Decimal | None) -> str:
    if number is None:
        return NOTHING
    if isinstance(number, float | Decimal) and number != int(number):
        return f"{number:,.2f}".replace("-", MINUS)
    return f"{int(number):,}".replace("-", MINUS)


def short(number: float | None) -> str:
    """About: 1.2M."""
    if number is None:
        return NOTHING
    for unit, letter in _SHORT:
        if abs(number) >= unit:
            value = number / unit
            return f"{value:.0f}{letter}" if abs(value) >= 100 or value == int(value) else f"{value:.1f}{letter}"
    return count(number)


def percent(fraction: float | None, digits: int = 1) -> str:
    return NOTHING if fraction is None else f"{fraction * 100:,.{digits}f} %".replace("-", MINUS)


def moment(at: datetime | None) -> str | Markup:
    """A time of UTC. A browser shows how long ago that is, too."""
    if at is None:
        return NOTHING
    return Markup('<time datetime="{}">{}</time>').format(at.isoformat(), f"{at:%Y-%m-%d %H:%M}")


def ago(at: datetime | None) -> str | Markup:
    """The same, where how long ago it is matters more: a script writes that."""
    if at is None:
        return NOTHING
    return Markup('<time datetime="{}" data-ago>{}</time>').format(at.isoformat(), f"{at:%Y-%m-%d %H:%M}")


def day(at: datetime | date | None) -> str | Markup:
    return NOTHING if at is None else Markup('<time datetime="{0}">{0}</time>').format(f"{at:%Y-%m-%d}")


def duration(seconds: float | None) -> str:
    """The two largest units: 2 days 3 hours."""
    if seconds is None:
        return NOTHING
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms" if seconds > 0 else "0 seconds"
    rest, parts = int(seconds), []
    for unit, word in _DURATIONS:
        number, rest = divmod(rest, unit)
        if number:
            parts.append(f"{number} {word}{'' if number == 1 else 's'}")
        elif parts:
            break
    return " ".join(parts[:2])


def words(text: object) -> str:
    """A name of the API as words: past_due -> Past due."""
    spaced = re.sub(r"[_.:]+", " ", str(getattr(text, "value", text))).strip()
    return spaced[:1].upper() + spaced[1:]


def beyond(policy: object) -> str:
    """What becomes of what is beyond the allowance, by the policy of that name."""
    return _BEYOND.get(str(getattr(policy, "value", policy)), str(policy))


def value_of(value: Any, name: str) -> str:
    """The value of a field of the journal."""
    text = _POLICIES.get(value, value) if name == "policy" and isinstance(value, str) else value
    return text if isinstance(text, str) else pretty(text)


def named(fields: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Fields as the API names them, in words, but for those that are null."""
    return [
        (words(name), _POLICIES.get(value, value) if name == "policy" else value)
        for name, value in fields.items()
        if value is not None
    ]


def stored_as(place: str) -> str:
    """A table, or a table and its column, as people call it: console_link.created_by -> Console link, created by."""
    table, _, column = place.partition(".")
    name = "User" if table == "app_user" else words(table)
    return f"{name}, {words(column).lower()}" if column else name


def pretty(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False, default=str)


def or_nothing(value: object) -> Markup:
    return escape(NOTHING if value is None or value == "" else value)


def prose(text: str) -> Markup:
    """A sentence of ours, in which commands and names stand between backticks."""
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if number % 2 else escape(part)
        for number, part in enumerate(text.split("`"))
    )


FILTERS: Final[dict[str, Callable[..., object]]] = {
    "ago": ago,
    "beyond": beyond,
    "count": count,
    "day": day,
    "duration": duration,
    "moment": moment,
    "named": named,
    "money": money,
    "or_nothing": or_nothing,
    "percent": percent,
    "pretty": pretty,
    "prose": prose,
    "value_of": value_of,
    "short": short,
    "stored_as": stored_as,
    "words": words,
}
