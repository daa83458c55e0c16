"""Money as people type it, in the main unit of its currency. Pure."""

import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Final

from pydantic import BaseModel

from control.currencies import exponent_of

MINOR: Final = "_minor"
"""How a field of the API is called that holds minor units. In a form it has the name without that."""
_AMOUNT: Final = re.compile(r"([0-9]{1,15})(?:\.([0-9]{1,15}))?", re.ASCII)


class AmountUnclear(ValueError):
    """The text is no amount of the currency; the message is a sentence for who typed it."""


def minor_of(text: str, currency: str) -> int:
    """12.50 USD -> 1250. Raises AmountUnclear."""
    digits, read = exponent_of(currency), _AMOUNT.fullmatch(text.strip())
    if read is None:
        raise AmountUnclear(f"Write digits, such as {example(digits)}, without signs for thousands.")
    if len(read[2] or "") > digits:
        places = "no decimal places" if digits == 0 else f"at most {digits} decimal places"
        raise AmountUnclear(f"{currency.upper()} has {places}: {example(digits)}.")
    return int(Decimal(read[0]).scaleb(digits))


def example(digits: int) -> str:
    return f"{Decimal('12.5'):.{digits}f}" if digits else "12"


def typed_name(name: str) -> str:
    """What a field of the API is called in a form."""
    return name.removesuffix(MINOR)


def in_minor(
    model: type[BaseModel], sent: Sequence[tuple[str, str]], currency: str | None
) -> tuple[list[tuple[str, str]], dict[str, str]]:
    """What was sent as the model has it, and what is wrong with amounts. `currency`: None where it is not known."""
    fields = {typed_name(name): name for name in model.model_fields if name.endswith(MINOR)}
    read, wrong = [], dict[str, str]()
    for name, text in sent:
        if name in fields.values():
            wrong[typed_name(name)] = "Type the amount here."  # an address of an earlier release had minor units
        elif name not in fields or text == "":
            read.append((name, text))
        elif currency is None:
            wrong[name] = "In which currency this is, is not known."
        else:
            try:
                read.append((fields[name], str(minor_of(text, currency))))
            except AmountUnclear as e:
                wrong[name] = str(e)
    return read, wrong


def named_as_typed(errors: Mapping[str, str]) -> dict[str, str]:
    return {typed_name(name): text for name, text in errors.items()}
