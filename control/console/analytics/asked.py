"""What the address of a page asks for. A form sends a field that was emptied as an empty text: it asks for nothing."""

from dataclasses import dataclass
from datetime import date
from typing import Annotated

from fastapi import Depends, Query
from pydantic import BeforeValidator

from control.analytics import recurring
from control.api.analytics import Day
from control.billing.history.annual_value import Definition
from control.console.frame.sections import section
from control.http.context import Ctx

_GivenDay = Annotated[Day | None, BeforeValidator(lambda value: value or None)]


@dataclass(frozen=True, slots=True)
class Asked:
    definition: Definition
    currency: str
    currencies: list[str]
    since: date | None
    until: date | None


async def asked(
    ctx: Ctx,
    definition: Definition = Definition.STRIPE,
    currency: Annotated[str | None, Query(pattern="^[a-z]{3}$")] = None,
    since: Annotated[_GivenDay, Query(alias="from")] = None,
    until: Annotated[_GivenDay, Query(alias="to")] = None,
) -> Asked:
    known = (await section(recurring.currencies(ctx.reading))).value or []
    chosen = currency or (await section(recurring.main_currency(ctx.reading))).value or "usd"
    return Asked(definition, chosen, known if chosen in known else [*known, chosen], since, until)


AskedFor = Annotated[Asked, Depends(asked)]
